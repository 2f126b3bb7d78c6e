//! Recording: an engine delivers executed blocks, the assembler makes steps of them, the writer
//! puts them into a `.vlt` file.
//!
//! * [`record_user`] runs a program under QEMU or ptrace, with its threads and all processes it
//!   starts.
//! * [`record_system`] boots a kernel under QEMU.
//! * [`convert_qemulog`] reads a `qemu -d exec,nochain,in_asm` log.
//!
//! The file is written under its own name while the recording runs. Every chunk is on disk as soon
//! as it is sealed, so an interrupted recording, a full disk or a killed guest leave a trace that is
//! valid up to its last whole frame; if the recorder itself can still write, the trace gets a
//! proper end. A file into which nothing was recorded is removed when the recording fails.
//!
//! Chunks stand in the file in the order in which their threads finished compressing them.

mod error;
mod file;
#[cfg(test)]
mod fuzz;
mod log;
mod mappings;
mod run;
mod sink;
mod stream;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::assemble::AssembleStats;
use crate::qemu::{GuestEnd, Lost};
use crate::vlt::{CHUNK_INSTRUCTIONS, RECORDING_LEVEL};

pub use error::RecordError;
pub(crate) use file::add_functions;
pub use log::{LogOptions, convert_qemulog};
pub use run::{record_system, record_user};

/// What runs the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// QEMU if it and the plugin are there, else ptrace.
    #[default]
    Auto,
    /// QEMU's user emulation with the plugin.
    Qemu,
    /// Single-stepping.
    Ptrace,
}

/// How to record.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The trace to write.
    pub output: PathBuf,
    /// Replace a trace that exists.
    pub overwrite: bool,
    /// Record data addresses too (QEMU only).
    pub memory: bool,
    /// QEMU to use, else the one on PATH.
    pub qemu: Option<PathBuf>,
    /// QEMU plugin to use, else the installed one.
    pub plugin: Option<PathBuf>,
    /// Further options for QEMU.
    pub extra: Vec<OsString>,
    /// Most instructions of a chunk.
    pub chunk_instructions: u64,
    /// zstd level of the chunks.
    pub level: i32,
}

impl RecordOptions {
    /// Records to `output`, which must not exist.
    #[must_use]
    pub fn new(output: PathBuf) -> Self {
        Self {
            output,
            overwrite: false,
            memory: false,
            qemu: None,
            plugin: None,
            extra: Vec::new(),
            chunk_instructions: CHUNK_INSTRUCTIONS,
            level: RECORDING_LEVEL,
        }
    }
}

/// A machine to record.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Linux kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, replacing the default one.
    pub append: Option<OsString>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of vCPUs.
    pub smp: u32,
    /// The kernel's symbols to put into the trace: a listing in the form of `/proc/kallsyms` or
    /// `System.map`, or an ELF file (`vmlinux`).
    pub kallsyms: Option<PathBuf>,
}

impl Machine {
    /// One vCPU, 512 MiB, no initial RAM disk, no symbols.
    #[must_use]
    pub fn new(kernel: PathBuf) -> Self {
        Self {
            kernel,
            initrd: None,
            append: None,
            memory_mib: 512,
            smp: 1,
            kallsyms: None,
        }
    }
}

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Instructions assembled.
    pub instructions: u64,
    /// Blocks delivered by the engine.
    pub blocks: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Processes seen.
    pub processes: u32,
    /// Threads or vCPUs seen.
    pub streams: u32,
    /// Time since the start.
    pub elapsed: Duration,
}

/// A finished recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What ran the program: "qemu", "ptrace", "qemu-log".
    pub engine: &'static str,
    /// How the started program ended; `None` for a log, which does not say.
    pub end: Option<GuestEnd>,
    /// The stop flag ended the recording, not the program.
    pub stopped: bool,
    /// Processes recorded, one for each program a process ran.
    pub processes: u32,
    /// Threads or vCPUs recorded.
    pub streams: u32,
    /// What the assembler met.
    pub stats: AssembleStats,
    /// Size of the trace in bytes.
    pub size: u64,
    /// What could not be recorded.
    pub lost: Vec<Lost>,
}
