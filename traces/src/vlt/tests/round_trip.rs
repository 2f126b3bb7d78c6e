use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, Code, Exit, Mode, ModeSource, Step, Target};

use super::*;

#[test]
fn everything_written_is_read() {
    let sample = sample(1, 20_000);
    let trace = open(&sample.bytes, false).unwrap();
    assert!(trace.damage().is_none());
    assert_eq!(*trace.meta(), meta());
    assert_eq!(trace.processes(), [process()]);
    assert_eq!(trace.mappings(), [mapping(ProcessIndex(0))]);
    assert_eq!(trace.symbols(), Some(SYMBOLS));
    assert_eq!(trace.functions(), Some(functions().as_slice()));
    assert_eq!(trace.notes(), [("end".to_owned(), "complete".to_owned())]);
    let threads: Vec<_> = trace.threads().iter().map(|t| (t.tid, t.vcpu)).collect();
    assert_eq!(threads, [(7, None), (8, Some(0))]);
    assert_eq!(trace.code().blocks(), sample.program.code().blocks());
    assert_eq!(trace.code().steps(), sample.program.code().steps());
    assert_eq!(trace.sizes().total(), sample.bytes.len() as u64);
    let mut buffer = ChunkBuffer::new();
    let mut retired = [0; 2];
    for (index, (thread, steps)) in sample.chunks.iter().enumerate() {
        let info = trace.chunks()[index];
        assert_eq!((info.thread, info.ordinal as usize), (*thread, index / 2));
        assert_eq!(info.first_instruction, retired[thread.0 as usize]);
        retired[thread.0 as usize] += info.counts.instructions.total();
        let chunk = trace.decode(index, &mut buffer).unwrap();
        assert!(chunk.steps().eq(steps.iter().copied()), "chunk {index}");
        trace.check_chunk(index, &mut buffer).unwrap();
    }
    assert_eq!(trace.instructions(), retired[0] + retired[1]);
}

#[test]
fn counts_are_those_of_the_steps() {
    let sample = sample(2, 20_000);
    let trace = open(&sample.bytes, false).unwrap();
    let code = trace.code();
    for (index, (_, steps)) in sample.chunks.iter().enumerate() {
        let counts = trace.chunks()[index].counts;
        let sum = |user: bool, f: &dyn Fn(StepId) -> u64| -> u64 {
            steps
                .iter()
                .filter(|&&s| code.is_user(s) == user)
                .map(|&s| f(s))
                .sum()
        };
        let near = |s: StepId| {
            use vlbr_arch::BranchClass::Far;
            u64::from(code.transfer(s).is_some_and(|t| !matches!(t.class, Far(_))))
        };
        for (found, expected) in [
            (
                counts.instructions,
                &(|s| code.step(s).retired.into()) as &dyn Fn(StepId) -> u64,
            ),
            (counts.branches, &|s| code.retires_branch(s).into()),
            (counts.near_taken, &near),
            (counts.transfers, &|s| code.transfer(s).is_some().into()),
        ] {
            assert_eq!(u64::from(found.kernel), sum(false, expected));
            assert_eq!(u64::from(found.user), sum(true, expected));
        }
    }
}

#[test]
fn side_streams_are_read() {
    let sample = sample(3, 5_000);
    let trace = open(&sample.bytes, false).unwrap();
    let (mut buffer, mut side) = (ChunkBuffer::new(), SideBuffer::default());
    // Turn 1 of thread 0 is the third chunk.
    let chunk = trace.decode(2, &mut buffer).unwrap();
    let memory = trace.memory_accesses(2, &chunk, &mut side).unwrap();
    let memory: Result<Vec<_>, _> = memory.unwrap().collect();
    assert_eq!(memory.unwrap(), sample.memory);
    let mut side = SideBuffer::default();
    assert_eq!(
        trace.machine_accesses(2, &mut side).unwrap(),
        sample.machine
    );
    assert_eq!(trace.timestamps(2, &mut side).unwrap(), sample.times);
    let chunk = trace.decode(1, &mut buffer).unwrap();
    assert!(
        trace
            .memory_accesses(1, &chunk, &mut side)
            .unwrap()
            .is_none()
    );
    assert!(trace.machine_accesses(1, &mut side).unwrap().is_empty());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(sample(4, 3_000).bytes, sample(4, 3_000).bytes);
}

/// Modes, exits and blocks that the generator does not make.
#[test]
fn unusual_code_is_kept() {
    let mut code = Code::new();
    let real = Mode {
        code_size: CodeSize::Bits16,
        cpl: Cpl::Ring0,
        cs_base: 0xf_0000,
        space: 7,
        source: ModeSource::Recorded,
    };
    // Code modified in place: the same address with other bytes.
    let old = code
        .add_block(Block::decode(0xfff0, real, &[0xeb, 0x10]).unwrap())
        .unwrap();
    let new = code
        .add_block(Block::decode(0xfff0, real, &[0x90, 0xcd, 0x10]).unwrap())
        .unwrap();
    let empty = code.add_block(Block::empty(u64::MAX, Mode::user64(u32::MAX)));
    let target = Target {
        // 16-bit instruction pointers wrap.
        address: 2,
        cs_base: 0xf_0000,
        code_size: CodeSize::Bits16,
        cpl: Cpl::Ring0,
    };
    let far = Target {
        address: 0,
        cs_base: 0x1234,
        code_size: CodeSize::Bits32,
        cpl: Cpl::Ring1,
    };
    let taken = |target, in_tx: bool| Exit::Taken {
        target,
        mispredicted: !in_tx,
        in_tx,
    };
    for (block, retired, exit) in [
        (old, 1, taken(target, false)),
        (new, 2, taken(far, true)),
        (new, 1, Exit::Gap),
        (
            empty.unwrap(),
            0,
            Exit::Event {
                kind: FarKind::TsxAbort,
                target: far,
                in_tx: true,
            },
        ),
        (old, 0, Exit::Sequential),
    ] {
        code.add_step(Step {
            block,
            retired,
            exit,
        })
        .unwrap();
    }
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    writer.sync_code(&code).unwrap();
    let bytes = writer.finish(&[]).unwrap();
    let trace = open(&bytes, false).unwrap();
    assert_eq!(trace.code().blocks(), code.blocks());
    assert_eq!(trace.code().steps(), code.steps());
}

#[test]
fn more_than_65536_different_steps_take_wide_ids() {
    let mut code = Code::new();
    for index in 0..70_000 {
        let block = Block::decode(index * 16, Mode::user64(0), &[0x90]).unwrap();
        let block = code.add_block(block).unwrap();
        code.add_step(Step {
            block,
            retired: 1,
            exit: Exit::Sequential,
        })
        .unwrap();
    }
    let steps: Vec<_> = (0..70_000).rev().map(StepId).collect();
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&process()).unwrap();
    let thread = writer
        .add_thread(&Thread {
            process,
            tid: 1,
            vcpu: None,
            name: String::new(),
        })
        .unwrap();
    writer.sync_code(&code).unwrap();
    for part in [&steps[..], &steps[..65_536]] {
        let chunk = encode_chunk(thread, part, &code, &SideStreams::default(), 1).unwrap();
        writer.write_chunk(&chunk).unwrap();
    }
    let trace = open(&writer.finish(&[]).unwrap(), false).unwrap();
    let mut buffer = ChunkBuffer::new();
    for (index, part) in [&steps[..], &steps[..65_536]].into_iter().enumerate() {
        let chunk = trace.decode(index, &mut buffer).unwrap();
        let wide = matches!(chunk.ids, vlbr_cpu::run::StepIds::U32(_));
        assert_eq!(wide, index == 0);
        assert!(chunk.steps().eq(part.iter().copied()));
        trace.check_chunk(index, &mut buffer).unwrap();
    }
}

#[test]
fn buffers_do_not_grow_from_chunk_to_chunk() {
    let sample = sample(5, 20_000);
    let trace = open(&sample.bytes, false).unwrap();
    let mut buffer = ChunkBuffer::new();
    let pass = |buffer: &mut ChunkBuffer| {
        for index in 0..trace.chunks().len() {
            trace.decode(index, buffer).unwrap();
        }
        buffer.capacity()
    };
    let first = pass(&mut buffer);
    assert_eq!(pass(&mut buffer), first);
}

#[test]
fn references_to_what_was_not_written_are_refused() {
    let mut program = Synthetic::new(&SyntheticConfig::default()).unwrap();
    let steps = program.run(0, 1_000).unwrap();
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    let chunk = encode_chunk(
        ThreadIndex(0),
        &steps,
        program.code(),
        &SideStreams::default(),
        1,
    )
    .unwrap();
    let refused = |result, expected| match result {
        Err(WriteError::NoSuch { what, .. }) => assert_eq!(what, expected),
        _ => panic!("{expected} accepted"),
    };
    refused(writer.write_chunk(&chunk).map(|_| ()), "step");
    writer.sync_code(program.code()).unwrap();
    refused(writer.write_chunk(&chunk).map(|_| ()), "thread");
    refused(writer.add_mapping(&mapping(ProcessIndex(0))), "process");
    let beyond = [StepId(program.code().steps().len() as u32)];
    let sides = SideStreams::default();
    let encoded = encode_chunk(ThreadIndex(0), &beyond, program.code(), &sides, 1);
    refused(encoded.map(|_| ()), "step");
}

#[test]
fn side_positions_out_of_order_or_range_are_refused() {
    let mut program = Synthetic::new(&SyntheticConfig::default()).unwrap();
    let steps = program.run(0, 1_000).unwrap();
    let time = |step| Timestamp {
        step,
        nanoseconds: 0,
    };
    let beyond = steps.len() as u32;
    for times in [[time(1), time(0)], [time(0), time(beyond)]] {
        let sides = SideStreams {
            times: &times,
            ..SideStreams::default()
        };
        assert!(matches!(
            encode_chunk(ThreadIndex(0), &steps, program.code(), &sides, 1),
            Err(WriteError::Position(_))
        ));
    }
}
