//! Synthetic traces in files.

use std::path::{Path, PathBuf};

use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
use vlbr_traces::vlt::{
    ChunkEncoder, Mapping, MappingFlags, Meta, Process, ProcessIndex, Scope, SideStreams, Thread,
    Writer, WriterOptions,
};

/// A trace to write.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The program.
    pub(crate) config: SyntheticConfig,
    /// Chunks a thread; threads alternate.
    pub(crate) chunks: usize,
    /// Instructions of a chunk.
    pub(crate) instructions: u64,
    /// Path of the program, mapped at its code.
    pub(crate) program: PathBuf,
}

impl Recipe {
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self {
            config: SyntheticConfig {
                one_in_interrupted: 300,
                one_in_mispredicted: 11,
                ..SyntheticConfig::with_seed(seed)
            },
            chunks: 3,
            instructions: 20_000,
            program: "/absent/synthetic".into(),
        }
    }

    /// The trace as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut synthetic = Synthetic::new(&self.config).unwrap();
        let meta = Meta {
            engine: "synthetic".into(),
            scope: if self.config.kernel {
                Scope::System
            } else {
                Scope::User
            },
            ..Meta::default()
        };
        let mut writer = Writer::new(Vec::new(), &meta, WriterOptions::default()).unwrap();
        let process = Process {
            pid: 100,
            path: self.program.clone(),
            ..Process::default()
        };
        writer.add_process(&process).unwrap();
        writer
            .add_mapping(&Mapping {
                process: ProcessIndex(0),
                start: 0x40_0000,
                length: 0x10_0000,
                offset: 0x1000,
                flags: MappingFlags {
                    read: true,
                    execute: true,
                    ..MappingFlags::default()
                },
                path: self.program.clone(),
                ..Mapping::default()
            })
            .unwrap();
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
        for _ in 0..self.chunks {
            for (number, &thread) in threads.iter().enumerate() {
                let steps = synthetic.run(number, self.instructions).unwrap();
                writer.sync_code(synthetic.code()).unwrap();
                let sides = SideStreams::default();
                let chunk = encoder
                    .encode(thread, &steps, synthetic.code(), &sides)
                    .unwrap();
                writer.write_chunk(&chunk).unwrap();
            }
        }
        writer.finish(&[]).unwrap()
    }

    /// Writes the trace.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}
