//! Why a corpus cannot be checked or blessed.

use std::path::PathBuf;

use thiserror::Error;
use vlbr_traces::export::ExportError;

/// What is wrong with a corpus as a whole. What is wrong with one trace or configuration is part
/// of the report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The file system's reason.
        source: std::io::Error,
    },
    /// `corpus.toml` is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A text that is no shard.
    #[error("{0:?} is no shard: I/N with 1 <= I <= N, such as 2/3")]
    Shard(String),
    /// A corpus has nothing whose name begins so.
    #[error("corpus.toml names nothing that begins with {0:?}")]
    Unnamed(String),
    /// A golden file cannot be written.
    #[error(transparent)]
    Write(#[from] ExportError),
    /// Some configurations gave no result, so nothing was written.
    #[error("nothing written: {trace} under {configuration}: {reason}")]
    Unblessed {
        /// The trace.
        trace: String,
        /// The configuration.
        configuration: String,
        /// Why there is no result.
        reason: String,
    },
    /// No threads can be had.
    #[error("starting {0} threads: {1}")]
    Threads(usize, String),
}
