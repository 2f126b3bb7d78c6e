//! The native trace format, `.vlt`: what was executed, self-contained and compressed.
//!
//! `docs/vlt.md` holds the rules of compatibility and the layout. A trace is written with a
//! [`Writer`] and read with a [`Trace`]. Its steps come in chunks of one thread each, encoded by a
//! [`ChunkEncoder`] and decoded alone, so that both can be done on many threads.
//!
//! ```
//! use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
//! use vlbr_traces::vlt::{
//!     ChunkBuffer, Meta, OpenOptions, Process, RECORDING_LEVEL, SideStreams, Thread, Trace,
//!     Writer, WriterOptions, encode_chunk,
//! };
//!
//! let mut program = Synthetic::new(&SyntheticConfig::with_seed(1))?;
//! let steps = program.run(0, 100_000)?;
//!
//! let mut writer = Writer::new(Vec::new(), &Meta::default(), WriterOptions::default())?;
//! let process = writer.add_process(&Process::default())?;
//! let thread = writer.add_thread(&Thread { process, tid: 1, vcpu: None, name: String::new() })?;
//! writer.sync_code(program.code())?;
//! let sides = SideStreams::default();
//! writer.write_chunk(&encode_chunk(thread, &steps, program.code(), &sides, RECORDING_LEVEL)?)?;
//! let bytes = writer.finish(&[])?;
//!
//! let trace = Trace::from_bytes(bytes, OpenOptions::default())?;
//! let mut buffer = ChunkBuffer::new();
//! let chunk = trace.decode(0, &mut buffer)?;
//! assert!(chunk.steps().eq(steps));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bytes;
mod chunk;
mod code;
mod decode;
mod error;
mod frame;
mod functions;
pub mod fuzz;
mod info;
mod matches;
mod meta;
mod packed;
mod paths;
mod scan;
mod side;
mod source;
mod trace;
mod writer;

pub use chunk::{
    CHUNK_INSTRUCTIONS, ChunkEncoder, Counts, EncodedChunk, MAX_STEPS, RECORDING_LEVEL, Split,
    encode_chunk,
};
pub(crate) use code::memory_needed;
pub use decode::{Chunk, ChunkBuffer, SideBuffer};
pub use error::{Damage, VltError, WriteError};
pub use frame::{MAGIC, MAJOR_VERSION, MINOR_VERSION};
pub(crate) use functions::MAX_NAME as MAX_FUNCTION_NAME;
pub use functions::{CodeSegment, FileFunctions, FileState, Function};
pub use info::{Info, ThreadInfo, Totals};
pub use meta::{
    Mapping, MappingFlags, Meta, Process, ProcessIndex, ProcessStart, Scope, Thread, ThreadIndex,
};
pub use side::{MachineAccess, MemoryAccess, MemoryAccesses, Position, SideStreams, Timestamp};
pub use source::Source;
pub use trace::{ChunkInfo, OpenOptions, Sizes, Trace};
pub use writer::{Output, Writer, WriterOptions};

#[cfg(test)]
mod tests;
