//! Why the branches of a trace cannot be run.

use std::path::PathBuf;

use thiserror::Error;
use vlbr_timing::predict::PredictorError;
use vlbr_traces::cbp::CbpError;
use vlbr_traces::export::ExportError;
use vlbr_traces::vlt::VltError;

use crate::error::ReplayError;

/// Most bytes of all predictors together.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// Why the branches of a trace cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BranchError {
    /// The trace is damaged, or its symbols are.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A file cannot be opened.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A trace of the branch prediction championship cannot be read.
    #[error("{path}: {source}")]
    Cbp {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CbpError,
    },
    /// A configuration makes no predictor.
    #[error(transparent)]
    Predictor(#[from] PredictorError),
    /// A predictor for each thread would take more memory than is given to them.
    #[error(
        "predictors of {threads} threads take {bytes} bytes each, {MAX_BYTES} together at most: --shared gives \
         them one"
    )]
    Threads {
        /// Threads that run.
        threads: u64,
        /// Bytes of a predictor.
        bytes: u64,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl From<VltError> for BranchError {
    fn from(error: VltError) -> Self {
        Self::Replay(error.into())
    }
}
