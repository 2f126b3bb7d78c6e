//! Errors of a QEMU recording.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// What a [`super::Sink`] may fail with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why a recording could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No QEMU on PATH.
    #[error("{name} not found on PATH (Debian: package {package})")]
    QemuMissing {
        /// Name of the executable.
        name: &'static str,
        /// Debian package that holds it.
        package: &'static str,
    },
    /// No plugin.
    #[error(
        "QEMU plugin {file} not found: set VLBR_QEMU_PLUGIN, or put it beside the vlbr executable"
    )]
    PluginMissing {
        /// File name or path looked for.
        file: PathBuf,
    },
    /// The program to record does not exist.
    #[error("{}: no such program", program.display())]
    ProgramMissing {
        /// As given.
        program: OsString,
    },
    /// The program to record cannot be run by `qemu-x86_64`.
    #[error("{}: {reason}", program.display())]
    ProgramUnusable {
        /// Resolved path.
        program: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// An operation of the operating system failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// QEMU ended without ever connecting: it refused its command line or the plugin.
    #[error("QEMU ended ({status}) before it ran anything")]
    NotStarted {
        /// How it ended.
        status: ExitStatus,
    },
    /// The sink failed.
    #[error("writing the recording: {0}")]
    Sink(#[source] SinkError),
}

impl Error {
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }
}
