//! A session's samples as folded stacks.

use std::cell::Cell;
use std::io::Write;

use vlbr_cpu::run::Sample;
use vlbr_traces::export::{FoldedSink, FrameNames, StackSource};
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::vlt::Trace;

use crate::error::ReplayError;
use crate::feed::Feed;
use crate::names::{Moment, Names};
use crate::session::Session;
use crate::summary::{Consumer, Summary};
use crate::tasks::Tasks;

/// Names at the time of the sample that is being told.
struct Now<'n> {
    names: &'n Names,
    at: &'n Cell<Moment>,
}

impl FrameNames for Now<'_> {
    fn function(&self, _: u32, address: u64) -> String {
        self.names.function(self.at.get(), address)
    }
}

/// Keeps the time.
struct Clocked<'n> {
    feed: Feed<'n>,
    trace: &'n Trace,
    at: &'n Cell<Moment>,
}

impl Consumer for Clocked<'_> {
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.at.set(Moment::of_chunk(self.trace, chunk));
        self.feed.chunk(chunk, time_ns)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, at: &Sample) -> Result<(), ReplayError> {
        self.feed.sample(sample, at)
    }
}

/// Runs `session` and writes its call stacks to `out`.
///
/// # Errors
/// As [`Session::run`] and [`Names::new`]; the output cannot be written.
pub(crate) fn folded(
    session: &Session<'_>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let trace = session.trace();
    let names = Names::new(trace)?;
    let at = Cell::new(Moment::default());
    let now = Now {
        names: &names,
        at: &at,
    };
    let mut sink = FoldedSink::new(out, StackSource::CallStackLbr, now);
    let mut clocked = Clocked {
        feed: Feed::new(Tasks::new(trace), &mut sink),
        trace,
        at: &at,
    };
    let summary = session.run(&mut clocked, progress)?;
    clocked.feed.finish()?;
    Ok(summary)
}
