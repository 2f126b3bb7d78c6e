//! Why a scene cannot be explored.

use std::path::PathBuf;

use vlbr_host::machine::HostError;
use vlbr_scenario::{Reason, StageError};

/// A scene that is none, or that cannot be explored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// A line of a scene.
    #[error("{scene}:{line}: {reason}")]
    Line {
        /// The scene's name, or its file.
        scene: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A scene lacks something.
    #[error("{scene}: {reason}")]
    Scene {
        /// The scene's name, or its file.
        scene: String,
        /// What is missing.
        reason: String,
    },
    /// There is no host for it.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A step of the setup leads to something else.
    #[error("{scene}: {step:?}: {reason}")]
    Setup {
        /// The scene.
        scene: String,
        /// The step.
        step: String,
        /// What it leads to.
        reason: String,
    },
    /// An action fails that should not, whatever the state: the model is wrong.
    #[error("{scene} under {policy}: {action:?}: {error}")]
    Action {
        /// The scene.
        scene: String,
        /// The policy.
        policy: String,
        /// The action.
        action: String,
        /// Why.
        error: Box<HostError>,
    },
    /// A path that was found does not show what it was found for: the model is wrong.
    #[error("{scene} under {policy}: the path does not break rule {rule} when it is done again")]
    Unshown {
        /// The scene.
        scene: String,
        /// The policy.
        policy: String,
        /// The rule.
        rule: crate::ContractRule,
    },
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Threads to run on.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl ContractError {
    pub(crate) fn line(scene: &str, line: usize, reason: impl ToString) -> Self {
        Self::Line {
            scene: scene.to_owned(),
            line,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn reason(scene: &str, line: usize, reason: &Reason) -> Self {
        Self::line(scene, line, reason)
    }
}
