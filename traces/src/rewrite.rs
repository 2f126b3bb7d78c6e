//! A trace written anew: recompressed, or what was saved of a damaged one.

use thiserror::Error;
use vlbr_cpu::StepId;

use crate::record::add_functions;
use crate::symbols::Executed;
use crate::vlt::{
    ChunkBuffer, ChunkEncoder, MemoryAccess, Output, Scope, SideBuffer, SideStreams, Trace,
    VltError, WriteError, Writer,
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
/// Functions are named as when recording: a file that the trace does not name yet is looked for under
/// its path, and named if it is the one that was mapped.
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
    let mut executed = (trace.meta().scope == Scope::User).then(|| Executed::of_trace(trace));
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
        if let Some(executed) = &mut executed {
            let process = trace.threads()[info.thread.0 as usize].process.0;
            executed.chunk(process, index as u32, encoder.distinct(), trace.code());
        }
        done += info.counts.instructions.total();
        progress(done);
    }
    // What was said of an earlier attempt at them is said anew.
    let mut notes = trace.notes().to_vec();
    notes.retain(|(name, _)| name != "functions");
    let known = trace.functions().unwrap_or_default();
    let files = match executed {
        Some(executed) => executed.functions(trace.code(), known),
        None => known.to_vec(),
    };
    notes.extend(add_functions(&mut writer, &files)?);
    Ok(writer.finish(&notes)?)
}
