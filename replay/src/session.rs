//! A replay as `perf record` would see it.

use std::num::NonZeroU64;

use thiserror::Error;
use vlbr_arch::Cpl;
use vlbr_cpu::run::{
    Counting, EntryKind, EntryRef, Frequency, MAX_COLUMNS, Pace, Plan, RawRecord, Sample, Schedule,
};
use vlbr_cpu::{Clock, Code, Exit, Feed, StepClock};
use vlbr_host::perf::{X86Br, with_event_privileges};
use vlbr_lbr::{Options, Profile, Record};
use vlbr_pmu::{EventSpec, Source, SourceSet};
use vlbr_traces::export::ExportError;
use vlbr_traces::perfdata::{
    BranchEntry, BranchSampleType, CONTEXT_KERNEL, CONTEXT_USER, SampleRecord,
};
use vlbr_traces::vlt::{Scope, Trace, VltError};

use crate::choice::{default_event, is_each_instruction, levels, pmu_of, without_clock};
use crate::counters::{
    Amounts, CounterError, CounterThread, EventListError, ProgrammedCounters, sampled_events,
};
use crate::device::{DeviceError, ProgrammedLbr, RenderedEntry};
use crate::engine::{self, EngineError, EngineOptions, ThreadState};
use crate::gate::GatedSteps;
use crate::ordered;
use crate::region::Region;
use crate::summary::{Consumer, Summary, ThreadSummary};
use crate::timing::Rates;

/// Why a replay failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The LBR cannot be programmed so.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The processor has no such event, or it cannot be counted.
    #[error(transparent)]
    Event(#[from] EventListError),
    /// An event to count cannot be.
    #[error(transparent)]
    EventName(#[from] vlbr_pmu::EventNameError),
    /// The counters cannot be programmed so.
    #[error(transparent)]
    Counters(#[from] CounterError),
    /// The LBR is of a part whose PMU is not known.
    #[error(
        "no PMU is known for the LBR of '{0}': neither the name nor a family and model of that \
         profile is one of `vlbr list`"
    )]
    NoPmu(String),
    /// An event of clocks, and no clock.
    #[error(
        "'{event}' counts clocks, which a trace does not have; --clock instructions lets one pass with \
         each instruction"
    )]
    NeedsClock {
        /// The event as given.
        event: String,
        /// What the counter says.
        #[source]
        refusal: vlbr_pmu::Refusal,
    },
    /// The kernel's part of an event, which the trace does not hold.
    #[error(
        "'{0}' at CPL 0 (modifier k) cannot be counted: the trace holds user code only; without \
         modifiers user code is counted"
    )]
    UserOnly(String),
    /// Options of the PMU ask for what is not fed.
    #[error("{0}; a trace feeds them with --clock instructions")]
    PmuOptions(#[from] vlbr_pmu::OptionsError),
    /// Steps do not come clock by clock.
    #[error("cycle_by_cycle: a trace has no clock by which steps could be counted")]
    CycleByCycle,
    /// A session made for a timing model, or not made for one, was run the other way.
    #[error("a timing model is needed exactly where the session was made for one")]
    NoClock,
    /// Both a period and a frequency.
    #[error("a period and a frequency exclude each other")]
    PeriodAndFrequency,
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
    /// The PMU; `None`: the known one of the same name, or else of the same family and model.
    pub pmu: Option<vlbr_pmu::Profile>,
    /// Open points and quirks of the PMU, skid among them. What is fed the session decides.
    pub counters: vlbr_pmu::Options,
    /// Whether clocks can be counted. With [`Clock::Model`] only [`Session::run_with`] runs.
    pub clock: Clock,
    /// Branch filter. Without privilege levels it takes those of the event.
    pub branches: BranchSampleType,
    /// The event, or `{LEADER,EVENT,...}:S`, see [`crate::sampled_events`]; `None`:
    /// `br_inst_retired.near_taken` where the processor has it, else its event of all taken branches,
    /// else `branches`; with a call-stack filter `instructions`.
    pub event: Option<String>,
    /// Events between samples; `None`: 997, of instructions and clocks 10,007.
    pub period: Option<NonZeroU64>,
    /// Samples a second instead of a period.
    pub frequency: Option<NonZeroU64>,
    /// Part of the trace.
    pub region: Region,
    /// Threads; 0 means all cores.
    pub jobs: usize,
    /// Write whole records at once instead of references.
    pub eager: bool,
    /// Send every transfer through the device in order even where that changes nothing: slow, to
    /// compare the hot loop with the device.
    pub ordered: bool,
    /// How fast clocks of a timing model run.
    pub rates: Rates,
    /// Instructions of each thread that run, and are recorded by its LBR, before anything is counted or
    /// sampled, to the end of the step that holds the last of them.
    pub warmup: u64,
}

impl SessionOptions {
    /// `-b` on `profile`.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            device: Options::default(),
            pmu: None,
            counters: vlbr_pmu::Options::default(),
            clock: Clock::None,
            branches: BranchSampleType::ANY,
            event: None,
            period: None,
            frequency: None,
            region: Region::whole(),
            jobs: 0,
            eager: false,
            ordered: false,
            rates: Rates::default(),
            warmup: 0,
        }
    }

    /// The PMU and its options for a trace with this code.
    ///
    /// # Errors
    /// No PMU is known, or the options ask for what a trace does not feed.
    pub fn pmu(&self, code: &Code) -> Result<(vlbr_pmu::Profile, vlbr_pmu::Options), ReplayError> {
        let pmu = match &self.pmu {
            Some(pmu) => pmu.clone(),
            None => pmu_of(&self.profile)?,
        };
        let options = vlbr_pmu::Options {
            feeds: Feed::sources(code, self.clock),
            tsx: self.counters.tsx.or(self.device.tsx),
            ..self.counters.clone()
        };
        if options.cycle_by_cycle {
            return Err(ReplayError::CycleByCycle);
        }
        options.check()?;
        Ok((pmu, options))
    }
}

/// A trace, a programmed LBR and programmed counters, ready to run.
#[derive(Debug)]
pub struct Session<'t> {
    pub(crate) trace: &'t Trace,
    pub(crate) lbr: ProgrammedLbr,
    pub(crate) counters: ProgrammedCounters,
    pub(crate) counting: Counting,
    pub(crate) feed: Feed<'t>,
    pub(crate) plan: Plan,
    /// `None`: nothing is sampled.
    pub(crate) pace: Option<Pace>,
    pub(crate) region: Region,
    jobs: usize,
    rendered: Vec<Option<RenderedEntry>>,
    /// What perf reads of an entry that nothing was recorded in.
    empty: BranchEntry,
    eager: Option<Vec<RawRecord>>,
    gated: Option<GatedSteps>,
    ordered: bool,
    pub(crate) rates: Rates,
    /// Instructions of each thread that only warm up.
    pub(crate) warmup: u64,
}

/// A sample with what was read at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    /// `instructions` counts from the start of what `before` ends with.
    pub(crate) sample: &'a Sample,
    pub(crate) thread: usize,
    /// Time of the trace, in file order.
    pub(crate) time_ns: u64,
    pub(crate) entries: &'a [BranchEntry],
    pub(crate) amounts: &'a Amounts,
}

/// Samples of instructions or clocks come every so many by default, others every
/// [`DEFAULT_PERIOD`].
const DEFAULT_INSTRUCTIONS: u64 = 10_007;
const DEFAULT_PERIOD: u64 = 997;

impl<'t> Session<'t> {
    /// Programs the LBR and the counters and decides for every step of `trace` what it does.
    ///
    /// In a trace of user code only, an event without privilege levels counts user code.
    ///
    /// # Errors
    /// perf or the device refuses the filter or the event, or the processor lacks it.
    pub fn new(trace: &'t Trace, options: SessionOptions) -> Result<Self, ReplayError> {
        let call_stack = options.branches.contains(BranchSampleType::CALL_STACK);
        let (pmu, pmu_options) = options.pmu(trace.code())?;
        let mut events = match &options.event {
            Some(text) => sampled_events(&pmu, text, &pmu_options)
                .map_err(|error| without_clock(text, error))?,
            None => vec![default_event(&pmu, &pmu_options, call_stack)?],
        };
        levels(&mut events, call_stack, trace.meta().scope)?;
        let leader = &events[0];
        let pace = match (leader.period.or(options.period), options.frequency) {
            (Some(_), Some(_)) => return Err(ReplayError::PeriodAndFrequency),
            (None, Some(hertz)) => Pace::Frequency(Frequency::new(hertz.get())),
            (Some(period), None) => Pace::Period(period.get()),
            (None, None) if is_each_instruction(leader.sources) => {
                Pace::Period(DEFAULT_INSTRUCTIONS)
            }
            (None, None) => Pace::Period(DEFAULT_PERIOD),
        };
        let branches = with_event_privileges(options.branches, leader.user, leader.kernel);
        let lbr = ProgrammedLbr::new(&options.profile, options.device.clone(), branches)?;
        let period = Some(pace.period());
        let counters =
            ProgrammedCounters::new(lbr.lbr(), &pmu, pmu_options, events, period, options.clock)?;
        Self::of(trace, lbr, counters, Some(pace), &options)
    }

    /// A session that counts `events` and samples nothing. `options.branches` is the filter of the
    /// LBR, which matters to LBR_INSERTS; without privilege levels it records at all of them.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn counting(
        trace: &'t Trace,
        options: &SessionOptions,
        mut events: Vec<EventSpec>,
    ) -> Result<Self, ReplayError> {
        let (pmu, pmu_options) = options.pmu(trace.code())?;
        let user = trace.meta().scope == Scope::User;
        levels(&mut events, false, trace.meta().scope)?;
        let branches = with_event_privileges(options.branches, true, !user);
        let lbr = ProgrammedLbr::new(&options.profile, options.device.clone(), branches)?;
        let counters =
            ProgrammedCounters::new(lbr.lbr(), &pmu, pmu_options, events, None, options.clock)?;
        Self::of(trace, lbr, counters, None, options)
    }

    fn of(
        trace: &'t Trace,
        lbr: ProgrammedLbr,
        counters: ProgrammedCounters,
        pace: Option<Pace>,
        options: &SessionOptions,
    ) -> Result<Self, ReplayError> {
        let code = trace.code();
        let counting = counters.counting();
        let plan = lbr.plan(code, &counting).map_err(DeviceError::Plan)?;
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
        let gated = GatedSteps::new(code, &lbr);
        // Which records there are then depends on the registers, and so does their number; that of
        // the removed ones depends on whether there is one.
        let counts_inserts = counting.sources().contains(Source::LbrInserts);
        let empty_pops = lbr.lbr().options().inserts_count_empty_pops;
        let unsure = gated.is_some() || counting.pops_are_inserts && plan.pops() && !empty_pops;
        let ordered = options.ordered
            || lbr.needs_order(code)
            || !counters.is_foretold()
            || options.warmup > 0
            || counts_inserts && unsure;
        Ok(Self {
            trace,
            gated,
            ordered,
            empty: lbr.read(&Record::default(), X86Br::NONE).entry,
            feed: Feed::new(code, counting.sources(), options.clock),
            lbr,
            counters,
            counting,
            pace,
            region: options.region,
            jobs: options.jobs,
            plan,
            rendered,
            eager,
            rates: options.rates,
            warmup: options.warmup,
        })
    }

    /// The event that is sampled, or the first that is counted.
    #[must_use]
    pub fn event(&self) -> &EventSpec {
        &self.counters.events()[0]
    }

    /// Whether every instruction is an event of the sampled counter.
    pub(crate) fn samples_each_instruction(&self) -> bool {
        self.event().sources == SourceSet::of(Source::Instructions)
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &ProgrammedCounters {
        &self.counters
    }

    /// Events between samples, as they are at the start; `None`: nothing is sampled.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        self.pace
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
        if self.is_modelled() {
            return Err(ReplayError::NoClock);
        }
        if self.ordered {
            return ordered::run(self, consumer, progress);
        }
        let mut summary = Summary::default();
        let mut entries = Vec::with_capacity(32);
        let mut counted = vec![CounterThread::new(&self.counters); self.trace.threads().len()];
        let options = EngineOptions {
            event: self.counting.sampled,
            gated: self.gated.as_ref(),
            schedule: self.pace.map(|pace| Schedule {
                first: pace.period(),
                pace,
            }),
            region: self.region,
            jobs: self.jobs,
            eager: self.eager.as_deref(),
        };
        let threads = engine::run(self.trace, &self.plan, options, |result| {
            if result.begins {
                consumer.chunk(result.chunk, result.before)?;
            }
            result.for_each(|sample, references, counts| {
                let instructions = result.thread_before.instructions + sample.instructions;
                let amounts = self.amounts(sample, instructions, counts);
                counted[result.thread].sample(
                    &self.counters,
                    result.thread,
                    &amounts,
                    sample.next_period,
                )?;
                entries.clear();
                for &reference in references {
                    if !self.push_entry(reference, &mut entries, &mut summary) {
                        break;
                    }
                }
                let taken = Taken {
                    sample,
                    thread: result.thread,
                    time_ns: result.before + sample.instructions,
                    entries: &entries,
                    amounts: &amounts,
                };
                self.hand_out(consumer, &mut summary, &taken)
            })?;
            progress(result.before + result.totals.instructions);
            Ok::<(), ReplayError>(())
        })?;
        for (number, (thread, counter)) in threads.iter().zip(&mut counted).enumerate() {
            let mut amounts = Amounts {
                instructions: thread.totals.instructions,
                ..Amounts::default()
            };
            let others = &thread.totals.counts;
            match self.pace {
                Some(_) => {
                    amounts.events[0] = thread.totals.events;
                    amounts.events[1..].copy_from_slice(&others[..MAX_COLUMNS - 1]);
                }
                None => amounts.events = *others,
            }
            counter.finish(&self.counters, number, &amounts)?;
            summary.threads.push(self.thread_summary(thread, &amounts));
        }
        Ok(summary)
    }

    /// Replays in order with a clock for each thread, which begins as `clock`. The session must have been
    /// made with [`Clock::Model`].
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_with<C: StepClock>(
        &self,
        clock: &C,
        consumer: &mut dyn Consumer,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Summary, ReplayError> {
        if !self.is_modelled() {
            return Err(ReplayError::NoClock);
        }
        ordered::run_with(self, clock, consumer, progress)
    }

    fn is_modelled(&self) -> bool {
        matches!(self.counting.clock, Clock::Model { .. })
    }

    /// What every counter has come to at a sample, from the start of its thread. `counts` are those
    /// of the counters that are not sampled, before the step of the sample.
    fn amounts(&self, sample: &Sample, instructions: u64, counts: &[u64]) -> Amounts {
        let mut amounts = Amounts {
            instructions,
            ..Amounts::default()
        };
        amounts.events[0] = sample.events;
        if counts.is_empty() {
            return amounts;
        }
        let inserts = self.counting.inserts(self.plan.op(sample.step));
        let part = match sample.retired.checked_sub(1) {
            Some(last) if !sample.after_exit => self.feed.through(sample.step, last, inserts),
            _ => self.feed.step(sample.step, inserts),
        };
        let others = counts.iter().zip(&self.counting.others);
        for (amount, (count, selector)) in amounts.events[1..].iter_mut().zip(others) {
            *amount = count + selector.amount(&part);
        }
        amounts
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
            None if !self.lbr.filter().software_filters() => entries.push(self.empty),
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

    /// Hands a sample to the consumer.
    pub(crate) fn hand_out(
        &self,
        consumer: &mut dyn Consumer,
        summary: &mut Summary,
        taken: &Taken<'_>,
    ) -> Result<(), ReplayError> {
        let Taken {
            sample,
            thread,
            time_ns,
            entries,
            amounts,
        } = *taken;
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
            time_ns,
            cpu: info.vcpu.filter(|_| system).unwrap_or(0),
            period: sample.period,
            kernel,
            branches: entries,
            counts: match self.counters.events().len() {
                1 => &[],
                events => &amounts.events[..events],
            },
            instance: thread as u32,
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

    fn thread_summary(&self, thread: &ThreadState, amounts: &Amounts) -> ThreadSummary {
        let mut last_stack = Vec::new();
        let mut ignored = Summary::default();
        for &reference in thread.stack.entries() {
            if !self.push_entry(reference, &mut last_stack, &mut ignored) {
                break;
            }
        }
        ThreadSummary {
            totals: thread.totals.into(),
            counts: amounts.events[..self.counters.events().len()].to_vec(),
            last_stack,
            cycles: None,
            slots: None,
        }
    }
}
