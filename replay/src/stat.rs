//! What `perf stat` would print: events of a whole trace, by thread or vCPU.

use serde::Serialize;
use vlbr_arch::Cycles;
use vlbr_cpu::Slots;
use vlbr_pmu::{Counter, EventNameError, EventSpec};
use vlbr_timing::TimingModel;
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::vlt::{Scope, Trace};

use crate::choice::without_clock;
use crate::counters::{assign, counted_events};
use crate::error::ReplayError;
use crate::misses::BranchMisses;
use crate::options::SessionOptions;
use crate::report::words;
use crate::session::Session;
use crate::summary::{Consumer, Summary};

/// Counts of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stat {
    /// What was recorded: the command line.
    pub command: String,
    /// Processor.
    pub processor: String,
    /// Whether clocks were counted, one an instruction.
    pub nominal_clock: bool,
    /// The timing model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
    /// Issue slots of all threads by what became of them, if the timing model knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Slots>,
    /// The branches that were mispredicted most often, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchMisses>,
    /// Instructions of each thread before anything was counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub warmup: u64,
    /// The events, in the order they were asked for.
    pub events: Vec<EventCount>,
    /// Threads or vCPUs with their counts, in the order of the trace.
    pub threads: Vec<ThreadCounts>,
    /// Runs of the trace it took: each has as many events as there are counters.
    pub runs: usize,
    /// Damage of the trace, if it was salvaged: what follows it is not counted.
    pub damage: Option<String>,
}

/// An event and its count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventCount {
    /// Name with levels.
    pub event: String,
    /// Sum over threads.
    pub count: u64,
    /// The counter that counted it.
    pub counter: String,
    /// Run in which it was counted, from 0.
    pub run: usize,
}

/// What a thread counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadCounts {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// vCPU of a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Program, as the trace names it.
    pub program: String,
    /// Instructions at every level, counter or not.
    pub instructions: u64,
    /// How long it ran: by the timing model, or a nanosecond an instruction.
    pub time_ns: u64,
    /// Core clocks by the timing model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// Count of each event.
    pub counts: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// No samples.
struct Nothing;

impl Consumer for Nothing {
    fn sample(
        &mut self,
        _: &SampleRecord<'_>,
        _: &vlbr_cpu::run::Sample,
    ) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// Counts `events` (perf's list, `None`: instructions and branches) over `trace`. Events that need
/// more counters than there are are counted in several runs, each of the whole trace: nothing is
/// scaled. `lbr` says that `options.branches` is a filter the LBR records with; without it
/// LBR_INSERTS is not fed. So many `branches` that were mispredicted most often are told.
///
/// # Errors
/// An event that the part lacks or that is not fed, or a damaged trace.
pub fn stat(
    trace: &Trace,
    options: &SessionOptions,
    events: Option<&str>,
    lbr: bool,
    branches: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Stat, ReplayError> {
    let (pmu, mut pmu_options) = options.pmu(trace.code())?;
    if !lbr {
        let inserts = vlbr_pmu::SourceSet::of(vlbr_pmu::Source::LbrInserts);
        pmu_options.feeds = pmu_options.feeds.without(inserts);
    }
    let timed = options.timing.model != TimingModel::None;
    let specs = match events {
        Some(text) => {
            counted_events(&pmu, text, &pmu_options).map_err(|error| without_clock(text, error))?
        }
        None => default_events(&pmu, &pmu_options, timed)?,
    };
    let mut result = Stat {
        timing: None,
        slots: None,
        branches: Vec::new(),
        warmup: options.timing.warmup,
        command: words(&trace.meta().command_line),
        processor: options.profile.title().to_owned(),
        nominal_clock: options.clock == vlbr_cpu::Clock::Instructions,
        events: Vec::new(),
        threads: threads(trace),
        runs: 0,
        damage: trace.damage().map(ToString::to_string),
    };
    let mut rest = &specs[..];
    while !rest.is_empty() {
        let fit = (1..=rest.len())
            .take_while(|&count| assign(&pmu, &rest[..count]).is_ok())
            .last()
            .unwrap_or(1);
        let (now, later) = rest.split_at(fit);
        rest = later;
        let options = SessionOptions {
            // Every run tells the same.
            tell_branches: branches > 0 && result.runs == 0,
            ..options.clone()
        };
        let session = Session::counting(trace, &options, now.to_vec())?;
        let done = result.runs as u64 * trace.instructions();
        let summary = session.run(&mut Nothing, &mut |n| progress(done + n))?;
        result.add(&session, &summary);
        if let Some(misses) = &summary.misses {
            let instructions = summary
                .threads
                .iter()
                .map(|thread| thread.totals.instructions);
            result.branches = misses.worst(trace, instructions.sum(), branches)?;
        }
    }
    Ok(result)
}

impl Stat {
    fn add(&mut self, session: &Session<'_>, summary: &Summary) {
        let counters = session.counters();
        for (number, (event, counter)) in counters
            .events()
            .iter()
            .zip(counters.counters())
            .enumerate()
        {
            let counts = summary.threads.iter().map(|thread| thread.counts[number]);
            self.events.push(EventCount {
                event: event.to_string(),
                count: counts.sum(),
                counter: match counter {
                    Counter::Gp(n) => format!("PMC{n}"),
                    Counter::Fixed(i) => format!("FIXED_CTR{i}"),
                },
                run: self.runs,
            });
        }
        for (thread, counted) in self.threads.iter_mut().zip(&summary.threads) {
            thread.instructions = counted.totals.instructions;
            thread.cycles = counted.cycles;
            thread.time_ns = match counted.cycles {
                Some(cycles) => session.timing.rates.nanoseconds(Cycles::new(cycles)),
                None => thread.instructions,
            };
            thread.counts.extend_from_slice(&counted.counts);
        }
        self.timing = session.timing();
        let slots = summary.threads.iter().filter_map(|thread| thread.slots);
        self.slots = slots.reduce(|sum, more| sum + more);
        self.runs += 1;
    }
}

fn threads(trace: &Trace) -> Vec<ThreadCounts> {
    let system = trace.meta().scope == Scope::System;
    trace
        .threads()
        .iter()
        .map(|thread| {
            let process = &trace.processes()[thread.process.0 as usize];
            ThreadCounts {
                pid: process.pid,
                tid: thread.tid,
                vcpu: thread.vcpu.filter(|_| system),
                program: process.path.display().to_string(),
                instructions: 0,
                time_ns: 0,
                cycles: None,
                counts: Vec::new(),
            }
        })
        .collect()
}

/// Events of a run with a clock: no more than every part counts at once, as each run takes long.
fn timed_events(
    pmu: &vlbr_pmu::Profile,
    options: &vlbr_pmu::Options,
) -> Result<Vec<EventSpec>, EventNameError> {
    let mut events = vec![pmu.parse_event("cycles", options)?];
    for name in ["instructions", "ref-cycles", "branches", "branch-misses"] {
        if let Ok(event) = pmu.parse_event(name, options) {
            events.push(event);
        }
    }
    Ok(events)
}

/// Events that steps always feed, as far as the part has them.
fn default_events(
    pmu: &vlbr_pmu::Profile,
    options: &vlbr_pmu::Options,
    timed: bool,
) -> Result<Vec<EventSpec>, EventNameError> {
    if timed {
        return timed_events(pmu, options);
    }
    let mut events = vec![
        pmu.parse_event("instructions", options)?,
        pmu.parse_event("branches", options)?,
    ];
    let more = [
        "br_inst_retired.near_taken",
        "br_inst_retired.all_taken_branches",
        "br_inst_retired.conditional",
        "br_inst_retired.cond",
        "br_inst_retired.near_call",
        "br_inst_retired.near_return",
        "br_inst_retired.far_branch",
    ];
    for name in more {
        if let Ok(event) = pmu.parse_event(name, options)
            && events.iter().all(|other| other.select != event.select)
        {
            events.push(event);
        }
    }
    Ok(events)
}
