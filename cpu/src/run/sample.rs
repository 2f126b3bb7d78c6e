//! What a run hands out: samples, sums, and when the next sample is due.

use crate::code::StepId;
use crate::run::columns::MAX_COLUMNS;
use crate::run::pace::Pace;
use crate::run::times::RecordTimes;
use crate::run::view::{EntryRef, Stack};

/// When samples are taken: the counter's state at the start, and how it is loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Events to the first sample, at least 1.
    pub first: u64,
    /// Events from sample to sample.
    pub pace: Pace,
}

impl Schedule {
    /// Every `period` events.
    #[must_use]
    pub const fn every(period: u64) -> Self {
        Self {
            first: period,
            pace: Pace::Period(period),
        }
    }
}

/// Where and when a sample fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The step in which the counter overflowed.
    pub step: StepId,
    /// Instructions of it that had retired.
    pub retired: u16,
    /// Whether its exit belongs to what had happened: if so the next instruction is the exit's
    /// target, else the instruction with index `retired`.
    pub after_exit: bool,
    /// Instructions retired since the start of the run.
    pub instructions: u64,
    /// Events of the sampled counter since the start of the run.
    pub events: u64,
    /// The period of the interval that ends here.
    pub period: u64,
    /// The period the counter is loaded with now.
    pub next_period: u64,
    /// Pushes minus pops since the start of the run.
    pub net: i64,
}

/// Samples of a run with the LBR entries of each, youngest first, and what the other counters had
/// counted.
#[derive(Clone, Debug)]
pub struct Samples {
    points: Vec<Sample>,
    entries: Vec<EntryRef>,
    counts: Vec<u64>,
    times: Vec<RecordTimes>,
    depth: usize,
    columns: usize,
    limit: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self::with_limit(usize::MAX)
    }
}

impl Samples {
    /// No samples yet. A run stops behind the step with which there are `limit` or more: one step
    /// may give several, at most as many as it has instructions.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            points: Vec::new(),
            entries: Vec::new(),
            counts: Vec::new(),
            times: Vec::new(),
            depth: 0,
            columns: 0,
            limit,
        }
    }

    /// Whether a run stops here.
    pub(crate) fn is_full(&self) -> bool {
        self.points.len() >= self.limit
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Each sample with its entries and, for each other counter, what it had counted since the
    /// start of the run before the step of the sample.
    pub fn iter(&self) -> impl Iterator<Item = (&Sample, &[EntryRef], &[u64])> {
        let entries = self.entries.chunks(self.depth.max(1));
        let columns = self.columns;
        let rows = self.points.iter().zip(entries).enumerate();
        rows.map(move |(row, (point, entries))| {
            (point, entries, &self.counts[row * columns..][..columns])
        })
    }

    /// When the records of each sample were made, in parts of a cycle since the start of the run, as far
    /// as it made them; nothing if that is not asked for.
    #[must_use]
    pub fn times(&self) -> &[RecordTimes] {
        &self.times
    }

    pub(crate) fn push_times(&mut self, times: RecordTimes) {
        self.times.push(times);
    }

    /// Adds a sample with its entries and counts, as many as [`Samples::set_shape`] said.
    pub(crate) fn push(&mut self, sample: Sample, entries: &[EntryRef], counts: &[u64]) {
        self.points.push(sample);
        self.entries.extend_from_slice(entries);
        self.counts.extend_from_slice(counts);
    }

    pub(crate) fn set_shape(&mut self, depth: u8, columns: usize) {
        self.depth = usize::from(depth);
        self.columns = columns;
    }

    /// Forgets all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.points.clear();
        self.entries.clear();
        self.counts.clear();
        self.times.clear();
    }
}

/// What a run added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Steps run: fewer than there were if [`Samples::with_limit`] stopped the run.
    pub steps: usize,
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
    /// Records pushed.
    pub pushes: u64,
    /// Records popped.
    pub pops: u64,
    /// What each other counter counted, in the order of the plan.
    pub counts: [u64; MAX_COLUMNS],
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Its sums.
    pub totals: RunTotals,
    /// The stack.
    pub stack: Stack,
    /// When the youngest records of the run were made, if that is asked for.
    pub times: RecordTimes,
    /// When the next sample is due.
    pub schedule: Option<Schedule>,
}
