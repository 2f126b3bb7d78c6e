//! Errors of a recording.

use std::io;
use std::path::PathBuf;

use crate::assemble::AssembleError;
use crate::qemulog::LogError;
use crate::symbols::SymbolError;
use crate::vlt::WriteError;
use crate::{ptrace, qemu};

/// Why a recording could not start or had to end.
///
/// Once something was recorded, the trace stays, valid up to its last whole frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// QEMU or its plugin.
    #[error(transparent)]
    Qemu(qemu::Error),
    /// ptrace.
    #[error(transparent)]
    Ptrace(ptrace::Error),
    /// The log that is converted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The trace cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The trace.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The recorder delivered what makes no steps.
    #[error("stream {stream}: {source}")]
    Assemble {
        /// Number of the thread in the trace.
        stream: u32,
        /// Why.
        source: AssembleError,
    },
    /// The guest's symbols cannot be read.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// The program or machine ran no instruction; how it ended.
    #[error("nothing was recorded: what was started {0}")]
    Nothing(String),
    /// A reader would not take more code: code that is made anew all the time, or a guest gone astray.
    #[error("more code ran than a trace may hold; what ran until then is in the trace")]
    TooMuchCode,
    /// ptrace cannot record data addresses.
    #[error("data addresses need the QEMU engine")]
    MemoryNeedsQemu,
}

impl RecordError {
    /// A sink's error, as it comes back through an engine.
    fn from_sink(error: qemu::SinkError) -> Result<Self, qemu::SinkError> {
        error.downcast::<Self>().map(|error| *error)
    }
}

impl From<qemu::Error> for RecordError {
    fn from(error: qemu::Error) -> Self {
        match error {
            qemu::Error::Sink(error) => {
                Self::from_sink(error).unwrap_or_else(|error| Self::Qemu(qemu::Error::Sink(error)))
            }
            error => Self::Qemu(error),
        }
    }
}

impl From<ptrace::Error> for RecordError {
    fn from(error: ptrace::Error) -> Self {
        match error {
            ptrace::Error::Sink(error) => Self::from_sink(error)
                .unwrap_or_else(|error| Self::Ptrace(ptrace::Error::Sink(error))),
            error => Self::Ptrace(error),
        }
    }
}
