//! When what a guest executes retires.

use vlbr_arch::Cycles;
use vlbr_cpu::{Code, StepClock, StepId, StepTime};
use vlbr_timing::{BoundClock, ScoreboardClock, StepModel};

use crate::{Scene, SceneTime};

/// The clock of a vCPU's guest. It goes with the clock of the processor on which the guest runs: both
/// say the same when a stretch begins.
#[derive(Clone, Debug)]
pub(super) enum GuestClock {
    /// Instructions over the scene's IPC.
    Nominal(Nominal),
    /// The block bound.
    Bound(BoundClock),
    /// The scoreboard.
    Scoreboard(Box<ScoreboardClock>),
}

/// So many clocks for a thousand instructions, rounded down over a stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nominal {
    per_thousand: u64,
    begin: u64,
    done: u64,
}

/// Clocks for a thousand instructions.
pub(super) fn clocks_per_thousand(scene: &Scene) -> u64 {
    ((1000.0 / scene.ipc) as u64).max(1)
}

impl Nominal {
    const fn now(self) -> u64 {
        self.begin + self.done * self.per_thousand / 1000
    }
}

impl GuestClock {
    /// The clock of guest `n` at its start.
    pub(super) fn new(scene: &Scene, time: &SceneTime, n: usize) -> Self {
        let model = match time {
            SceneTime::Nominal => None,
            SceneTime::Model(time) => time.models.get(n),
        };
        match model {
            Some(StepModel::Bound { bounds, .. }) => Self::Bound(bounds.clock()),
            Some(StepModel::Scoreboard { programs, .. }) => {
                Self::Scoreboard(Box::new(programs.clock()))
            }
            Some(StepModel::None) | None => Self::Nominal(Nominal {
                per_thousand: clocks_per_thousand(scene),
                begin: 0,
                done: 0,
            }),
        }
    }

    /// The guest goes on at `now`, with nothing in flight if time has passed since it ran last.
    pub(super) fn begin(&mut self, now: u64) {
        match self {
            Self::Nominal(nominal) => (nominal.begin, nominal.done) = (now, 0),
            Self::Bound(clock) => clock.pass(Cycles::new(now)),
            Self::Scoreboard(clock) => clock.pass(Cycles::new(now)),
        }
    }

    /// Retires a step.
    #[inline]
    pub(super) fn retire(&mut self, code: &Code, step: StepId) -> StepTime {
        match self {
            Self::Nominal(nominal) => {
                let what = code.step(step);
                nominal.done += u64::from(what.retired);
                StepTime {
                    end: Cycles::new(nominal.now()),
                    mispredicted: what.exit.is_mispredicted(),
                }
            }
            Self::Bound(clock) => clock.retire(code, step),
            Self::Scoreboard(clock) => clock.retire(code, step),
        }
    }

    /// When instruction `index` of the last step retired. Nominal time passes step by step.
    pub(super) fn retired_at(&self, index: u16) -> u64 {
        match self {
            Self::Nominal(nominal) => nominal.now(),
            Self::Bound(clock) => clock.retired_at(index).value(),
            Self::Scoreboard(clock) => clock.retired_at(index).value(),
        }
    }

    /// Whether counters of clocks are given what it says; of nominal ones the feed tells.
    pub(super) const fn feeds_clocks(&self) -> bool {
        !matches!(self, Self::Nominal(_))
    }
}
