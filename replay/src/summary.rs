//! What takes the samples of a session, and its sums.

use vlbr_cpu::Slots;
use vlbr_cpu::run::{RunTotals, Sample};
use vlbr_traces::perfdata::{BranchEntry, SampleRecord};

use crate::error::ReplayError;
use crate::misses::StepMisses;

/// What takes the samples of a session.
pub trait Consumer {
    /// The samples of `chunk` follow; the trace has run for `time_ns`.
    ///
    /// # Errors
    /// Ends the replay.
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        let _ = (chunk, time_ns);
        Ok(())
    }

    /// A sample, in file order, taken on step `at`.
    ///
    /// # Errors
    /// Ends the replay.
    fn sample(&mut self, sample: &SampleRecord<'_>, at: &Sample) -> Result<(), ReplayError>;
}

/// Sums of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of each thread of the trace, by index.
    pub threads: Vec<ThreadSummary>,
    /// Mispredictions by branch, if they were asked for.
    pub misses: Option<StepMisses>,
    /// Samples.
    pub samples: u64,
    /// Entries in all samples, after the software filter.
    pub entries: u64,
    /// Entries the software filter removed, or that were empty.
    pub removed: u64,
    /// Samples with fewer entries than the LBR is deep.
    pub short: u64,
}

/// Sums of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadSummary {
    /// Instructions, events, records.
    pub totals: Totals,
    /// What each event of the session counted, the sampled one first.
    pub counts: Vec<u64>,
    /// What software would read at the end, youngest first.
    pub last_stack: Vec<BranchEntry>,
    /// Core clocks, behind the warm-up; `None` without a timing model.
    pub cycles: Option<u64>,
    /// Issue slots by use, behind the warm-up, if the timing model knows.
    pub slots: Option<Slots>,
}

/// Instructions, events and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
    /// Records pushed.
    pub pushes: u64,
    /// Records popped.
    pub pops: u64,
}

impl From<RunTotals> for Totals {
    fn from(totals: RunTotals) -> Self {
        let RunTotals {
            steps: _,
            instructions,
            events,
            pushes,
            pops,
            counts: _,
        } = totals;
        Self {
            instructions,
            events,
            pushes,
            pops,
        }
    }
}
