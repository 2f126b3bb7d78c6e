//! Why two files cannot be compared.

use std::path::PathBuf;

use thiserror::Error;
use vlbr_traces::perfdata::PerfReadError;
use vlbr_traces::vlt::VltError;

/// Why two files cannot be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The file system's reason.
        source: std::io::Error,
    },
    /// A file holds nothing that can be compared.
    #[error("{}: no .vlt trace, perf.data file or pre-aggregated profile", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A trace is damaged.
    #[error("{}: {source}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VltError,
    },
    /// A perf.data file is damaged.
    #[error("{}: {source}", path.display())]
    Perf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<PerfReadError>,
    },
    /// A perf.data file has no branch stacks.
    #[error("{}: its samples have no branch stacks", path.display())]
    NoBranches {
        /// The file.
        path: PathBuf,
    },
    /// A line of a pre-aggregated profile is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than is taken.
    #[error("{}: more than {limit} {what}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },
}
