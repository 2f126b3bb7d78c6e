//! Synthetic traces in memory.

use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, Exit, Interner, Mode, Step, Target};
use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
use vlbr_traces::vlt::{
    ChunkEncoder, Meta, OpenOptions, Process, ProcessIndex, Scope, SideStreams, Thread, Trace,
    Writer, WriterOptions, encode_chunk,
};

/// A trace of `chunks` chunks a thread, threads alternating, of about `instructions` each.
pub(crate) fn trace(config: &SyntheticConfig, chunks: usize, instructions: u64) -> Trace {
    let mut synthetic = Synthetic::new(config).unwrap();
    let scope = if config.kernel {
        Scope::System
    } else {
        Scope::User
    };
    let meta = Meta {
        engine: "synthetic".into(),
        scope,
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, WriterOptions::default()).unwrap();
    let process = Process {
        pid: 100,
        path: "/bin/synthetic".into(),
        ..Process::default()
    };
    writer.add_process(&process).unwrap();
    let threads: Vec<_> = (0..synthetic.threads())
        .map(|thread| {
            let thread = Thread {
                process: ProcessIndex(0),
                tid: 100 + thread as u32,
                vcpu: None,
                name: String::new(),
            };
            writer.add_thread(&thread).unwrap()
        })
        .collect();
    let mut encoder = ChunkEncoder::new(3);
    for _ in 0..chunks {
        for (number, &thread) in threads.iter().enumerate() {
            let steps = synthetic.run(number, instructions).unwrap();
            writer.sync_code(synthetic.code()).unwrap();
            let sides = SideStreams::default();
            let chunk = encoder
                .encode(thread, &steps, synthetic.code(), &sides)
                .unwrap();
            writer.write_chunk(&chunk).unwrap();
        }
    }
    let bytes = writer.finish(&[]).unwrap();
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}

/// One thread of jumps, calls and returns in which now and then one of `kinds` strikes, in turn.
pub(crate) fn trace_with_events(
    seed: u64,
    kinds: &[FarKind],
    chunks: usize,
    steps: usize,
) -> Trace {
    let mode = Mode::user64(0);
    let to = |address| Target {
        address,
        cs_base: 0,
        code_size: CodeSize::Bits64,
        cpl: Cpl::Ring3,
    };
    let mut interner = Interner::new();
    let mut ordinary = Vec::new();
    for index in 0..40_u64 {
        let address = 0x1000 + 64 * index;
        let bytes: &[u8] = match index % 4 {
            0 => &[0x90, 0xeb, 0x10],
            1 => &[0xe8, 0, 1, 0, 0],
            2 => &[0x90, 0x90, 0xc3],
            _ => &[0x74, 0x10],
        };
        let block = Block::decode(address, mode, bytes).unwrap();
        let retired = block.instructions();
        let target = to(block.branch().unwrap().target.unwrap_or(0x1000));
        let block = interner.block(block).unwrap();
        let exit = Exit::Taken {
            target,
            mispredicted: false,
            in_tx: false,
        };
        ordinary.push(
            interner
                .step(Step {
                    block,
                    retired,
                    exit,
                })
                .unwrap(),
        );
    }
    let events: Vec<_> = kinds
        .iter()
        .enumerate()
        .map(|(index, &kind)| {
            let block = Block::decode(0x8000 + index as u64, mode, &[0x90]).unwrap();
            let block = interner.block(block).unwrap();
            let target = Target {
                cpl: Cpl::Ring0,
                ..to(0x9000)
            };
            let exit = Exit::Event {
                kind,
                target,
                in_tx: false,
            };
            interner
                .step(Step {
                    block,
                    retired: 1,
                    exit,
                })
                .unwrap()
        })
        .collect();
    let meta = Meta {
        engine: "synthetic".into(),
        scope: Scope::System,
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, WriterOptions::default()).unwrap();
    let process = writer.add_process(&Process::default()).unwrap();
    let thread = Thread {
        process,
        tid: 0,
        vcpu: Some(0),
        name: String::new(),
    };
    let thread = writer.add_thread(&thread).unwrap();
    writer.sync_code(interner.code()).unwrap();
    let (mut random, mut next) = (seed, 0);
    for chunk in 0..chunks {
        let sequence: Vec<_> = (0..steps)
            .map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Every third chunk is free of events, so that both roads alternate.
                if chunk % 3 != 1 && random >> 33 & 0xff == 0 {
                    next += 1;
                    events[next % events.len()]
                } else {
                    ordinary[(random >> 40) as usize % ordinary.len()]
                }
            })
            .collect();
        let sides = SideStreams::default();
        let chunk = encode_chunk(thread, &sequence, interner.code(), &sides, 3).unwrap();
        writer.write_chunk(&chunk).unwrap();
    }
    let bytes = writer.finish(&[]).unwrap();
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}
