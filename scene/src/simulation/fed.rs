//! What the steps of a guest make counters count, remembered.

use vlbr_cpu::{Feed, Inserts, StepId};
use vlbr_pmu::Increments;

/// Steps that are remembered: those of a loop, and what is called from it.
const REMEMBERED: usize = 256;
/// The processor itself counts what its LBR inserts.
const INSERTS: Inserts = Inserts(0);

/// A feed that remembers the last steps: a guest executes few again and again.
#[derive(Debug)]
pub(super) struct Fed<'c> {
    feed: Feed<'c>,
    steps: Vec<Option<((StepId, bool), Increments)>>,
}

impl<'c> Fed<'c> {
    pub(super) fn new(feed: Feed<'c>) -> Self {
        Self {
            feed,
            steps: vec![None; REMEMBERED],
        }
    }

    /// Everything that happens in `step`, its branch mispredicted or not.
    pub(super) fn step(&mut self, step: StepId, mispredicted: bool) -> Increments {
        let what = (step, mispredicted);
        let place = &mut self.steps[step.0 as usize % REMEMBERED];
        match place {
            Some((at, sum)) if *at == what => sum.clone(),
            _ => {
                let sum = self.feed.step_as(step, INSERTS, mispredicted);
                *place = Some((what, sum.clone()));
                sum
            }
        }
    }

    /// What happens up to and including instruction `index` of `step`.
    pub(super) fn through(&self, step: StepId, index: u16, mispredicted: bool) -> Increments {
        self.feed.through_as(step, index, INSERTS, mispredicted)
    }
}
