//! Synthetic traces in memory.

use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
use vlbr_traces::vlt::{
    ChunkEncoder, Meta, OpenOptions, Process, ProcessIndex, Scope, SideStreams, Thread, Trace,
    Writer, WriterOptions,
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
