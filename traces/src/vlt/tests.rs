//! Tests of the format as a whole: what is written is read, what is damaged is named.

mod damage;
mod named;
mod round_trip;

use vlbr_cpu::StepId;

use super::*;
use crate::synthetic::{Synthetic, SyntheticConfig};

/// A small trace with everything in it.
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    pub(super) program: Synthetic,
    pub(super) chunks: Vec<(ThreadIndex, Vec<StepId>)>,
    pub(super) memory: Vec<MemoryAccess>,
    pub(super) machine: Vec<(Position, MachineAccess)>,
    pub(super) times: Vec<Timestamp>,
}

pub(super) fn meta() -> Meta {
    Meta {
        recorder: "vlbr 0.1.0".into(),
        engine: "synthetic".into(),
        engine_version: "1".into(),
        arch: "x86_64".into(),
        scope: Scope::System,
        command_line: vec!["program".into(), "--flag".into()],
        notes: vec![("cpu".into(), "max".into())],
    }
}

pub(super) fn process() -> Process {
    Process {
        pid: 1234,
        ppid: 1,
        start: ProcessStart::Exec,
        path: "/usr/bin/program".into(),
        command_line: vec!["program".into(), "--flag".into()],
    }
}

pub(super) fn mapping(process: ProcessIndex) -> Mapping {
    Mapping {
        process,
        from_chunk: 1,
        start: 0x40_0000,
        length: 0x10_0000,
        offset: 0x1000,
        flags: MappingFlags {
            read: true,
            execute: true,
            ..MappingFlags::default()
        },
        path: "/usr/bin/program".into(),
        build_id: vec![0xab; 20],
    }
}

pub(super) const SYMBOLS: &str = "ffffffff81000000 T _text\nffffffff81000010 t start\n";

pub(super) fn functions() -> Vec<FileFunctions> {
    let function = |address, size, name: &str| Function {
        address,
        size,
        name: name.into(),
    };
    let lib = FileFunctions {
        path: "/lib/lib.so".into(),
        state: FileState::Another,
        ..FileFunctions::default()
    };
    let program = FileFunctions {
        path: "/usr/bin/program".into(),
        build_id: vec![0xab; 20],
        state: FileState::Read,
        segments: vec![CodeSegment {
            address: 0x40_1000,
            offset: 0x1000,
            size: 0x2345,
        }],
        functions: vec![
            function(0x40_1000, 0x20, "_start"),
            function(0x40_1020, 1, "_ZN4core3fmt5write17h0123456789abcdefE"),
            function(0x40_1030, u64::MAX - 0x40_1030, "\u{e9}"),
        ],
    };
    let gone = FileFunctions {
        path: "/usr/bin/program".into(),
        build_id: vec![0xac; 20],
        state: FileState::Unreadable,
        ..FileFunctions::default()
    };
    vec![lib, program, gone]
}

pub(super) fn sample(seed: u64, instructions: u64) -> Sample {
    let config = SyntheticConfig {
        threads: 2,
        functions: 12,
        one_in_interrupted: 100,
        one_in_mispredicted: 30,
        ..SyntheticConfig::with_seed(seed)
    };
    let mut program = Synthetic::new(&config).unwrap();
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&process()).unwrap();
    let threads = [7, 8].map(|tid| {
        let thread = Thread {
            process,
            tid,
            vcpu: (tid == 8).then_some(0),
            name: "worker".into(),
        };
        writer.add_thread(&thread).unwrap()
    });
    writer.add_mapping(&mapping(process)).unwrap();
    writer.add_symbols(SYMBOLS).unwrap();
    let mut chunks = Vec::new();
    let (mut memory, mut machine, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..3 {
        for (number, &thread) in threads.iter().enumerate() {
            let steps = program.run(number, instructions).unwrap();
            let last = steps.len() as u32 - 1;
            let mut sides = SideStreams::default();
            if turn == 1 && number == 0 {
                memory = accesses(last);
                machine = machine_accesses(last);
                times = [0, last / 2, last]
                    .map(|step| Timestamp {
                        step,
                        nanoseconds: 1_000_000 - u64::from(step),
                    })
                    .to_vec();
                sides = SideStreams {
                    memory: &memory,
                    machine: &machine,
                    times: &times,
                };
            }
            writer.sync_code(program.code()).unwrap();
            let chunk = encode_chunk(thread, &steps, program.code(), &sides, 3).unwrap();
            assert_eq!(writer.write_chunk(&chunk).unwrap(), chunks.len() as u32);
            chunks.push((thread, steps));
        }
    }
    writer.add_functions(&functions()).unwrap();
    let bytes = writer.finish(&[("end".into(), "complete".into())]).unwrap();
    Sample {
        bytes,
        program,
        chunks,
        memory,
        machine,
        times,
    }
}

fn accesses(last: u32) -> Vec<MemoryAccess> {
    (0..=last)
        .flat_map(|step| {
            [(0, 2, false), (1, 3, true), (1, 3, false)].map(|(instruction, size_log2, store)| {
                MemoryAccess {
                    position: Position { step, instruction },
                    address: 0x7fff_0000_0000 + u64::from(step) * 8,
                    size_log2,
                    store,
                }
            })
        })
        .collect()
}

fn machine_accesses(last: u32) -> Vec<(Position, MachineAccess)> {
    let at = |step, instruction| Position { step, instruction };
    vec![
        (
            at(0, 0),
            MachineAccess::ReadMsr {
                msr: 0xc000_0080,
                value: Some(u64::MAX),
            },
        ),
        (
            at(0, 5),
            MachineAccess::WriteMsr {
                msr: 0x1d9,
                value: None,
            },
        ),
        (
            at(last / 2, 1),
            MachineAccess::PortIn {
                port: 0x3f8,
                value: Some(0x20),
            },
        ),
        (
            at(last, 0),
            MachineAccess::PortOut {
                port: 0xffff,
                value: None,
            },
        ),
        (
            at(last, 2),
            MachineAccess::Cpuid {
                leaf: 0x1c,
                subleaf: 0,
                result: Some([1, 2, 3, u32::MAX]),
            },
        ),
        (
            at(last, 2),
            MachineAccess::Cpuid {
                leaf: 7,
                subleaf: 1,
                result: None,
            },
        ),
    ]
}

pub(super) fn open(bytes: &[u8], salvage: bool) -> Result<Trace, VltError> {
    let options = OpenOptions {
        salvage,
        ..OpenOptions::default()
    };
    Trace::from_bytes(bytes.to_vec(), options)
}
