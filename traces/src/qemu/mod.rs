//! Recorder side of the QEMU plugin.
//!
//! [`Session`] owns a private directory with a Unix socket. Every QEMU process of a recording opens
//! one *control* connection to it and, per vCPU or thread, one shared-memory *ring*. The layout of
//! both is written down in [`protocol`]. What arrives is handed on unchanged: blocks as QEMU
//! translated them, rep-string repeats included.
//!
//! * [`user_command`] and [`system_command`] build the QEMU command lines.
//! * [`Session::run`] starts one and delivers to a [`Sink`]; one [`StreamSink`] per stream runs in
//!   that stream's own thread.
//! * [`Outcome`] says how the guest ended and what could not be recorded.

mod blocks;
mod connection;
mod error;
#[cfg(test)]
pub(crate) mod fuzz;
mod launch;
mod locate;
mod maps;
pub mod protocol;
mod ring;
mod session;
mod sink;
mod stream;

pub use blocks::{RawBlock, RecordedMode};
pub use error::{Error, SinkError};
pub use launch::{SystemOptions, UserOptions, system_command, user_command};
pub(crate) use locate::resolve;
pub use locate::{PLUGIN_FILE, find_plugin, find_program, find_qemu};
pub use maps::Mapping;
pub(crate) use maps::parse as parse_maps;
pub use session::{GuestEnd, Lost, Outcome, Progress, Session, SessionOptions};
pub use sink::{
    Batch, Event, EventKind, MemoryAccess, Origin, PortSize, ProcessEnd, ProcessId, ProcessInfo,
    Sink, StreamEnd, StreamId, StreamInfo, StreamSink, TargetMode,
};
