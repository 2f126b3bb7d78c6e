//! The trace under construction, shared by all streams.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use vlbr_cpu::{Interner, StepId};

use super::error::RecordError;
use crate::assemble::AssembleStats;
use crate::symbols::Executed;
use crate::vlt::{
    ChunkEncoder, FileFunctions, Mapping, Meta, Output, Process, ProcessIndex, Scope, SideStreams,
    Thread, ThreadIndex, WriteError, Writer, WriterOptions, memory_needed,
};

/// A trace that several streams write to.
///
/// Chunks are compressed by the thread that sealed them and written in the order in which their
/// compression ends. Blocks and steps are numbered in the order in which any stream meets them
/// first. So recordings of one thread repeat byte for byte if the program does; with several
/// threads the order of chunks and the numbers depend on timing, what each thread executed does
/// not.
#[derive(Debug)]
pub(super) struct TraceFile {
    path: PathBuf,
    level: i32,
    pub(super) interner: Arc<RwLock<Interner>>,
    writer: Mutex<Writer>,
    encoders: Mutex<Vec<ChunkEncoder>>,
    stats: Mutex<AssembleStats>,
    counted: Mutex<CodeCount>,
    /// Of processes only: what a guest maps is not known. Locked while the writer is.
    executed: Option<Mutex<Executed>>,
    /// Process of each thread.
    processes: Mutex<Vec<ProcessIndex>>,
    /// Bytes written so far.
    pub(super) bytes: AtomicU64,
    /// Instructions assembled so far.
    pub(super) instructions: AtomicU64,
}

/// Memory that readers need for the code, up to some block and step.
#[derive(Debug, Default)]
struct CodeCount {
    memory: u64,
    blocks: usize,
    steps: usize,
}

/// Most of it: what [`OpenOptions`](crate::vlt::OpenOptions) allows by default, less some room for
/// descriptions and for what one batch adds.
const MAX_CODE: u64 = 7 << 26;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks protect is whole after any panic: a failed write marks the writer.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TraceFile {
    pub(super) fn create(
        path: &Path,
        meta: &Meta,
        overwrite: bool,
        level: i32,
    ) -> Result<Self, RecordError> {
        let options = WriterOptions {
            overwrite,
            ..WriterOptions::default()
        };
        let writer = Writer::create(path, meta, options).map_err(|source| RecordError::Write {
            path: path.into(),
            source,
        })?;
        Ok(Self {
            path: path.into(),
            level,
            interner: Arc::default(),
            bytes: AtomicU64::new(writer.size()),
            writer: Mutex::new(writer),
            encoders: Mutex::default(),
            stats: Mutex::default(),
            counted: Mutex::default(),
            executed: (meta.scope == Scope::User).then(Mutex::default),
            processes: Mutex::default(),
            instructions: AtomicU64::new(0),
        })
    }

    fn error(&self, source: WriteError) -> RecordError {
        RecordError::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn write<T>(
        &self,
        action: impl FnOnce(&mut Writer) -> Result<T, WriteError>,
    ) -> Result<T, RecordError> {
        let mut writer = lock(&self.writer);
        let result = action(&mut writer).map_err(|source| self.error(source));
        self.bytes.store(writer.size(), Ordering::Relaxed);
        result
    }

    pub(super) fn process(&self, process: &Process) -> Result<ProcessIndex, RecordError> {
        self.write(|writer| writer.add_process(process))
    }

    pub(super) fn thread(&self, thread: &Thread) -> Result<ThreadIndex, RecordError> {
        self.write(|writer| {
            let index = writer.add_thread(thread)?;
            lock(&self.processes).push(thread.process);
            Ok(index)
        })
    }

    /// Adds mappings that hold from the next chunk on.
    pub(super) fn mappings(
        &self,
        mappings: impl Iterator<Item = Mapping>,
    ) -> Result<(), RecordError> {
        self.write(|writer| {
            for mut mapping in mappings {
                mapping.from_chunk = writer.chunks();
                writer.add_mapping(&mapping)?;
                if let Some(executed) = &self.executed {
                    lock(executed).mapping(&mapping);
                }
            }
            Ok(())
        })
    }

    pub(super) fn symbols(&self, kallsyms: &str) -> Result<(), RecordError> {
        self.write(|writer| writer.add_symbols(kallsyms))
    }

    /// Compresses and writes a chunk.
    pub(super) fn chunk(
        &self,
        thread: ThreadIndex,
        steps: &[StepId],
        sides: &SideStreams<'_>,
    ) -> Result<(), RecordError> {
        let spare = lock(&self.encoders).pop();
        let mut encoder = spare.unwrap_or_else(|| ChunkEncoder::new(self.level));
        let interner = || self.interner.read().unwrap_or_else(PoisonError::into_inner);
        let chunk = encoder
            .encode(thread, steps, interner().code(), sides)
            .map_err(|source| self.error(source))?;
        let written = self.write(|writer| {
            let interner = interner();
            writer.sync_code(interner.code())?;
            let index = writer.write_chunk(&chunk)?;
            if let Some(executed) = &self.executed {
                let process = lock(&self.processes)[thread.0 as usize];
                lock(executed).chunk(process.0, index, encoder.distinct(), interner.code());
            }
            Ok(())
        });
        lock(&self.encoders).push(encoder);
        written
    }

    /// Whether so much code was met that a reader would soon refuse the trace.
    pub(super) fn is_full(&self) -> bool {
        let mut counted = lock(&self.counted);
        let interner = self.interner.read().unwrap_or_else(PoisonError::into_inner);
        let code = interner.code();
        counted.memory += memory_needed(code, counted.blocks, counted.steps);
        counted.blocks = code.blocks().len();
        counted.steps = code.steps().len();
        counted.memory > MAX_CODE
    }

    pub(super) fn add_stats(&self, stats: AssembleStats) {
        *lock(&self.stats) += stats;
    }

    pub(super) fn stats(&self) -> AssembleStats {
        *lock(&self.stats)
    }

    /// Ends the trace. One into which nothing was recorded is removed if the recording failed.
    pub(super) fn finish(
        self,
        notes: &[(String, String)],
        failed: bool,
    ) -> Result<u64, RecordError> {
        let path = self.path;
        let mut writer = self
            .writer
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if failed && writer.chunks() == 0 {
            drop(writer);
            // The failure itself is the error to report.
            let _ = std::fs::remove_file(&path);
            return Ok(0);
        }
        let mut notes = notes.to_vec();
        if let Some(executed) = self.executed {
            let executed = executed
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            let interner = self.interner.read();
            let interner = interner.unwrap_or_else(PoisonError::into_inner);
            let files = executed.functions(interner.code(), &[]);
            notes.extend(add_functions(&mut writer, &files).map_err(|source| {
                RecordError::Write {
                    path: path.clone(),
                    source,
                }
            })?);
        }
        let mut size = writer.size();
        let file = writer.finish(&notes).map_err(|source| RecordError::Write {
            path: path.clone(),
            source,
        })?;
        if let Ok(metadata) = file.metadata() {
            size = metadata.len();
        }
        file.sync_all().map_err(|source| RecordError::Write {
            path,
            source: WriteError::Io {
                offset: size,
                source,
            },
        })?;
        Ok(size)
    }
}

/// Writes the functions that ran, if code of files did. More of them than a trace takes are left
/// out: a recording does not fail for lack of names. Returns what is to be noted about that.
pub(crate) fn add_functions<O: Output>(
    writer: &mut Writer<O>,
    files: &[FileFunctions],
) -> Result<Option<(String, String)>, WriteError> {
    if files.is_empty() {
        return Ok(None);
    }
    match writer.add_functions(files) {
        Ok(()) => Ok(None),
        Err(error @ WriteError::Oversized { .. }) => {
            Ok(Some(("functions".to_owned(), format!("left out: {error}"))))
        }
        Err(error) => Err(error),
    }
}
