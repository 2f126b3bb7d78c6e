//! When the records of a stack were made, found behind the loop.
//!
//! The loop adds up what steps take as it adds up everything else. Only where somebody reads the stack
//! do the times of its records matter; then the steps before that place are walked back, no step more
//! than once in a run.

use crate::run::local_id::LocalId;
use crate::run::plan::PUSH;
use crate::run::view::MAX_DEPTH;

/// Records of which times are kept: those of the deepest stack, and the one before.
const MAX_TIMES: usize = MAX_DEPTH + 1;

/// When the youngest records were made, youngest first, in parts of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTimes {
    times: [u64; MAX_TIMES],
    known: u8,
}

impl Default for RecordTimes {
    fn default() -> Self {
        Self {
            times: [0; MAX_TIMES],
            known: 0,
        }
    }
}

impl RecordTimes {
    /// Those that are known.
    #[must_use]
    pub fn known(&self) -> &[u64] {
        &self.times[..usize::from(self.known)]
    }

    fn add_older(&mut self, time: u64) -> bool {
        let at = usize::from(self.known);
        if let Some(slot) = self.times.get_mut(at) {
            *slot = time;
            self.known += 1;
        }
        at + 1 < MAX_TIMES
    }

    /// A record is made at `time`.
    pub(super) fn with_youngest(&self, time: u64) -> Self {
        let mut new = Self::default();
        new.add_older(time);
        new.followed_by(self.known(), 0)
    }

    /// These, `start` later, and behind them `older` ones.
    fn followed_by(mut self, older: &[u64], start: u64) -> Self {
        for time in &mut self.times[..usize::from(self.known)] {
            *time += start;
        }
        for &time in older {
            if !self.add_older(time) {
                break;
            }
        }
        self
    }

    /// The times of a run that began at `start` on a stack whose records have these times, which are
    /// absolute.
    #[must_use]
    pub fn resolve(&self, run: &[u64], start: u64) -> Self {
        let mut new = Self::default();
        for &time in run {
            new.add_older(time);
        }
        new.followed_by(self.known(), start)
    }
}

/// The times of the records up to a place in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walked {
    times: RecordTimes,
    /// Steps before the place.
    steps: usize,
}

impl Walked {
    /// The times of the records before step number `steps` of the run `ids`, which begins at `now`.
    pub(super) fn up_to<I: LocalId>(
        &mut self,
        ids: &[I],
        steps: usize,
        now: u64,
        word: impl Fn(I) -> u64,
        cost: impl Fn(I) -> u32,
    ) -> RecordTimes {
        let mut new = RecordTimes::default();
        let mut time = now;
        for &id in ids[self.steps..steps].iter().rev() {
            if word(id) & PUSH != 0 && !new.add_older(time) {
                break;
            }
            time -= u64::from(cost(id));
        }
        self.times = new.followed_by(self.times.known(), 0);
        self.steps = steps;
        self.times
    }
}
