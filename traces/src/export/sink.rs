//! What every output takes.

use std::io;
use std::path::PathBuf;

use crate::perfdata::{Mapping, PerfDataWriter, PerfWriteError, SampleRecord, TaskId};

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The output could not be written.
    #[error("output: {0}")]
    Output(#[from] io::Error),
    /// The output file could not be created or put in its place.
    #[error("{}: {source}", path.display())]
    File {
        /// The output file.
        path: PathBuf,
        /// The file system's reason.
        source: io::Error,
    },
    /// The perf.data file could not be written.
    #[error(transparent)]
    PerfData(#[from] PerfWriteError),
    /// A profile for BOLT would be empty, because nothing ran in the binary.
    #[error("{}: no recorded branch lies in this binary", binary.display())]
    NothingInBinary {
        /// The binary the profile is for.
        binary: PathBuf,
    },
    /// A record could not be turned into JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Takes what happened, in the order of time: names, mappings, ends of tasks, samples.
pub trait SampleSink {
    /// A task got a name, at an exec when `exec` is set.
    ///
    /// # Errors
    /// [`ExportError`].
    fn comm(
        &mut self,
        task: TaskId,
        comm: &str,
        exec: bool,
        time_ns: u64,
    ) -> Result<(), ExportError>;

    /// Executable code was mapped.
    ///
    /// # Errors
    /// [`ExportError`].
    fn mapping(&mut self, mapping: &Mapping, time_ns: u64) -> Result<(), ExportError>;

    /// A task was created.
    ///
    /// # Errors
    /// [`ExportError`].
    fn fork(&mut self, parent: TaskId, child: TaskId, time_ns: u64) -> Result<(), ExportError>;

    /// A task ended.
    ///
    /// # Errors
    /// [`ExportError`].
    fn exit(&mut self, parent: TaskId, task: TaskId, time_ns: u64) -> Result<(), ExportError>;

    /// Samples were lost.
    ///
    /// # Errors
    /// [`ExportError`].
    fn lost(&mut self, task: TaskId, count: u64, time_ns: u64) -> Result<(), ExportError>;

    /// A sample.
    ///
    /// # Errors
    /// [`ExportError`].
    fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError>;

    /// Writes what is left. Nothing may be given to the sink after this.
    ///
    /// # Errors
    /// [`ExportError`].
    fn finish(&mut self) -> Result<(), ExportError>;
}

/// The writer as a sink. [`SampleSink::finish`] puts the file in its place.
#[derive(Debug)]
pub struct PerfDataSink {
    writer: Option<PerfDataWriter>,
}

impl PerfDataSink {
    /// Streams into `writer`.
    #[must_use]
    pub const fn new(writer: PerfDataWriter) -> Self {
        Self {
            writer: Some(writer),
        }
    }

    fn writer(&mut self) -> Result<&mut PerfDataWriter, ExportError> {
        self.writer.as_mut().ok_or_else(|| {
            ExportError::Output(io::Error::other("the perf.data file is already finished"))
        })
    }
}

impl SampleSink for PerfDataSink {
    fn comm(
        &mut self,
        task: TaskId,
        comm: &str,
        exec: bool,
        time_ns: u64,
    ) -> Result<(), ExportError> {
        Ok(self.writer()?.comm(task, comm, exec, time_ns)?)
    }

    fn mapping(&mut self, mapping: &Mapping, time_ns: u64) -> Result<(), ExportError> {
        Ok(self.writer()?.mapping(mapping, time_ns)?)
    }

    fn fork(&mut self, parent: TaskId, child: TaskId, time_ns: u64) -> Result<(), ExportError> {
        Ok(self.writer()?.fork(parent, child, time_ns)?)
    }

    fn exit(&mut self, parent: TaskId, task: TaskId, time_ns: u64) -> Result<(), ExportError> {
        Ok(self.writer()?.exit(parent, task, time_ns)?)
    }

    fn lost(&mut self, task: TaskId, count: u64, time_ns: u64) -> Result<(), ExportError> {
        Ok(self.writer()?.lost(task, count, time_ns)?)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError> {
        Ok(self.writer()?.sample(sample)?)
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        let writer = self.writer.take().ok_or_else(|| {
            ExportError::Output(io::Error::other("the perf.data file is already finished"))
        })?;
        writer.finish()?;
        Ok(())
    }
}
