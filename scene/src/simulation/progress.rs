//! Whether a run comes to an end.

use super::Simulation;
use crate::SceneError;

/// Whether guests come on, in scenes that end when they have executed everything: what a policy does may
/// take all the time there is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    rounds: u32,
    instructions: u64,
}

impl Progress {
    /// Rounds without an instruction of a guest after which none is expected any more.
    const MOST: u32 = 1 << 22;

    /// Looks at a run after a round.
    pub(super) fn made(&mut self, run: &Simulation<'_>) -> Result<(), SceneError> {
        self.rounds += 1;
        if self.rounds < Self::MOST {
            return Ok(());
        }
        let instructions = run.instructions();
        if instructions == self.instructions {
            return Err(SceneError::Stuck);
        }
        (self.rounds, self.instructions) = (0, instructions);
        Ok(())
    }
}
