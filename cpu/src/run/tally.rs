//! Sums over steps that come one by one.

use crate::code::StepId;
use crate::run::columns::{Columns, MOST_WORDS};
use crate::run::plan::Plan;
use crate::run::sample::RunTotals;

/// What steps of two [`Plan`]s of one code add up to, for a loop that does more at each step than
/// [`crate::run::Lane`]. The records are not among it.
///
/// A caller that has to know of each step whether it counts too many events asks [`Tally::add_within`]. One that
/// looks at them seldom lets [`Tally::lend`] say how many steps cannot count too many, whatever they are, adds
/// them by [`Tally::add_lent`], and has [`Tally::reclaim`] say what they counted. All calls are given the same plans.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    totals: RunTotals,
    /// By plan.
    sums: [Sums; 2],
    /// Steps in `sums`, but for those that were lent.
    held: usize,
    /// Steps that were lent, and those of them that have not been added.
    lent: usize,
    left: usize,
}

/// Words of steps of one plan.
#[derive(Clone, Debug, Default)]
struct Sums {
    first: u64,
    more: [u64; MOST_WORDS],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, columns: &Columns, word: u64, step: StepId) {
        self.first = self.first.wrapping_add(word);
        if columns.width() > 0 {
            for (sum, word) in self.more.iter_mut().zip(columns.words(step)) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
}

impl Tally {
    /// Adds `step` of `plans[side]` unless it counts more than `most` events; how many it counts if it was
    /// added. No steps are lent.
    #[inline]
    pub fn add_within(
        &mut self,
        plans: [&Plan; 2],
        side: usize,
        step: StepId,
        most: u64,
    ) -> Option<u64> {
        let columns = plans[side].columns();
        let word = plans[side].word(step);
        let events = columns.events.of_first(word);
        if events > most {
            return None;
        }
        self.sums[side].add(columns, word, step);
        self.held += 1;
        if self.held >= columns.segment {
            self.reclaim(plans);
        }
        Some(events)
    }

    /// Lends as many steps as count no more than `most` events, whichever they are, and as the sums have room
    /// for; there may be none. No steps are lent yet.
    pub fn lend(&mut self, plans: [&Plan; 2], most: u64) {
        if self.held > 0 || self.lent > 0 {
            self.reclaim(plans);
        }
        let steps = plans.map(|plan| {
            let columns = plan.columns();
            let most = most.checked_div(columns.most_events.into());
            most.map_or(columns.segment, |most| {
                most.min(columns.segment as u64) as usize
            })
        });
        self.lent = steps[0].min(steps[1]);
        self.left = self.lent;
    }

    /// Adds `step` of `plan`, the one with number `side`, if there is one left of those that were lent; whether
    /// it was added.
    #[inline(always)]
    pub fn add_lent(&mut self, plan: &Plan, side: usize, step: StepId) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        self.sums[side].add(plan.columns(), plan.word(step), step);
        true
    }

    /// Takes back the steps that are left of those that were lent; the events of those that were added.
    #[inline(never)]
    pub fn reclaim(&mut self, plans: [&Plan; 2]) -> u64 {
        let lent = self.lent - self.left;
        self.totals.steps += self.held + lent;
        (self.held, self.lent, self.left) = (0, 0, 0);
        let mut events = 0;
        for (sums, plan) in self.sums.iter_mut().zip(plans) {
            let columns = plan.columns();
            self.totals.instructions += columns.instructions.of_first(sums.first);
            events += columns.events.of_first(sums.first);
            columns.add(
                sums.first,
                &sums.more[..columns.width()],
                &mut self.totals.counts,
            );
            *sums = Sums::default();
        }
        self.totals.events += events;
        // Nothing is held when steps are lent, and nothing else is added before they are taken back.
        if lent > 0 { events } else { 0 }
    }

    /// Hands out the sums since the last time.
    pub fn take(&mut self, plans: [&Plan; 2]) -> RunTotals {
        self.reclaim(plans);
        std::mem::take(&mut self.totals)
    }
}
