//! One configuration on one trace.

use rustc_hash::FxHashMap;
use vlbr_cpu::run::Sample;
use vlbr_traces::perfdata::{BranchEntry, BranchFlags, BranchPrivilege, BranchType, SampleRecord};
use vlbr_traces::symbols::places::{KERNEL, Place, Places, UNMAPPED};
use vlbr_traces::vlt::Trace;

use super::config::{Configuration, Corpus};
use super::digest::{Aspects, Segments, add_aspects, encode};
use super::exercise::{Exercised, as_perf_reads, exercise};
use super::golden::{Results, Section, Stack};
use crate::device::DeviceError;
use crate::error::ReplayError;
use crate::options::SessionOptions;
use crate::region::Region;
use crate::session::Session;
use crate::summary::{Consumer, Summary};
use crate::timing::TimingOptions;

/// Samples at most that are kept to compare the plan with the device.
const MOST_COMPARED: usize = 4096;
/// Threads whose last stack is shown.
const LAST_STACKS: usize = 4;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The replay failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The hot loop and the device do not agree.
    #[error("{sample}: the hot loop gives {hot}, the device gives {device}")]
    Disagreement {
        /// Which sample, and where in it.
        sample: String,
        /// From the hot loop.
        hot: String,
        /// From the device.
        device: String,
    },
}

/// What a configuration gives on `trace`.
pub(crate) fn run(
    corpus: &Corpus,
    trace: &Trace,
    region: Region,
    configuration: &Configuration,
) -> Result<Section, RunError> {
    let options = |ordered| SessionOptions {
        device: configuration.device.clone(),
        branches: configuration.branches,
        event: configuration.event.clone(),
        period: configuration.period,
        region,
        jobs: 1,
        ordered,
        timing: TimingOptions {
            model: configuration.timing,
            ..TimingOptions::default()
        },
        ..SessionOptions::new(configuration.profile.clone())
    };
    let session = match Session::new(trace, options(false)) {
        Err(ReplayError::Device(DeviceError::Filter(refused))) => {
            return Ok(Section::Refused(refused.to_string()));
        }
        Err(ReplayError::Timing(refused)) => return Ok(Section::Refused(refused.to_string())),
        Err(ReplayError::Event(refused)) => return Ok(Section::Refused(refused.to_string())),
        session => session?,
    };
    let mut head = Head {
        limit: corpus.device_instructions,
        samples: Vec::new(),
        full: false,
    };
    if corpus.device_instructions > 0 {
        let device = Session::new(trace, options(true))?;
        match device.run(&mut head, &mut |_| ()) {
            Err(_) if head.full => {}
            result => {
                result?;
            }
        }
    }
    let mut collector = Collector::new(trace, head.samples, session.timing().is_some());
    let run = session.run(&mut collector, &mut |_| ());
    if let Some(disagreement) = collector.disagreement {
        return Err(disagreement);
    }
    let summary = run?;
    let exercised = exercise(trace, region, session.lbr())?;
    let results = collector.results(corpus, &session, &summary, &exercised);
    Ok(Section::Ran(Box::new(results)))
}

/// A sample by itself.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    number: u64,
    ip: u64,
    thread: u32,
    time: u64,
    kernel: bool,
    hw_idx: Option<u64>,
    period: u64,
    counts: Vec<u64>,
    entries: Vec<BranchEntry>,
    chunk: usize,
}

impl Kept {
    fn new(sample: &SampleRecord<'_>, number: u64, chunk: usize, thread: u32) -> Self {
        Self {
            number,
            ip: sample.ip,
            thread,
            time: sample.time_ns,
            kernel: sample.kernel,
            hw_idx: sample.hw_idx,
            period: sample.period,
            counts: sample.counts.to_vec(),
            entries: sample.branches.to_vec(),
            chunk,
        }
    }
}

/// Takes the samples of the first instructions, then stops the replay.
#[derive(Debug)]
struct Head {
    limit: u64,
    samples: Vec<Kept>,
    full: bool,
}

impl Head {
    fn stop_at(&mut self, instructions: u64) -> Result<(), ReplayError> {
        self.full = instructions >= self.limit || self.samples.len() >= MOST_COMPARED;
        if self.full {
            // Ends the replay; the caller looks at `full` and takes it for no error.
            return Err(ReplayError::Unsuitable("enough samples"));
        }
        Ok(())
    }
}

impl Consumer for Head {
    fn chunk(&mut self, _chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.stop_at(time_ns)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.samples
            .push(Kept::new(sample, self.samples.len() as u64, 0, 0));
        self.stop_at(sample.time_ns)
    }
}

/// Collects what makes a result.
struct Collector<'t> {
    trace: &'t Trace,
    /// A timing model tells the time.
    timed: bool,
    places: Places,
    labels: Vec<String>,
    device: Vec<Kept>,
    compared: u64,
    disagreement: Option<RunError>,
    segments: Segments,
    aspects: Aspects,
    /// By process.
    edges: FxHashMap<(u32, u64, u64), u64>,
    /// Of each segment its first sample.
    kept: Vec<Kept>,
    last: Option<Kept>,
    chunk: usize,
    bytes: Vec<u8>,
}

impl<'t> Collector<'t> {
    fn new(trace: &'t Trace, device: Vec<Kept>, timed: bool) -> Self {
        let places = Places::of_trace(trace);
        let mut labels = places.labels();
        // Bare addresses are shorter, and clear.
        labels[UNMAPPED as usize].clear();
        labels[KERNEL as usize].clear();
        Self {
            trace,
            timed,
            places,
            labels,
            device,
            compared: 0,
            disagreement: None,
            segments: Segments::default(),
            aspects: Aspects::default(),
            edges: FxHashMap::default(),
            kept: Vec::new(),
            last: None,
            chunk: 0,
            bytes: Vec::new(),
        }
    }

    fn thread(&self) -> u32 {
        self.trace.chunks()[self.chunk].thread.0
    }

    fn process(&self, thread: u32) -> u32 {
        self.trace.threads()[thread as usize].process.0
    }

    /// Compares sample `number` with that of the device.
    fn check(&mut self, number: u64, sample: &SampleRecord<'_>) -> Result<(), ReplayError> {
        let Some(device) = self.device.get(number as usize) else {
            return Ok(());
        };
        let hot = Kept::new(sample, number, 0, 0);
        if hot == *device {
            self.compared += 1;
            return Ok(());
        }
        let entries = hot.entries.iter().zip(&device.entries);
        let common = hot.entries.len().min(device.entries.len());
        let place = entries
            .map(|(hot, device)| hot != device)
            .position(|differ| differ)
            .unwrap_or(common);
        let thread = self.thread();
        let one = |kept: &Kept| {
            if hot.entries == device.entries {
                let index = kept.hw_idx.map_or_else(|| "none".into(), |i| i.to_string());
                return format!("{} index {index}", self.name(self.chunk, thread, kept.ip));
            }
            let entry = kept.entries.get(place);
            entry.map_or_else(
                || "nothing".into(),
                |entry| self.entry(self.chunk, thread, entry),
            )
        };
        self.disagreement = Some(RunError::Disagreement {
            sample: format!("sample {number}, entry {place}"),
            hot: one(&hot),
            device: one(device),
        });
        Err(ReplayError::Unsuitable("the device disagrees"))
    }

    fn name(&self, chunk: usize, thread: u32, address: u64) -> String {
        let place = self
            .places
            .locate(self.process(thread), chunk as u64, address);
        self.place(place)
    }

    fn place(&self, place: Place) -> String {
        match self.labels[place.object as usize].as_str() {
            "" => format!("{:x}", place.offset),
            label => format!("{label}+{:x}", place.offset),
        }
    }

    fn entry(&self, chunk: usize, thread: u32, entry: &BranchEntry) -> String {
        let mut text = format!(
            "{} > {}",
            self.name(chunk, thread, entry.from),
            self.name(chunk, thread, entry.to)
        );
        let flags = words(entry.flags);
        if !flags.is_empty() {
            text.push(' ');
            text.push_str(&flags);
        }
        text
    }

    fn stack(&self, kept: &Kept) -> Stack {
        let mut about = format!(
            "thread {} at {}, {}",
            kept.thread,
            self.name(kept.chunk, kept.thread, kept.ip),
            match self.timed {
                true => format!("{} ns", kept.time),
                false => format!("instruction {}", kept.time),
            }
        );
        if kept.kernel {
            about.push_str(", kernel");
        }
        if let Some(index) = kept.hw_idx {
            about.push_str(&format!(", index {index}"));
        }
        let entries = kept.entries.iter();
        Stack {
            which: format!("sample {}", kept.number),
            about,
            entries: entries
                .map(|entry| self.entry(kept.chunk, kept.thread, entry))
                .collect(),
        }
    }

    fn hottest(&self, most: usize) -> Vec<String> {
        let mut merged: FxHashMap<(Place, Place), u64> = FxHashMap::default();
        for (&(process, from, to), count) in &self.edges {
            let locate = |address| self.places.locate(process, u64::MAX, address);
            *merged.entry((locate(from), locate(to))).or_default() += count;
        }
        let mut edges: Vec<_> = merged.into_iter().collect();
        edges.sort_unstable_by_key(|&(edge, count)| (std::cmp::Reverse(count), edge));
        let hottest = edges.iter().take(most);
        hottest
            .map(|((from, to), count)| {
                format!("{count} {} > {}", self.place(*from), self.place(*to))
            })
            .collect()
    }

    fn results(
        &self,
        corpus: &Corpus,
        session: &Session<'_>,
        summary: &Summary,
        exercised: &Exercised,
    ) -> Results {
        let sum = |of: fn(&crate::Totals) -> u64| {
            let threads = summary.threads.iter();
            threads.map(|thread| of(&thread.totals)).sum::<u64>()
        };
        let register = session.lbr().filter_register();
        let mut stacks: Vec<Stack> = Vec::new();
        // The last sample, and before it first samples of segments at equal distances.
        let inner = corpus.stacks.saturating_sub(1).min(self.kept.len());
        for index in 0..inner {
            let kept = &self.kept[index * self.kept.len() / inner];
            stacks.push(self.stack(kept));
        }
        let last = self.last.as_ref().filter(|_| corpus.stacks > 0);
        if let Some(last) = last.filter(|last| stacks.iter().all(|s| s.which != number(last))) {
            stacks.push(self.stack(last));
        }
        let chunks = self.trace.chunks().len();
        for (index, thread) in summary.threads.iter().take(LAST_STACKS).enumerate() {
            let entries = thread.last_stack.iter();
            stacks.push(Stack {
                which: format!("end of thread {index}"),
                about: format!("{} entries", thread.last_stack.len()),
                entries: entries
                    .map(|entry| self.entry(chunks, index as u32, entry))
                    .collect(),
            });
        }
        let made_up = exercised.records.iter().map(|record| {
            if record.is_empty() {
                return "empty".to_owned();
            }
            let mut text = self.entry(chunks, 0, &as_perf_reads(session.lbr(), record));
            if record.raw[2] != 0 {
                text.push_str(&format!(" info {:x}", record.raw[2]));
            }
            text
        });
        stacks.push(Stack {
            which: "made-up flags".to_owned(),
            about: format!("{} entries", exercised.records.len()),
            entries: made_up.collect(),
        });
        Results {
            sampling: format!(
                "{} every {}",
                session.event(),
                session.pace().map_or(0, |pace| pace.period())
            ),
            register: register.map_or_else(
                || "none".to_owned(),
                |(msr, value)| format!("{msr}={value:#x}"),
            ),
            counts: [
                sum(|totals| totals.instructions),
                sum(|totals| totals.events),
                summary.samples,
                summary.entries,
                summary.removed,
                summary.short,
                sum(|totals| totals.pushes),
                sum(|totals| totals.pops),
            ],
            device: self.compared,
            exercised: exercised.transfers,
            exercise: exercised.digests.clone(),
            aspects: self.aspects,
            size: self.segments.size(),
            segments: self.segments.finish(),
            edges: self.hottest(corpus.edges),
            stacks,
        }
    }
}

fn number(kept: &Kept) -> String {
    format!("sample {}", kept.number)
}

impl Consumer for Collector<'_> {
    fn chunk(&mut self, chunk: usize, _time_ns: u64) -> Result<(), ReplayError> {
        self.chunk = chunk;
        Ok(())
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        let number = self.segments.samples();
        self.check(number, sample)?;
        let thread = self.thread();
        let process = self.process(thread);
        for entry in sample.branches {
            let edge = (process, entry.from, entry.to);
            *self.edges.entry(edge).or_default() += 1;
        }
        add_aspects(&mut self.aspects, sample);
        encode(sample, &mut self.bytes);
        let kept = Kept::new(sample, number, self.chunk, thread);
        if number.is_multiple_of(self.segments.size()) {
            self.kept.push(kept.clone());
        }
        self.last = Some(kept);
        if self.segments.push(&self.bytes) {
            let size = self.segments.size();
            self.kept.retain(|kept| kept.number.is_multiple_of(size));
        }
        Ok(())
    }
}

/// Flags as letters and words, empty ones left out: `P`, `M X c12 COND u`.
fn words(flags: BranchFlags) -> String {
    let mut words = Vec::new();
    let letters = [
        (flags.mispred, 'M'),
        (flags.predicted, 'P'),
        (flags.in_tx, 'X'),
        (flags.abort, 'A'),
    ];
    let letters = letters.iter().filter(|(set, _)| *set);
    let letters: String = letters.map(|(_, letter)| letter).collect();
    if !letters.is_empty() {
        words.push(letters);
    }
    if flags.cycles != 0 {
        words.push(format!("c{}", flags.cycles));
    }
    if flags.branch_type != BranchType::UNKNOWN {
        words.push(flags.branch_type.name().to_owned());
    }
    if flags.privilege != BranchPrivilege::UNKNOWN {
        words.push(match flags.privilege {
            BranchPrivilege::USER => "u".to_owned(),
            BranchPrivilege::KERNEL => "k".to_owned(),
            other => format!("priv{}", other.get()),
        });
    }
    words.join(" ")
}
