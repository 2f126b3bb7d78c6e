//! Sums over steps that come one by one.

use crate::code::StepId;
use crate::run::columns::MOST_WORDS;
use crate::run::plan::Plan;
use crate::run::sample::RunTotals;

/// What steps of a [`Plan`] add up to, for a loop that does more at each step than
/// [`crate::run::Lane`]. The records are not among it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    totals: RunTotals,
    sum: u64,
    more: [u64; MOST_WORDS],
    /// Steps in `sum` and `more`.
    held: usize,
}

impl Tally {
    /// Adds `step` of `plan`, always the same one, unless it counts more than `most` events; how many it
    /// counts if it was added.
    #[inline]
    pub fn add_within(&mut self, plan: &Plan, step: StepId, most: u64) -> Option<u64> {
        let columns = plan.columns();
        let word = plan.word(step);
        let events = columns.events.of_first(word);
        if events > most {
            return None;
        }
        self.sum = self.sum.wrapping_add(word);
        if columns.width() > 0 {
            for (sum, word) in self.more.iter_mut().zip(columns.words(step)) {
                *sum = sum.wrapping_add(*word);
            }
        }
        self.held += 1;
        if self.held == columns.segment {
            self.fold(plan);
        }
        Some(events)
    }

    #[inline(never)]
    fn fold(&mut self, plan: &Plan) {
        let columns = plan.columns();
        self.totals.steps += self.held;
        self.totals.instructions += columns.instructions.of_first(self.sum);
        self.totals.events += columns.events.of_first(self.sum);
        let more = &self.more[..columns.width()];
        columns.add(self.sum, more, &mut self.totals.counts);
        (self.sum, self.more, self.held) = (0, [0; MOST_WORDS], 0);
    }

    /// Hands out the sums since the last time.
    pub fn take(&mut self, plan: &Plan) -> RunTotals {
        self.fold(plan);
        std::mem::take(&mut self.totals)
    }
}
