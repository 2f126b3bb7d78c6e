//! Errors of a ptrace recording.

use std::ffi::OsString;
use std::io;

use nix::errno::Errno;

use crate::qemu::SinkError;

/// Why a recording could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program to record does not exist.
    #[error("{}: no such program", program.display())]
    ProgramMissing {
        /// As given.
        program: OsString,
    },
    /// A program of another kind than x86-64.
    #[error("process {pid} runs 32-bit code, which ptrace recording does not support")]
    NotLongMode {
        /// Its pid.
        pid: i32,
    },
    /// An operation of the operating system failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The sink failed.
    #[error("writing the recording: {0}")]
    Sink(#[source] SinkError),
    /// The tracer's thread panicked.
    #[error("internal error in the tracer")]
    Crashed,
}

impl Error {
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub(super) fn errno(action: &str) -> impl FnOnce(Errno) -> Self + '_ {
        move |errno| Self::io(action)(errno.into())
    }
}
