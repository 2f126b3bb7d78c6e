//! Time of retired steps, as a timing model gives it.

use core::fmt;
use core::ops::{Add, Sub};

use serde::Serialize;
use vlbr_arch::Cycles;

use crate::code::{Code, StepId};

/// When a step retired, and what became of its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// Core clocks from the start of the thread to the retirement of all of the step, its transfer
    /// included. What the transfer records has this time.
    pub end: Cycles,
    /// The branch at the end was mispredicted, taken or not; false without a branch.
    pub mispredicted: bool,
}

/// A timing model of one thread, which is told its steps in order. Everything that shows time (core
/// and reference clocks, cycle fields of the LBR, times of samples) is made of what it says.
///
/// Time never goes back: a step does not end before the step before it. Two steps that make a
/// transfer do not end in the same cycle, as a core records at most one branch a cycle.
pub trait StepClock: Clone + fmt::Debug {
    /// Retires `step` of `code`.
    fn retire(&mut self, code: &Code, step: StepId) -> StepTime;

    /// When instruction `index` (from 0) of the step that was retired last did so: not before the
    /// end of the step before nor before the instruction in front of it, and not after the end of its
    /// step. The last instruction retires at that end, unless an event leaves the step.
    fn retired_at(&self, index: u16) -> Cycles;

    /// The thread does not run until `until`: what it does next begins then, with nothing in flight. A
    /// point that has passed changes nothing.
    fn pass(&mut self, until: Cycles);

    /// What became of the issue slots so far; `None` if the model does not know.
    fn slots(&self) -> Option<Slots> {
        None
    }
}

/// Issue slots (cycles times the width of the renamer) by what became of them: the first level of
/// Yasin's top-down analysis (ISPASS 2014). Their sum is all slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// Took a micro-operation that retired.
    pub retiring: u64,
    /// Lost to a mispredicted branch, the re-steer of the front end included, which Yasin counts as the front end's.
    pub bad_speculation: u64,
    /// Empty because the front end delivered nothing.
    pub frontend: u64,
    /// Empty because the back end took nothing.
    pub backend: u64,
}

impl Slots {
    /// All slots.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.retiring + self.bad_speculation + self.frontend + self.backend
    }
}

impl Add for Slots {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            retiring: self.retiring + other.retiring,
            bad_speculation: self.bad_speculation + other.bad_speculation,
            frontend: self.frontend + other.frontend,
            backend: self.backend + other.backend,
        }
    }
}

impl Sub for Slots {
    type Output = Self;

    /// The slots since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            retiring: self.retiring.saturating_sub(earlier.retiring),
            bad_speculation: self.bad_speculation.saturating_sub(earlier.bad_speculation),
            frontend: self.frontend.saturating_sub(earlier.frontend),
            backend: self.backend.saturating_sub(earlier.backend),
        }
    }
}
