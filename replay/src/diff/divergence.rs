//! Where two traces' control flow, or two files' samples, part first.

use std::fs::File;
use std::path::Path;

use serde::Serialize;
use vlbr_traces::perfdata::{BranchEntry, PerfFile, Record, Records};
use vlbr_traces::symbols::places::{Place, Places};
use vlbr_traces::vlt::Trace;

use super::error::DiffError;
use super::input::{Content, Input, perf_error};
use super::union::Union;
use super::walk::{Leave, StraightRun, Walk};

/// Where two files part first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Divergence {
    /// Files of these kinds have no order to compare.
    #[default]
    NotCompared,
    /// Nowhere: every thread ran the same, or every sample is the same.
    None {
        /// Threads or samples compared.
        compared: u64,
    },
    /// Two traces: a thread ran differently.
    ControlFlow {
        /// Index of the thread.
        thread: usize,
        /// Instructions the thread retired before the runs that differ.
        instruction: u64,
        /// The first trace's run; `None`: it has no such thread, or it has ended.
        a: Option<Run>,
        /// The second trace's.
        b: Option<Run>,
    },
    /// Two perf.data files: a sample differs.
    Samples {
        /// Number of the sample, from 0.
        sample: u64,
        /// What of it differs: `ip`, `thread`, `number of entries` or `entry N`; `end` if a file
        /// has no such sample.
        what: String,
        /// In the first file.
        a: String,
        /// In the second file.
        b: String,
    },
}

/// Instructions in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Where it starts.
    pub start: String,
    /// Instructions retired in it.
    pub instructions: u64,
    /// How it ended: `FROM -> TO`, or in words.
    pub then: String,
}

/// Finds it.
pub(super) fn find(a: &mut Input, b: &mut Input, union: &Union) -> Result<Divergence, DiffError> {
    match (&mut a.content, &mut b.content) {
        (Content::Trace(trace_a), Content::Trace(trace_b)) => control_flow(
            Flow {
                path: &a.path,
                trace: trace_a,
                places: &a.places,
            },
            Flow {
                path: &b.path,
                trace: trace_b,
                places: &b.places,
            },
            union,
        ),
        (Content::Perf(file_a), Content::Perf(file_b)) => {
            let mut a = Samples::new(&a.path, file_a, &a.places, 0)?;
            let mut b = Samples::new(&b.path, file_b, &b.places, 1)?;
            samples(&mut a, &mut b, union)
        }
        _ => Ok(Divergence::NotCompared),
    }
}

/// A trace of two.
#[derive(Clone, Copy)]
struct Flow<'a> {
    path: &'a Path,
    trace: &'a Trace,
    places: &'a Places,
}

fn control_flow(a: Flow<'_>, b: Flow<'_>, union: &Union) -> Result<Divergence, DiffError> {
    let (threads_a, threads_b) = (a.trace.threads().len(), b.trace.threads().len());
    for thread in 0..threads_a.max(threads_b) {
        let (mut walk_a, mut walk_b) = (walk_of(a, union, 0, thread), walk_of(b, union, 1, thread));
        let mut instruction = 0;
        loop {
            let next = |walk: &mut Option<Walk<'_>>| match walk {
                Some(walk) => walk.next_run(),
                None => Ok(None),
            };
            let (run_a, run_b) = (next(&mut walk_a)?, next(&mut walk_b)?);
            if run_a != run_b {
                return Ok(Divergence::ControlFlow {
                    thread,
                    instruction,
                    a: run_a.map(|run| told(union, &run)),
                    b: run_b.map(|run| told(union, &run)),
                });
            }
            match run_a {
                Some(run) => instruction += run.instructions,
                None => break,
            }
        }
    }
    Ok(Divergence::None {
        compared: threads_a as u64,
    })
}

fn walk_of<'a>(flow: Flow<'a>, union: &'a Union, side: usize, thread: usize) -> Option<Walk<'a>> {
    (thread < flow.trace.threads().len())
        .then(|| Walk::new(flow.path, flow.trace, flow.places, union, side, thread))
}

fn told(union: &Union, run: &StraightRun) -> Run {
    Run {
        start: union.describe_fully(run.start),
        instructions: run.instructions,
        then: match run.leave {
            Leave::Transfer { from, to } => {
                format!(
                    "{} -> {}",
                    union.describe_fully(from),
                    union.describe_fully(to)
                )
            }
            Leave::Gap => "a gap in the trace".to_owned(),
            Leave::End => "the end of the trace".to_owned(),
        },
    }
}

/// A sample with places in common numbers.
#[derive(Debug, PartialEq)]
struct Located {
    ip: Option<Place>,
    /// By order of appearance: ids differ from run to run.
    thread: usize,
    entries: Vec<(Place, Place, BranchEntry)>,
}

/// The samples of a perf.data file.
struct Samples<'a> {
    path: &'a Path,
    records: Records<'a, File>,
    places: &'a Places,
    side: usize,
    threads: Vec<(u32, u32)>,
}

/// Threads told apart at most; those behind count as one.
const MAX_THREADS: usize = 1 << 16;

impl<'a> Samples<'a> {
    fn new(
        path: &'a Path,
        file: &'a mut PerfFile<File>,
        places: &'a Places,
        side: usize,
    ) -> Result<Self, DiffError> {
        let records = file.records().map_err(|source| perf_error(path, source))?;
        Ok(Self {
            path,
            records,
            places,
            side,
            threads: Vec::new(),
        })
    }

    fn next_sample(&mut self, union: &Union) -> Result<Option<Located>, DiffError> {
        let error = |source| perf_error(self.path, source);
        while let Some(record) = self.records.next_record().map_err(error)? {
            let Record::Sample(sample) = record.parse().map_err(error)? else {
                continue;
            };
            let task = sample.task.unwrap_or_default();
            let when = sample.time.unwrap_or(u64::MAX);
            let place = |address| {
                let place = self.places.locate(task.0, when, address);
                union.place(self.side, place, false).unwrap_or(place)
            };
            let ip = sample.ip.map(place);
            let stack = sample.branch_stack.unwrap_or_default();
            let entries = stack
                .entries
                .iter()
                .map(|entry| (place(entry.from), place(entry.to), *entry))
                .collect();
            let known = self.threads.iter().position(|known| *known == task);
            let thread = known.unwrap_or(self.threads.len());
            if known.is_none() && thread < MAX_THREADS {
                self.threads.push(task);
            }
            return Ok(Some(Located {
                ip,
                thread,
                entries,
            }));
        }
        Ok(None)
    }
}

fn samples(
    a: &mut Samples<'_>,
    b: &mut Samples<'_>,
    union: &Union,
) -> Result<Divergence, DiffError> {
    for sample in 0.. {
        let (one, other) = match (a.next_sample(union)?, b.next_sample(union)?) {
            (None, None) => return Ok(Divergence::None { compared: sample }),
            (Some(one), Some(other)) => (one, other),
            (one, other) => {
                let word = |located: Option<Located>| match located {
                    Some(_) => "goes on".to_owned(),
                    None => "ends".to_owned(),
                };
                return Ok(Divergence::Samples {
                    sample,
                    what: "end".to_owned(),
                    a: word(one),
                    b: word(other),
                });
            }
        };
        if let Some((what, a, b)) = difference(union, &one, &other) {
            return Ok(Divergence::Samples { sample, what, a, b });
        }
    }
    Ok(Divergence::NotCompared)
}

/// What of two samples differs first, and how.
fn difference(union: &Union, a: &Located, b: &Located) -> Option<(String, String, String)> {
    if a.ip != b.ip {
        let ip = |located: &Located| {
            let ip = located.ip.map(|ip| union.describe_fully(ip));
            ip.unwrap_or_else(|| "none".to_owned())
        };
        return Some(("ip".to_owned(), ip(a), ip(b)));
    }
    if a.thread != b.thread {
        let thread = |located: &Located| format!("thread number {}", located.thread);
        return Some(("thread".to_owned(), thread(a), thread(b)));
    }
    let same = |x: &(Place, Place, BranchEntry), y: &(Place, Place, BranchEntry)| {
        (x.0, x.1, x.2.flags) == (y.0, y.1, y.2.flags)
    };
    let pairs = a.entries.iter().zip(&b.entries);
    if let Some(place) = pairs.map(|(x, y)| !same(x, y)).position(|differ| differ) {
        let entry = |located: &Located| {
            let (from, to, entry) = &located.entries[place];
            format!(
                "{} -> {} flags {:#x}",
                union.describe_fully(*from),
                union.describe_fully(*to),
                entry.flags.to_word()
            )
        };
        return Some((format!("entry {place}"), entry(a), entry(b)));
    }
    let count = |located: &Located| located.entries.len().to_string();
    (a.entries.len() != b.entries.len())
        .then(|| ("number of entries".to_owned(), count(a), count(b)))
}
