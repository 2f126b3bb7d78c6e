//! BOLT profiles speak of one program, not of all that a process ever ran.

use std::path::Path;

use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::{Block, Exit, Interner, Mode, Step, Target};
use vlbr_lbr::Profile;
use vlbr_replay::{Format, Session, SessionOptions, export};
use vlbr_traces::symbols::ElfImage;
use vlbr_traces::vlt::{
    Mapping, MappingFlags, Meta, OpenOptions, Process, ProcessStart, SideStreams, Thread, Trace,
    Writer, WriterOptions, encode_chunk,
};

/// Where the loader is taken to have put a position-independent program.
const BIAS: u64 = 0x4000_0000_0000;

/// `program` jumps from linked address `first` to itself 3000 times, then executes another program
/// that does the same at `first + 16`, at the same bias and under the same pid.
fn exec_of_another_program(program: &Path, segment: (u64, u64, u64), first: u64) -> Trace {
    let mut interner = Interner::new();
    let mut step_at = |address: u64, space: u32| {
        let mode = Mode::user64(space);
        // jmp to itself
        let block = interner
            .block(Block::decode(address, mode, &[0xeb, 0xfe]).unwrap())
            .unwrap();
        let target = Target {
            address,
            cs_base: 0,
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring3,
        };
        let exit = Exit::Taken {
            target,
            mispredicted: false,
            in_tx: false,
        };
        let step = Step {
            block,
            retired: 1,
            exit,
        };
        interner.step(step).unwrap()
    };
    let steps = [step_at(BIAS + first, 0), step_at(BIAS + first + 16, 1)];
    let meta = Meta {
        engine: "synthetic".into(),
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, WriterOptions::default()).unwrap();
    let (address, offset, size) = segment;
    let programs = [
        (program, ProcessStart::Initial),
        (Path::new("/absent/other"), ProcessStart::Exec),
    ];
    let mut threads = Vec::new();
    for (path, start) in programs {
        let process = Process {
            pid: 100,
            start,
            path: path.into(),
            ..Process::default()
        };
        let process = writer.add_process(&process).unwrap();
        let page = offset & 0xfff;
        let mapping = Mapping {
            process,
            start: BIAS + address - page,
            length: size + page,
            offset: offset - page,
            flags: MappingFlags {
                read: true,
                execute: true,
                ..MappingFlags::default()
            },
            path: path.into(),
            ..Mapping::default()
        };
        writer.add_mapping(&mapping).unwrap();
        let thread = Thread {
            process,
            tid: 100,
            vcpu: None,
            name: String::new(),
        };
        threads.push(writer.add_thread(&thread).unwrap());
    }
    writer.sync_code(interner.code()).unwrap();
    for (thread, step) in threads.into_iter().zip(steps) {
        let sides = SideStreams::default();
        let chunk = encode_chunk(thread, &[step; 3000], interner.code(), &sides, 3).unwrap();
        writer.write_chunk(&chunk).unwrap();
    }
    let bytes = writer.finish(&[]).unwrap();
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}

#[test]
fn what_a_process_runs_after_an_exec_is_not_the_first_program() {
    let program = std::env::current_exe().unwrap();
    let image = ElfImage::open(&program).unwrap();
    let code = image
        .segments()
        .iter()
        .find(|segment| segment.executable && segment.file_size > 0x100)
        .expect("a program has code");
    let first = code.address + 0x40;
    let segment = (code.address, code.file_offset, code.file_size);
    let trace = exec_of_another_program(&program, segment, first);
    let directory = tempfile::tempdir().unwrap();
    for format in [Format::Bolt, Format::BoltExact] {
        let session = Session::new(&trace, SessionOptions::new(skylake())).unwrap();
        let path = directory.path().join("profile");
        export(&session, format, &path, &[], &mut |_| ()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split(' ').collect()).collect();
        lines.iter_mut().for_each(|line| line.truncate(3));
        let at = format!("{first:x}");
        assert_eq!(lines, [["B", &at, &at], ["F", &at, &at]], "{format:?}");
    }
}

fn skylake() -> Profile {
    Profile::named("skylake").unwrap().clone()
}
