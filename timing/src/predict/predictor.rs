//! The parts together.

use super::branch::{Branch, BranchKind, Prediction};
use super::config::PredictorConfig;
use super::direction::Direction;
use super::error::PredictorError;
use super::history::Push;
use super::indirect::Indirect;
use super::path::Path;
use super::return_stack::ReturnStack;
use super::target_buffer::TargetBuffer;

/// The branch prediction of a core. It learns each branch before it sees the next one, as a core does
/// whose branches are far apart; nothing of a wrong path reaches it.
///
/// All memory is taken by [`Predictor::new`]. The same branches give the same predictions and the same
/// state, which two predictors can be compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictor {
    config: PredictorConfig,
    path: Path,
    direction: Direction,
    indirect: Indirect,
    return_stack: ReturnStack,
    btb: TargetBuffer,
}

impl Predictor {
    /// A predictor that has seen nothing.
    ///
    /// # Panics
    /// The configuration is not one that [`PredictorConfig::check`] passes;
    /// [`Predictor::try_new`] says why instead.
    #[must_use]
    pub fn new(config: &PredictorConfig) -> Self {
        Self::try_new(config).expect("a checked configuration")
    }

    /// A predictor that has seen nothing.
    ///
    /// # Errors
    /// Sizes that are not supported.
    pub fn try_new(config: &PredictorConfig) -> Result<Self, PredictorError> {
        config.check()?;
        Ok(Self {
            path: Path::new(&config.path),
            direction: Direction::new(&config.direction, config.seed),
            indirect: Indirect::new(&config.indirect, config.seed),
            return_stack: ReturnStack::new(&config.return_stack),
            btb: TargetBuffer::new(&config.btb),
            config: config.clone(),
        })
    }

    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &PredictorConfig {
        &self.config
    }

    /// Forgets everything: the state after [`Predictor::new`].
    pub fn flush(&mut self) {
        let config = &self.config;
        self.path = Path::new(&config.path);
        self.direction = Direction::new(&config.direction, config.seed);
        self.indirect = Indirect::new(&config.indirect, config.seed);
        self.return_stack = ReturnStack::new(&config.return_stack);
        self.btb = TargetBuffer::new(&config.btb);
    }

    /// Predicts the next branch that retired, and learns it.
    pub fn predict_and_update(&mut self, branch: &Branch) -> Prediction {
        self.retire(branch, |path| path.push_of(branch))
    }

    /// What `branch` adds to the path if it is taken, for [`Predictor::predict_and_update_known`].
    pub(crate) fn footprint(&self, branch: &Branch) -> Push {
        self.path.push_of(branch)
    }

    /// [`Predictor::predict_and_update`] of a branch whose footprint is known.
    #[inline]
    pub(crate) fn predict_and_update_known(&mut self, branch: &Branch, push: Push) -> Prediction {
        self.retire(branch, |_| push)
    }

    /// `push`: what the branch adds to the path if it is taken.
    #[inline(always)]
    fn retire(&mut self, branch: &Branch, push: impl FnOnce(&Path) -> Push) -> Prediction {
        let Branch {
            address,
            fallthrough,
            kind,
            taken,
            target,
        } = *branch;
        let mut prediction = Prediction::default();
        let conditional = kind == BranchKind::Conditional;
        // The others always are.
        let taken = taken || !conditional;
        if conditional {
            prediction.direction_missed =
                self.direction.predict_and_update(address, taken) != taken;
        }
        if taken {
            let mut indirect = |held| {
                let path = &self.path.history;
                self.indirect
                    .predict_and_update(address, held, target, path)
            };
            let held = self.btb.look_up_and_update(address, target);
            let predicted = match kind {
                BranchKind::Conditional | BranchKind::Jump | BranchKind::Call => {
                    prediction.btb_missed = held != Some(target);
                    Some(target)
                }
                BranchKind::IndirectJump | BranchKind::IndirectCall => {
                    prediction.btb_missed = held.is_none();
                    indirect(held)
                }
                BranchKind::Return => {
                    prediction.btb_missed = held.is_none();
                    self.return_stack
                        .predict_return()
                        .or_else(|| indirect(held))
                }
            };
            prediction.target_missed = predicted != Some(target);
            if kind.is_call() {
                self.return_stack.call(fallthrough, target);
            }
        }
        if taken {
            let push = push(&self.path);
            let path = Some((&self.path.history, push));
            self.direction.note(branch, taken, path);
            self.path.history.push(push);
        } else {
            self.direction.note(branch, taken, None);
        }
        prediction
    }
}
