//! What is wrong with a scene.

use std::path::{Path, PathBuf};

use vlbr_cpu::ledger::{CostModelError, EstimateError};
use vlbr_host::machine::{HostError, Violation};
use vlbr_host::policy::PolicyError;
use vlbr_traces::vlt::VltError;

/// A scene that cannot be run, or that was stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SceneError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The text is no scene.
    #[error("{0}")]
    Text(String),
    /// A value in it is wrong.
    #[error("{at}: {reason}")]
    Value {
        /// Where, as TOML names it.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The cost model.
    #[error(transparent)]
    Costs(#[from] CostModelError),
    /// A trace.
    #[error("{}: {error}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why.
        error: VltError,
    },
    /// What a file says.
    #[error("{}: {error}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<Self>,
    },
    /// The timeline cannot be written.
    #[error("timeline: {0}")]
    Timeline(std::io::Error),
    /// Threads to run on.
    #[error(transparent)]
    Threads(rayon::ThreadPoolBuildError),
    /// A cost that the model does not state.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A scene by models that does not end by time.
    #[error(
        "no guest executes anything any more: exits, switches and tasks of the host take all the time"
    )]
    Stuck,
    /// A rule of ownership does not hold, and the scene says that this ends it.
    #[error("{0}")]
    Violation(Box<Violation>),
}

impl SceneError {
    pub(crate) fn value(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value {
            at: at.into(),
            reason: reason.into(),
        }
    }

    /// The same with the file that it is about, if it does not name one.
    #[must_use]
    pub fn within(self, path: &Path) -> Self {
        match self {
            Self::Read { .. } | Self::Trace { .. } | Self::In { .. } => self,
            error => Self::In {
                path: path.to_owned(),
                error: Box::new(error),
            },
        }
    }
}
