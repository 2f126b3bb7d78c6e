//! The parts together.

use super::branch::{Branch, BranchKind, Prediction};
use super::config::PredictorConfig;
use super::direction::{Direction, Learner};
use super::entry::scatter;
use super::error::PredictorError;
use super::history::Push;
use super::indirect::Indirect;
use super::known::{Known, Missed};
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
    direction: Direction,
    targets: Targets,
}

/// The parts that predict where branches go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Targets {
    path: Path,
    indirect: Indirect,
    return_stack: ReturnStack,
    btb: TargetBuffer,
}

impl Targets {
    fn new(config: &PredictorConfig) -> Self {
        Self {
            path: Path::new(&config.path),
            indirect: Indirect::new(&config.indirect, config.seed),
            return_stack: ReturnStack::new(&config.return_stack),
            btb: TargetBuffer::new(&config.btb),
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
            direction: Direction::new(&config.direction, config.seed),
            targets: Targets::new(config),
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
        self.direction = Direction::new(&config.direction, config.seed);
        self.targets = Targets::new(config);
    }

    /// Predicts the next branch that retired, and learns it.
    pub fn predict_and_update(&mut self, branch: &Branch) -> Prediction {
        let missed = self.predict_and_update_known(&self.known(branch)).0;
        Prediction {
            direction_missed: missed & Missed::DIRECTION != 0,
            target_missed: missed & Missed::TARGET != 0,
            btb_missed: missed & Missed::BTB != 0,
        }
    }

    /// `branch` with what the parts make of its addresses, which no branch changes.
    pub(crate) fn known(&self, branch: &Branch) -> Known {
        let Branch {
            address,
            fallthrough,
            kind,
            taken,
            target,
        } = *branch;
        let (other, (slot, place)) = match kind {
            BranchKind::Conditional => {
                let scattered = scatter(address);
                (scattered, self.direction.places(address, scattered))
            }
            _ => (fallthrough, Default::default()),
        };
        let goes = taken || kind != BranchKind::Conditional;
        let push = |path: &Path| path.push_of(branch);
        Known {
            address,
            target,
            other,
            first: self.targets.btb.first(address),
            slot,
            place,
            push: goes.then_some(&self.targets.path).map_or(Push(0), push),
            kind,
            taken,
        }
    }

    /// [`Predictor::predict_and_update`] of a branch that is known.
    // A call of its own: what it keeps in registers nobody around it needs.
    #[inline(never)]
    pub(crate) fn predict_and_update_known(&mut self, branch: &Known) -> Missed {
        let targets = &mut self.targets;
        Missed(match &mut self.direction {
            Direction::Three(tage) => targets.retire(tage.as_mut(), branch),
            direction => targets.retire_otherwise(direction, branch),
        })
    }
}

impl Targets {
    #[inline(never)]
    fn retire_otherwise(&mut self, direction: &mut Direction, branch: &Known) -> u8 {
        match direction {
            Direction::Three(tage) => self.retire(tage.as_mut(), branch),
            Direction::Four(tage) => self.retire(tage.as_mut(), branch),
            Direction::Tage(tage) => self.retire(tage.as_mut(), branch),
            Direction::Simple(simple) => self.retire(simple, branch),
        }
    }

    /// What is [`Missed`] of `branch`; everything learns it.
    #[inline(always)]
    fn retire(&mut self, direction: &mut impl Learner, branch: &Known) -> u8 {
        let kind = branch.kind;
        let mut missed = 0;
        if kind == BranchKind::Conditional {
            let predicted = direction.predict_and_update(branch);
            missed = Missed::DIRECTION * u8::from(predicted != branch.taken);
            if !branch.taken {
                direction.note(branch, false, None);
                return missed;
            }
        }
        let (first, address, target) = (branch.first, branch.address, branch.target);
        let latest = self.btb.is_latest(first, address, target);
        // Most are neither called nor indirect, and are where they were.
        if !latest || kind.is_call() || !kind.is_direct() {
            let held = match latest {
                true => Some(target),
                false => self.btb.look_up_and_update(first, address, target),
            };
            if kind.is_direct() {
                missed |= Missed::BTB * u8::from(held != Some(target));
            } else {
                missed |= Missed::BTB * u8::from(held.is_none());
                missed |= Missed::TARGET * u8::from(self.misses_target(branch, held));
            }
            if kind.is_call() {
                self.return_stack.call(branch.other, target);
            }
        }
        direction.note(branch, true, Some(&self.path.history));
        self.path.history.push(branch.push);
        missed
    }

    /// Whether another target is predicted than that of `branch`, which is none that its instruction tells;
    /// `held`: what the branch target buffer holds of it.
    #[inline(never)]
    fn misses_target(&mut self, branch: &Known, held: Option<u64>) -> bool {
        let Known {
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
