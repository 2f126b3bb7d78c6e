//! A replay as `perf record` would see it.

use std::num::NonZeroU64;

use thiserror::Error;
use vlbr_arch::Cpl;
use vlbr_cpu::Exit;
use vlbr_cpu::run::{EntryKind, EntryRef, Plan, RawRecord, RunTotals, Sample};
use vlbr_host::perf::with_event_privileges;
use vlbr_lbr::{Options, Profile};
use vlbr_pmu::{Event, EventError, EventSelect};
use vlbr_traces::export::ExportError;
use vlbr_traces::perfdata::{
    BranchEntry, BranchSampleType, CONTEXT_KERNEL, CONTEXT_USER, SampleRecord,
};
use vlbr_traces::vlt::{Scope, Trace, VltError};

use crate::device::{DeviceError, ProgrammedLbr, RenderedEntry};
use crate::engine::{self, EngineError, EngineOptions, ThreadState};
use crate::gate::GatedSteps;
use crate::ordered;
use crate::region::Region;

/// Why a replay failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The LBR cannot be programmed so.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The processor has no such event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The trace is damaged or cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The output cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Symbols cannot be read.
    #[error("{0}")]
    Symbols(String),
    /// A symbol of `--from` or `--to` is not in the trace's files.
    #[error("no symbol '{0}' in the files the trace maps; an address can be given as 0x...")]
    NoSymbol(String),
    /// Control never reached the start of the region.
    #[error("control never reaches '{0}'")]
    NotReached(String),
    /// The format needs another kind of sampling.
    #[error("{0}")]
    Unsuitable(&'static str),
}

impl From<VltError> for ReplayError {
    fn from(error: VltError) -> Self {
        Self::Engine(EngineError::Trace(error))
    }
}

/// What is sampled, and how.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The processor.
    pub profile: Profile,
    /// Open points and quirks of its LBR.
    pub device: Options,
    /// Branch filter. Without privilege levels it takes those of the event.
    pub branches: BranchSampleType,
    /// The event; `None`: `br_inst_retired.near_taken` where the processor has it, else
    /// `branches`; with a call-stack filter `instructions`.
    pub event: Option<EventSelect>,
    /// Events between samples; `None`: 997, with `instructions` 10,007.
    pub period: Option<NonZeroU64>,
    /// Part of the trace.
    pub region: Region,
    /// Threads; 0 means all cores.
    pub jobs: usize,
    /// Write whole records at once instead of references.
    pub eager: bool,
    /// Send every transfer through the device in order even where that changes nothing: slow, to
    /// compare the hot loop with the device.
    pub ordered: bool,
}

impl SessionOptions {
    /// `-b` on `profile`.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            device: Options::default(),
            branches: BranchSampleType::ANY,
            event: None,
            period: None,
            region: Region::whole(),
            jobs: 0,
            eager: false,
            ordered: false,
        }
    }
}

/// What takes the samples of a session.
pub trait Consumer {
    /// The samples of `chunk` follow; the trace has run for `time_ns`.
    ///
    /// # Errors
    /// Ends the replay.
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        let _ = (chunk, time_ns);
        Ok(())
    }

    /// A sample, in file order, taken on step `at`.
    ///
    /// # Errors
    /// Ends the replay.
    fn sample(&mut self, sample: &SampleRecord<'_>, at: &Sample) -> Result<(), ReplayError>;
}

/// Sums of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of each thread of the trace, by index.
    pub threads: Vec<ThreadSummary>,
    /// Samples.
    pub samples: u64,
    /// Entries in all samples, after the software filter.
    pub entries: u64,
    /// Entries the software filter removed, or that were empty.
    pub removed: u64,
    /// Samples with fewer entries than the LBR is deep.
    pub short: u64,
}

/// Sums of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadSummary {
    /// Instructions, events, records.
    pub totals: Totals,
    /// What software would read at the end, youngest first.
    pub last_stack: Vec<BranchEntry>,
}

/// Instructions, events and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
    /// Records pushed.
    pub pushes: u64,
    /// Records popped.
    pub pops: u64,
}

impl From<RunTotals> for Totals {
    fn from(totals: RunTotals) -> Self {
        let RunTotals {
            steps: _,
            instructions,
            events,
            pushes,
            pops,
        } = totals;
        Self {
            instructions,
            events,
            pushes,
            pops,
        }
    }
}

/// A trace, a programmed LBR and a counter, ready to run.
#[derive(Debug)]
pub struct Session<'t> {
    pub(crate) trace: &'t Trace,
    pub(crate) lbr: ProgrammedLbr,
    pub(crate) event: EventSelect,
    pub(crate) period: NonZeroU64,
    pub(crate) region: Region,
    jobs: usize,
    plan: Plan,
    rendered: Vec<Option<RenderedEntry>>,
    eager: Option<Vec<RawRecord>>,
    gated: Option<GatedSteps>,
    ordered: bool,
}

impl<'t> Session<'t> {
    /// Programs the LBR and the counter and decides for every step of `trace` what it does.
    ///
    /// In a trace of user code only, an event without privilege levels counts user code.
    ///
    /// # Errors
    /// perf or the device refuses the filter, or the processor lacks the event.
    pub fn new(trace: &'t Trace, options: SessionOptions) -> Result<Self, ReplayError> {
        let call_stack = options.branches.contains(BranchSampleType::CALL_STACK);
        let name = options.profile.name().to_owned();
        let mut event = options.event.unwrap_or_else(|| {
            EventSelect::both(if call_stack {
                Event::Instructions
            } else if Event::NearTaken.encoding(&name).is_some() {
                Event::NearTaken
            } else {
                Event::Branches
            })
        });
        if event.event.encoding(&name).is_none() {
            return Err(EventError::NotOnModel {
                event: event.event,
                profile: name,
            }
            .into());
        }
        if !event.explicit && (call_stack || trace.meta().scope == Scope::User) {
            event.kernel = false;
        }
        let default = if event.event == Event::Instructions {
            10_007
        } else {
            997
        };
        let period = options
            .period
            .or(NonZeroU64::new(default))
            .unwrap_or(NonZeroU64::MIN);
        let branches = with_event_privileges(options.branches, event.user, event.kernel);
        let lbr = ProgrammedLbr::new(&options.profile, options.device, branches)?;
        let code = trace.code();
        let plan = lbr.plan(code, Some(event)).map_err(DeviceError::Plan)?;
        let rendered = lbr.render(code);
        let eager = options.eager.then(|| {
            let raw = |entry: &Option<RenderedEntry>| {
                entry.map_or_else(RawRecord::default, |rendered| RawRecord {
                    from: rendered.entry.from,
                    to: rendered.entry.to,
                    info: rendered.entry.flags.to_word(),
                })
            };
            rendered.iter().map(raw).collect()
        });
        Ok(Self {
            trace,
            gated: GatedSteps::new(code, &lbr),
            ordered: options.ordered || lbr.needs_order(code),
            lbr,
            event,
            period,
            region: options.region,
            jobs: options.jobs,
            plan,
            rendered,
            eager,
        })
    }

    /// The event that is sampled.
    #[must_use]
    pub fn event(&self) -> EventSelect {
        self.event
    }

    /// Events between samples.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period.get()
    }

    /// The LBR.
    #[must_use]
    pub fn lbr(&self) -> &ProgrammedLbr {
        &self.lbr
    }

    /// The trace.
    #[must_use]
    pub fn trace(&self) -> &'t Trace {
        self.trace
    }

    /// Whether every transfer goes through the device in order, see
    /// [`ProgrammedLbr::needs_order`].
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Replays, and hands every sample to `consumer` in file order. `progress` is told the
    /// instructions done.
    ///
    /// # Errors
    /// The trace is damaged, or the consumer fails.
    pub fn run(
        &self,
        consumer: &mut dyn Consumer,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Summary, ReplayError> {
        if self.ordered {
            return ordered::run(self, consumer, progress);
        }
        let mut summary = Summary::default();
        let mut entries = Vec::with_capacity(32);
        let options = EngineOptions {
            event: self.event,
            gated: self.gated.as_ref(),
            period: Some(self.period.get()),
            region: self.region,
            jobs: self.jobs,
            eager: self.eager.as_deref(),
        };
        let threads = engine::run(self.trace, &self.plan, options, |result| {
            if result.begins {
                consumer.chunk(result.chunk, result.before)?;
            }
            result.for_each(|sample, references| {
                entries.clear();
                for &reference in references {
                    if !self.push_entry(reference, &mut entries, &mut summary) {
                        break;
                    }
                }
                self.hand_out(
                    consumer,
                    &mut summary,
                    sample,
                    result.thread,
                    result.before,
                    &entries,
                )
            })?;
            progress(result.before + result.totals.instructions);
            Ok::<(), ReplayError>(())
        })?;
        summary.threads = threads
            .iter()
            .map(|thread| self.thread_summary(thread))
            .collect();
        Ok(summary)
    }

    /// Appends what perf hands out for `reference`; false if perf stops reading here.
    fn push_entry(
        &self,
        reference: EntryRef,
        entries: &mut Vec<BranchEntry>,
        summary: &mut Summary,
    ) -> bool {
        let rendered = match reference.kind() {
            EntryKind::Step(step) => self.rendered[step.0 as usize],
            EntryKind::Empty | EntryKind::Incoming(_) => None,
        };
        match rendered {
            Some(RenderedEntry { entry, keep: true }) => entries.push(entry),
            // perf reads every slot, empty ones too, but ends a call stack at the first.
            None if self.stops_at_empty() => return false,
            None if !self.lbr.filter().software_filters() => entries.push(BranchEntry::default()),
            _ => summary.removed += 1,
        }
        true
    }

    /// Whether reading ends at the first empty entry: call stacks, architectural LBR.
    pub(crate) fn stops_at_empty(&self) -> bool {
        self.lbr.lbr().profile().is_arch()
            || self
                .lbr
                .filter()
                .sample_type()
                .contains(BranchSampleType::CALL_STACK)
    }

    /// Hands a sample of `thread` to the consumer.
    pub(crate) fn hand_out(
        &self,
        consumer: &mut dyn Consumer,
        summary: &mut Summary,
        sample: &Sample,
        thread: usize,
        before: u64,
        entries: &[BranchEntry],
    ) -> Result<(), ReplayError> {
        let info = &self.trace.threads()[thread];
        let process = &self.trace.processes()[info.process.0 as usize];
        let (ip, kernel) = self.interrupted(sample);
        let sample_type = self.lbr.filter().sample_type();
        let context = if kernel { CONTEXT_KERNEL } else { CONTEXT_USER };
        let chain = [context, ip];
        let depth = self.lbr.lbr().depth();
        summary.samples += 1;
        summary.entries += entries.len() as u64;
        summary.short += u64::from(entries.len() < depth);
        let system = self.trace.meta().scope == Scope::System;
        let record = SampleRecord {
            ip,
            pid: if system { 0 } else { process.pid },
            tid: if system { 0 } else { info.tid },
            time_ns: before + sample.instructions,
            cpu: info.vcpu.filter(|_| system).unwrap_or(0),
            period: self.period.get(),
            kernel,
            branches: entries,
            hw_idx: sample_type.contains(BranchSampleType::HW_INDEX).then(|| {
                // The architectural stack has no TOS; perf leaves the index 0.
                if self.lbr.lbr().profile().is_arch() {
                    0
                } else {
                    sample.net.rem_euclid(depth as i64) as u64
                }
            }),
            callchain: sample_type
                .contains(BranchSampleType::CALL_STACK)
                .then_some(chain.as_slice()),
        };
        consumer.sample(&record, sample)
    }

    /// Address of the instruction that would run next, and whether at CPL 0.
    fn interrupted(&self, sample: &Sample) -> (u64, bool) {
        let code = self.trace.code();
        let step = code.step(sample.step);
        let block = code.block(step.block);
        match step.exit {
            Exit::Taken { target, .. } | Exit::Event { target, .. } if sample.after_exit => {
                (target.address, target.cpl == Cpl::Ring0)
            }
            _ => (
                block.address_of(sample.retired),
                block.mode().cpl == Cpl::Ring0,
            ),
        }
    }

    fn thread_summary(&self, thread: &ThreadState) -> ThreadSummary {
        let mut last_stack = Vec::new();
        let mut ignored = Summary::default();
        for &reference in thread.stack.entries() {
            if !self.push_entry(reference, &mut last_stack, &mut ignored) {
                break;
            }
        }
        ThreadSummary {
            totals: thread.totals.into(),
            last_stack,
        }
    }
}
