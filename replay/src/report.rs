//! What a replay shows to people: what ran, what was recorded, the hottest edges, the last stack.

use rustc_hash::FxHashMap;
use serde::Serialize;
use vlbr_cpu::run::Sample;
use vlbr_traces::perfdata::{BranchEntry, SampleRecord};
use vlbr_traces::symbols::Symbolizer;
use vlbr_traces::vlt::Scope;

use crate::feed::Tasks;
use crate::output::describe;
use crate::session::{Consumer, ReplayError, Session, Summary};

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
    /// Processes.
    pub processes: usize,
    /// Threads or vCPUs.
    pub threads: usize,
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
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

/// Counts edges by process.
#[derive(Debug, Default)]
struct Edges {
    counts: FxHashMap<(u32, u64, u64), (u64, u64)>,
}

impl Consumer for Edges {
    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        for entry in sample.branches {
            let counts = self
                .counts
                .entry((sample.pid, entry.from, entry.to))
                .or_default();
            counts.0 += 1;
            counts.1 += u64::from(entry.flags.mispred);
        }
        Ok(())
    }
}

/// Runs `session` and reports it with the `top` hottest edges.
///
/// # Errors
/// As [`Session::run`].
pub fn report(
    session: &Session<'_>,
    top: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, ReplayError> {
    let trace = session.trace();
    let tasks = Tasks::new(trace);
    let symbols = tasks.symbolizer(trace);
    let mut edges = Edges::default();
    let summary = session.run(&mut edges, progress)?;
    let mut list: Vec<_> = edges.counts.into_iter().collect();
    // By count, then by address, so that ties have one order.
    list.sort_unstable_by(|a, b| b.1.0.cmp(&a.1.0).then(a.0.cmp(&b.0)));
    let total: u64 = list.iter().map(|(_, counts)| counts.0).sum();
    let hottest = list
        .iter()
        .take(top)
        .map(|&((pid, from, to), (count, mispredicted))| HotEdge {
            count,
            share: count as f64 / total.max(1) as f64,
            mispredicted,
            from: symbols.describe(pid, from),
            to: symbols.describe(pid, to),
        })
        .collect();
    let meta = trace.meta();
    let first = trace.threads().first();
    let pid = match (meta.scope, first) {
        (Scope::User, Some(thread)) => trace.processes()[thread.process.0 as usize].pid,
        _ => 0,
    };
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
        processes: trace.processes().len(),
        threads: trace.threads().len(),
        instructions: sum(|totals| totals.instructions),
        events: sum(|totals| totals.events),
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
            .map(|entry| stack_entry(&symbols, pid, entry))
            .collect(),
        damage: trace.damage().map(ToString::to_string),
    })
}

fn stack_entry(symbols: &Symbolizer, pid: u32, entry: &BranchEntry) -> StackEntry {
    StackEntry {
        from: entry.from,
        to: entry.to,
        from_symbol: symbols.describe(pid, entry.from),
        to_symbol: symbols.describe(pid, entry.to),
    }
}

/// A command line as one string.
#[must_use]
pub fn words(command: &[std::ffi::OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
