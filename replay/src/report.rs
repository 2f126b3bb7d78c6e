//! What a replay shows to people: what ran, what was recorded, the hottest edges, the last stack.

use rustc_hash::FxHashMap;
use serde::Serialize;
use vlbr_cpu::run::Sample;
use vlbr_traces::perfdata::{BranchEntry, SampleRecord};
use vlbr_traces::symbols::places::Place;
use vlbr_traces::vlt::Trace;

use crate::error::ReplayError;
use crate::names::{Moment, Names};
use crate::output::describe;
use crate::session::Session;
use crate::summary::{Consumer, Summary};

/// The table of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was recorded: the command line.
    pub command: String,
    /// Recorder and its version.
    pub engine: String,
    /// Processor.
    pub processor: String,
    /// Entries of its LBR.
    pub depth: usize,
    /// Event, period and filter.
    pub sampling: String,
    /// The timing model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
    /// Core clocks of all threads, by the timing model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// Processes.
    pub processes: usize,
    /// Threads or vCPUs.
    pub threads: usize,
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
    /// What each event of a group counted, the sampled one first; empty without a group.
    pub group: Vec<(String, u64)>,
    /// Records inserted.
    pub pushes: u64,
    /// Records popped (call-stack mode).
    pub pops: u64,
    /// Samples.
    pub samples: u64,
    /// Entries in them.
    pub entries: u64,
    /// Entries the software filter removed, or that were empty.
    pub removed: u64,
    /// Samples with fewer entries than the LBR is deep.
    pub short: u64,
    /// Different edges in the samples.
    pub edges: usize,
    /// The hottest edges.
    pub hottest: Vec<HotEdge>,
    /// The LBR of the first thread at its end, youngest first.
    pub last_stack: Vec<StackEntry>,
    /// Damage of the trace, if it was salvaged: what follows it is lost.
    pub damage: Option<String>,
}

/// An edge and how often it was sampled.
#[derive(Clone, Debug, Serialize)]
pub struct HotEdge {
    /// Times in the samples.
    pub count: u64,
    /// Share of all sampled edges.
    pub share: f64,
    /// Times mispredicted.
    pub mispredicted: u64,
    /// FROM.
    pub from: String,
    /// TO.
    pub to: String,
}

/// One LBR entry.
#[derive(Clone, Debug, Serialize)]
pub struct StackEntry {
    /// FROM.
    pub from: u64,
    /// TO.
    pub to: u64,
    /// FROM with its symbol.
    pub from_symbol: String,
    /// TO with its symbol.
    pub to_symbol: String,
}

/// An edge as long as the mappings stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SampledEdge {
    generation: usize,
    process: u32,
    from: u64,
    to: u64,
}

/// How often an edge was sampled, and when first.
#[derive(Clone, Copy, Debug)]
struct Times {
    chunk: usize,
    sampled: u64,
    mispredicted: u64,
}

/// Counts edges by process and generation of the mappings.
struct Edges<'a> {
    trace: &'a Trace,
    names: &'a Names,
    now: Moment,
    generation: usize,
    counts: FxHashMap<SampledEdge, Times>,
}

impl Consumer for Edges<'_> {
    fn chunk(&mut self, chunk: usize, _: u64) -> Result<(), ReplayError> {
        self.now = Moment::of_chunk(self.trace, chunk);
        self.generation = self.names.generation(chunk);
        Ok(())
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        for entry in sample.branches {
            let edge = SampledEdge {
                generation: self.generation,
                process: self.now.process,
                from: entry.from,
                to: entry.to,
            };
            let times = self.counts.entry(edge).or_insert(Times {
                chunk: self.now.chunk,
                sampled: 0,
                mispredicted: 0,
            });
            times.sampled += 1;
            times.mispredicted += u64::from(entry.flags.mispred);
        }
        Ok(())
    }
}

impl Edges<'_> {
    /// The edges of each process by where they lie, each with its first occurrence; the hottest
    /// first, then by address, so that ties have one order.
    fn list(self) -> Vec<(SampledEdge, Times)> {
        let mut all: Vec<_> = self.counts.into_iter().collect();
        all.sort_unstable_by_key(|&(edge, _)| edge);
        let mut merged: FxHashMap<(u32, Place, Place), (SampledEdge, Times)> = FxHashMap::default();
        for (edge, times) in all {
            let at = Moment {
                process: edge.process,
                chunk: times.chunk,
            };
            let place = |address| self.names.place(at, address);
            let key = (edge.process, place(edge.from), place(edge.to));
            let (_, sum) = merged.entry(key).or_insert((
                edge,
                Times {
                    sampled: 0,
                    mispredicted: 0,
                    ..times
                },
            ));
            sum.sampled += times.sampled;
            sum.mispredicted += times.mispredicted;
        }
        let pid = |edge: &SampledEdge| self.trace.processes()[edge.process as usize].pid;
        let mut list: Vec<_> = merged.into_values().collect();
        list.sort_unstable_by(|(a, left), (b, right)| {
            let address = |edge: &SampledEdge| (pid(edge), edge.from, edge.to, *edge);
            let hottest = right.sampled.cmp(&left.sampled);
            hottest.then_with(|| address(a).cmp(&address(b)))
        });
        list
    }
}

/// Runs `session` and reports it with the `top` hottest edges.
///
/// # Errors
/// As [`Session::run`] and [`Names::new`].
pub fn report(
    session: &Session<'_>,
    top: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, ReplayError> {
    let trace = session.trace();
    let names = Names::new(trace)?;
    let mut edges = Edges {
        trace,
        names: &names,
        now: Moment::default(),
        generation: 0,
        counts: FxHashMap::default(),
    };
    let summary = session.run(&mut edges, progress)?;
    let list = edges.list();
    let total: u64 = list.iter().map(|(_, times)| times.sampled).sum();
    let hottest = list
        .iter()
        .take(top)
        .map(|(edge, times)| {
            let at = Moment {
                process: edge.process,
                chunk: times.chunk,
            };
            HotEdge {
                count: times.sampled,
                share: times.sampled as f64 / total.max(1) as f64,
                mispredicted: times.mispredicted,
                from: names.describe(at, edge.from),
                to: names.describe(at, edge.to),
            }
        })
        .collect();
    let meta = trace.meta();
    // Where the first thread ends.
    let end = trace.chunks().iter().rposition(|info| info.thread.0 == 0);
    let end = Moment::of_chunk(trace, end.unwrap_or(0));
    let last = summary
        .threads
        .first()
        .map_or(&[][..], |thread| &thread.last_stack);
    let sum = |field: fn(&crate::Totals) -> u64| -> u64 {
        summary
            .threads
            .iter()
            .map(|thread| field(&thread.totals))
            .sum()
    };
    let cycles = summary.threads.iter().map(|thread| thread.cycles);
    let cycles = session.timing().and_then(|_| cycles.sum());
    let events = session.counters().events();
    let group = events
        .iter()
        .enumerate()
        .filter(|_| events.len() > 1)
        .map(|(number, event)| {
            let counts = summary.threads.iter().map(|thread| thread.counts[number]);
            (event.to_string(), counts.sum())
        })
        .collect();
    let Summary {
        samples,
        entries,
        removed,
        short,
        ..
    } = summary;
    Ok(Report {
        command: words(&meta.command_line),
        engine: format!("{} {}", meta.engine, meta.engine_version)
            .trim()
            .to_owned(),
        processor: session.lbr().lbr().profile().title().to_owned(),
        depth: session.lbr().lbr().depth(),
        sampling: describe(session),
        timing: session.timing(),
        cycles,
        processes: trace.processes().len(),
        threads: trace.threads().len(),
        instructions: sum(|totals| totals.instructions),
        events: sum(|totals| totals.events),
        group,
        pushes: sum(|totals| totals.pushes),
        pops: sum(|totals| totals.pops),
        samples,
        entries,
        removed,
        short,
        edges: list.len(),
        hottest,
        last_stack: last
            .iter()
            .map(|entry| stack_entry(&names, end, entry))
            .collect(),
        damage: trace.damage().map(ToString::to_string),
    })
}

fn stack_entry(names: &Names, at: Moment, entry: &BranchEntry) -> StackEntry {
    StackEntry {
        from: entry.from,
        to: entry.to,
        from_symbol: names.describe(at, entry.from),
        to_symbol: names.describe(at, entry.to),
    }
}

/// A command line as one string.
#[must_use]
pub fn words(command: &[std::ffi::OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
