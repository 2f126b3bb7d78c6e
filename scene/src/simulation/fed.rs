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
    steps: Vec<Option<(StepId, Increments)>>,
}

impl<'c> Fed<'c> {
    pub(super) fn new(feed: Feed<'c>) -> Self {
        Self {
            feed,
            steps: vec![None; REMEMBERED],
        }
    }

    /// Everything that happens in `step`.
    pub(super) fn step(&mut self, step: StepId) -> Increments {
        let place = &mut self.steps[step.0 as usize % REMEMBERED];
        match place {
            Some((at, sum)) if *at == step => sum.clone(),
            _ => {
                let sum = self.feed.step(step, INSERTS);
                *place = Some((step, sum.clone()));
                sum
            }
        }
    }

    /// What happens up to and including instruction `index` of `step`.
    pub(super) fn through(&self, step: StepId, index: u16) -> Increments {
        self.feed.through(step, index, INSERTS)
    }
}
