//! What cannot be explored.

use vlbr_host::machine::HostError;

/// A scene that cannot be explored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// The scene's host cannot be set up.
    #[error("the scene cannot be set up: {0}")]
    Setup(#[from] HostError),
    /// The part does not count what the host's event counts.
    #[error("the host's event: {0}")]
    Event(String),
    /// The scene's part has no LBR with `LBR_SELECT`, which its guest's accesses are to.
    #[error("{0} has no MSR_LBR_SELECT")]
    Part(String),
    /// No thread can be had to explore with.
    #[error("at least one thread is needed")]
    Threads,
    /// An action was offered in a state that cannot take it.
    #[error("{action}: {error}")]
    Action {
        /// The action, as a scenario has it.
        action: String,
        /// Why not.
        error: HostError,
    },
}
