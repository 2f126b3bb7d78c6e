//! A trace written anew: recompressed, or what was saved of a damaged one.

use thiserror::Error;
use vlbr_cpu::StepId;

use crate::vlt::{
    ChunkBuffer, ChunkEncoder, MemoryAccess, Output, SideBuffer, SideStreams, Trace, VltError,
    WriteError, Writer,
};

/// Why a trace could not be rewritten.
#[derive(Debug, Error)]
pub enum RewriteError {
    /// The old trace is damaged.
    #[error(transparent)]
    Read(#[from] VltError),
    /// The new one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes everything in `trace` to `writer`, chunks compressed at `level` (1 to 19), and finishes
/// it. `progress` is told the instructions done.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite<O: Output>(
    trace: &Trace,
    mut writer: Writer<O>,
    level: i32,
    progress: &mut dyn FnMut(u64),
) -> Result<O, RewriteError> {
    for process in trace.processes() {
        writer.add_process(process)?;
    }
    for thread in trace.threads() {
        writer.add_thread(thread)?;
    }
    for mapping in trace.mappings() {
        writer.add_mapping(mapping)?;
    }
    if let Some(symbols) = trace.symbols() {
        writer.add_symbols(symbols)?;
    }
    writer.sync_code(trace.code())?;
    let mut encoder = ChunkEncoder::new(level);
    let mut buffer = ChunkBuffer::new();
    let mut side = SideBuffer::default();
    let mut steps: Vec<StepId> = Vec::new();
    let mut memory: Vec<MemoryAccess> = Vec::new();
    let mut done = 0;
    for (index, info) in trace.chunks().iter().enumerate() {
        let chunk = trace.decode(index, &mut buffer)?;
        steps.clear();
        steps.extend(chunk.steps());
        memory.clear();
        if let Some(accesses) = trace.memory_accesses(index, &chunk, &mut side)? {
            for access in accesses {
                memory.push(access.map_err(|damage| VltError {
                    offset: info.offset,
                    damage,
                })?);
            }
        }
        let machine = trace.machine_accesses(index, &mut side)?;
        let times = trace.timestamps(index, &mut side)?;
        let sides = SideStreams {
            memory: &memory,
            machine: &machine,
            times: &times,
        };
        let encoded = encoder.encode(info.thread, &steps, trace.code(), &sides)?;
        writer.write_chunk(&encoded)?;
        done += info.counts.instructions.total();
        progress(done);
    }
    Ok(writer.finish(trace.notes())?)
}
