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

/// How the front end comes to what is behind a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steering {
    /// It was there already.
    Foreseen,
    /// Once the branch is decoded: the branch target buffer did not hold it.
    Late,
    /// Once the branch is executed, see [`Prediction::mispredicted`].
    Mispredicted,
}

impl Steering {
    #[inline(always)]
    fn of(prediction: Prediction) -> Self {
        if prediction.mispredicted() {
            Self::Mispredicted
        } else if prediction.btb_missed {
            Self::Late
        } else {
            Self::Foreseen
        }
    }
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
        self.retire(branch, |path| path.push_of(branch), |prediction| prediction)
    }

    /// What `branch` adds to the path if it is taken, for [`Predictor::predict_and_update_known`].
    pub(crate) fn footprint(&self, branch: &Branch) -> Push {
        self.path.push_of(branch)
    }

    /// [`Predictor::predict_and_update`] of a branch whose footprint is known.
    // A call of its own: what it keeps in registers nobody around it needs.
    #[inline(never)]
    pub(crate) fn predict_and_update_known(&mut self, branch: &Branch, push: Push) -> Steering {
        self.retire(branch, |_| push, Steering::of)
    }

    /// `push`: what the branch adds to the path if it is taken; `told`: what the caller makes of the
    /// prediction.
    #[inline(always)]
    fn retire<T>(
        &mut self,
        branch: &Branch,
        push: impl FnOnce(&Path) -> Push,
        told: impl Fn(Prediction) -> T,
    ) -> T {
        let mut prediction = Prediction::default();
        if branch.kind == BranchKind::Conditional {
            let (direction, taken) = (&mut self.direction, branch.taken);
            let predicted = direction.predict_and_update(branch.address, taken);
            prediction.direction_missed = predicted != taken;
            if !taken {
                direction.note(branch, false, None);
                return told(prediction);
            }
        }
        let target = branch.target;
        let held = self.btb.look_up_and_update(branch.address, target);
        if branch.kind.is_direct() {
            prediction.btb_missed = held != Some(target);
        } else {
            prediction.btb_missed = held.is_none();
            prediction.target_missed = self.misses_target(branch, held);
        }
        if branch.kind.is_call() {
            self.return_stack.call(branch.fallthrough, target);
        }
        let push = push(&self.path);
        let path = Some((&self.path.history, push));
        self.direction.note(branch, true, path);
        self.path.history.push(push);
        told(prediction)
    }

    /// Whether another target is predicted than that of `branch`, which is none that its instruction tells;
    /// `held`: what the branch target buffer holds of it.
    #[inline(never)]
    fn misses_target(&mut self, branch: &Branch, held: Option<u64>) -> bool {
        let Branch {
            address,
            kind,
            target,
            ..
        } = *branch;
        let returns = if kind == BranchKind::Return {
            self.return_stack.predict_return()
        } else {
            None
        };
        let predicted = returns.or_else(|| {
            let path = &self.path.history;
            self.indirect
                .predict_and_update(address, held, target, path)
        });
        predicted != Some(target)
    }
}
