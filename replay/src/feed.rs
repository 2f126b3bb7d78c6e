//! Tasks, mappings and samples of a trace to an exporter.

use vlbr_cpu::run::Sample;
use vlbr_traces::export::SampleSink;
use vlbr_traces::perfdata::SampleRecord;

use crate::error::ReplayError;
use crate::summary::Consumer;
use crate::tasks::{Notice, Tasks};

/// Feeds a sink from a session.
pub struct Feed<'s> {
    tasks: Tasks,
    next: usize,
    now: u64,
    sink: &'s mut dyn SampleSink,
}

impl std::fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("next", &self.next)
            .field("now", &self.now)
            .finish()
    }
}

impl<'s> Feed<'s> {
    /// Tells `sink` of `tasks` as they come and of every sample.
    #[must_use]
    pub fn new(tasks: Tasks, sink: &'s mut dyn SampleSink) -> Self {
        Self {
            tasks,
            next: 0,
            now: 0,
            sink,
        }
    }

    /// Tells what is left to tell and finishes the sink.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> Result<(), ReplayError> {
        self.notify(usize::MAX)?;
        Ok(self.sink.finish()?)
    }

    fn notify(&mut self, chunk: usize) -> Result<(), ReplayError> {
        while let Some((at, notice)) = self.tasks.notice(self.next) {
            if *at > chunk {
                break;
            }
            match notice {
                Notice::Fork { parent, child } => self.sink.fork(*parent, *child, self.now)?,
                Notice::Comm { task, name, exec } => {
                    self.sink.comm(*task, name, *exec, self.now)?;
                }
                Notice::Exit { parent, task } => self.sink.exit(*parent, *task, self.now)?,
                Notice::Mapping(_, mapping) => self.sink.mapping(mapping, self.now)?,
            }
            self.next += 1;
        }
        Ok(())
    }
}

impl Consumer for Feed<'_> {
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.now = time_ns;
        self.notify(chunk)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.now = sample.time_ns;
        Ok(self.sink.sample(sample)?)
    }
}
