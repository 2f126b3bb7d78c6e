//! Runs configurations on all cores, each trace open only as long as it is needed.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vlbr_traces::vlt::{OpenOptions, Trace};

use super::config::{Corpus, CorpusTrace};
use super::error::CorpusError;
use super::golden::Section;
use super::run;
use super::shard::Shard;
use crate::engine::MAX_THREADS;
use crate::error::ReplayError;
use crate::names::Names;
use crate::region::{Entrance, Region};

/// How many configurations are done, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: usize,
    /// Of how many.
    pub of: usize,
}

/// Index of a trace and of one of its configurations.
pub(super) type Job = (usize, usize);

/// A job's section, or why there is none.
pub(super) type Done = Result<Section, String>;

/// An open trace and the part of it that is replayed.
struct Open {
    trace: Trace,
    region: Region,
}

/// A trace's place: opened by its first job, closed by its last one.
struct Slot {
    open: Mutex<Option<Result<Arc<Open>, String>>>,
    left: AtomicUsize,
}

/// The jobs of `shard`, in the order of the file.
pub(super) fn jobs(corpus: &Corpus, shard: Shard) -> Vec<Job> {
    let all = corpus.traces.iter().enumerate();
    all.flat_map(|(index, trace)| (0..trace.configurations.len()).map(move |c| (index, c)))
        .enumerate()
        .filter(|(number, _)| shard.has(*number))
        .map(|(_, job)| job)
        .collect()
}

/// Runs `jobs` on `threads` threads (0: all cores). Results come in the order of the jobs.
pub(super) fn run_all(
    corpus: &Corpus,
    jobs: &[Job],
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Done>, CorpusError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.min(MAX_THREADS).min(jobs.len().max(1)))
        .build()
        .map_err(|error| CorpusError::Threads(threads, error.to_string()))?;
    let slots: Vec<Slot> = (0..corpus.traces.len())
        .map(|trace| Slot {
            open: Mutex::new(None),
            left: AtomicUsize::new(jobs.iter().filter(|job| job.0 == trace).count()),
        })
        .collect();
    let results: Vec<Mutex<Option<Done>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // In order, so that few traces are open at a time; a parallel iterator would begin everywhere.
    pool.broadcast(|_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(trace, configuration)) = jobs.get(number) else {
                break;
            };
            let result = slots[trace].run(corpus, trace, configuration);
            *lock(&results[number]) = Some(result);
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress(Progress {
                done,
                of: jobs.len(),
            });
        }
    });
    let take = |result: Mutex<Option<Done>>| {
        let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| Err("was not run".to_owned()))
    };
    Ok(results.into_iter().map(take).collect())
}

/// What a mutex guards; no state here can be half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn run(&self, corpus: &Corpus, trace: usize, configuration: usize) -> Done {
        let trace = &corpus.traces[trace];
        let configuration = &trace.configurations[configuration];
        let open = lock(&self.open)
            .get_or_insert_with(|| open(trace).map(Arc::new))
            .clone();
        let result = open.and_then(|open| {
            run::run(corpus, &open.trace, open.region, configuration)
                .map_err(|error| error.to_string())
        });
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            *lock(&self.open) = None;
        }
        result
    }
}

fn open(described: &CorpusTrace) -> Result<Open, String> {
    let file = |error: &dyn std::fmt::Display| format!("{}: {error}", described.file.display());
    let trace =
        Trace::open(&described.file, OpenOptions::default()).map_err(|error| file(&error))?;
    let region = region(described, &trace).map_err(|error| file(&error))?;
    Ok(Open { trace, region })
}

fn region(described: &CorpusTrace, trace: &Trace) -> Result<Region, ReplayError> {
    if described.from.is_none() && described.to.is_none() {
        return Ok(Region::whole());
    }
    let names = Names::new(trace)?;
    let from = described
        .from
        .as_deref()
        .map(|name| Entrance::new(trace, &names, name))
        .transpose()?;
    let to = described
        .to
        .as_deref()
        .map(|name| Entrance::new(trace, &names, name))
        .transpose()?;
    let region = Region::between(trace, from.as_ref(), to.as_ref())?;
    region.ok_or_else(|| ReplayError::NotReached(described.from.clone().unwrap_or_default()))
}

/// A path for messages: below the corpus folder it is shown without the folder.
pub(super) fn shown(corpus: &Corpus, path: &Path) -> String {
    let below = path.strip_prefix(&corpus.dir).unwrap_or(path);
    below.display().to_string()
}
