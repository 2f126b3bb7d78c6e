//! A replay as `perf record` would see it.

use vlbr_arch::{Cpl, Cycles};
use vlbr_cpu::run::{
    Costs, Counting, EntryKind, EntryRef, Frequency, MAX_COLUMNS, Pace, Plan, RawRecord,
    RecordTimes, Sample, Schedule,
};
use vlbr_cpu::{Clock, Exit, Feed, StepClock};
use vlbr_host::perf::{X86Br, with_event_privileges};
use vlbr_lbr::Record;
use vlbr_pmu::{EventSpec, Source, SourceSet};
use vlbr_timing::{PARTS, StepModel, retired_at};
use vlbr_traces::perfdata::{
    BranchEntry, BranchSampleType, CONTEXT_KERNEL, CONTEXT_USER, SampleRecord,
};
use vlbr_traces::vlt::{Scope, Trace};

use crate::choice::{default_event, is_each_instruction, levels, without_clock};
use crate::counters::{Amounts, CounterThread, ProgrammedCounters, sampled_events};
use crate::device::{DeviceError, ProgrammedLbr, RenderedEntry};
use crate::engine::{self, EngineOptions, ThreadState};
use crate::error::ReplayError;
use crate::gate::GatedSteps;
use crate::options::SessionOptions;
use crate::ordered;
use crate::region::Region;
use crate::summary::{Consumer, Summary, ThreadSummary};
use crate::timing::{TimingOptions, describe};

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
    /// Every record is made, whether anybody looks at it or not.
    pub(crate) literal: bool,
    pub(crate) timing: TimingOptions,
    pub(crate) tell_branches: bool,
    pub(crate) model: StepModel,
    /// Largest cycle count that perf hands out, 0 if none.
    cycle_limit: u16,
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

const CLOCKS: SourceSet =
    SourceSet::of(Source::CoreCycles).with(SourceSet::of(Source::ReferenceCycles));

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
        let counters = ProgrammedCounters::new(
            lbr.lbr(),
            &pmu,
            pmu_options,
            events,
            period,
            options.clock()?,
        )?;
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
            ProgrammedCounters::new(lbr.lbr(), &pmu, pmu_options, events, None, options.clock()?)?;
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
        let mut counting = counters.counting();
        let model = options.timing.model(&options.profile, code)?;
        let gated = GatedSteps::new(code, &lbr);
        let cycle_limit = lbr.cycle_limit(code);
        let call_stack = options.branches.contains(BranchSampleType::CALL_STACK);
        // The hot loop knows the time of samples and of records that are not popped, nothing else.
        let follows = matches!(pace, Some(Pace::Frequency(_)));
        let counts_clocks = counting.sources().without(CLOCKS) != counting.sources();
        let in_order = matches!(model, StepModel::Scoreboard { .. })
            || follows
            || gated.is_some()
            || call_stack && cycle_limit > 0
            || counts_clocks;
        let timed_in_order = !matches!(model, StepModel::None) && in_order;
        if let (StepModel::Bound { bounds, .. }, false) = (&model, in_order) {
            counting.costs = Some(Costs {
                steps: bounds.costs(),
                records: cycle_limit > 0,
            });
        }
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
        // Which records there are then depends on the registers, and so does their number; that of
        // the removed ones depends on whether there is one.
        let counts_inserts = counting.sources().contains(Source::LbrInserts);
        let empty_pops = lbr.lbr().options().inserts_count_empty_pops;
        let unsure = gated.is_some() || counting.pops_are_inserts && plan.pops() && !empty_pops;
        let ordered = options.ordered
            || lbr.needs_order(code)
            || !counters.is_foretold()
            || options.timing.warmup > 0
            || timed_in_order
            || options.tell_branches
            || counts_inserts && unsure;
        Ok(Self {
            trace,
            gated,
            ordered,
            literal: options.ordered,
            empty: lbr.read(&Record::default(), X86Br::NONE).entry,
            feed: Feed::new(code, counting.sources(), counting.clock),
            lbr,
            counters,
            counting,
            pace,
            region: options.region,
            jobs: options.jobs,
            plan,
            rendered,
            eager,
            timing: options.timing.clone(),
            tell_branches: options.tell_branches,
            model,
            cycle_limit,
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

    /// The timing model in words, if there is one: what must stand beside every time.
    #[must_use]
    pub fn timing(&self) -> Option<String> {
        describe(&self.model, self.timing.rates)
    }

    /// Instructions of each thread before anything is counted or sampled.
    #[must_use]
    pub fn warmup(&self) -> u64 {
        self.timing.warmup
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

    /// Whether transfers go through the device in order, see [`ProgrammedLbr::needs_order`]. Of plain ones whose records
    /// nobody can look at only their number does, unless [`crate::SessionOptions::ordered`] asks for all.
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
        match &self.model {
            StepModel::None if self.is_modelled() => return Err(ReplayError::NoClock),
            StepModel::None if self.ordered => return ordered::run(self, consumer, progress),
            StepModel::Bound { bounds, .. } if self.ordered => {
                return ordered::run_with(self, &bounds.clock(), consumer, progress);
            }
            StepModel::Scoreboard { programs, .. } => {
                return ordered::run_with(self, &programs.clock(), consumer, progress);
            }
            StepModel::None | StepModel::Bound { .. } => {}
        }
        let mut summary = Summary::default();
        let mut clocks = 0;
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
            let start = self.clock_of(&result.thread_before.counts);
            let time = |now: Option<Cycles>, instructions: u64| match now.zip(start) {
                Some((now, start)) => {
                    let now = Cycles::new(clocks + now.since(start));
                    self.timing.rates.nanoseconds(now)
                }
                None => result.before + instructions,
            };
            if result.begins {
                consumer.chunk(result.chunk, time(start, 0))?;
            }
            result.for_each(|resolved| {
                let sample = &resolved.sample;
                let instructions = result.thread_before.instructions + sample.instructions;
                let amounts = self.amounts(sample, instructions, resolved.counts);
                counted[result.thread].sample(
                    &self.counters,
                    result.thread,
                    &amounts,
                    sample.next_period,
                )?;
                entries.clear();
                self.push_entries(
                    resolved.entries,
                    &resolved.times,
                    &mut entries,
                    &mut summary,
                );
                let taken = Taken {
                    sample,
                    thread: result.thread,
                    time_ns: time(
                        self.sampled_at(sample, resolved.counts),
                        sample.instructions,
                    ),
                    entries: &entries,
                    amounts: &amounts,
                };
                self.hand_out(consumer, &mut summary, &taken)
            })?;
            if let Some(start) = start {
                let mut counts = result.thread_before.counts;
                for (count, more) in counts.iter_mut().zip(result.totals.counts) {
                    *count += more;
                }
                clocks += self.clock_of(&counts).map_or(0, |end| end.since(start));
            }
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

    /// The clock of a thread for which the other counters have counted `counts`, if the hot loop keeps
    /// it.
    fn clock_of(&self, counts: &[u64]) -> Option<Cycles> {
        let parts = counts.get(self.plan.time_column()?)?;
        Some(Cycles::new(parts / PARTS))
    }

    /// The clock of its thread at a sample before whose step the other counters had counted `counts`.
    fn sampled_at(&self, sample: &Sample, counts: &[u64]) -> Option<Cycles> {
        let before = *counts.get(self.plan.time_column()?)?;
        let cost = self.plan.cost(sample.step);
        let retired = self.trace.code().step(sample.step).retired;
        let parts = match sample.retired.checked_sub(1) {
            Some(last) if !sample.after_exit => retired_at(before, cost, retired, last),
            _ => before + u64::from(cost),
        };
        Some(Cycles::new(parts / PARTS))
    }

    /// Appends what perf hands out for the entries of a stack, youngest first, whose records were made
    /// at `times`.
    fn push_entries(
        &self,
        references: &[EntryRef],
        times: &RecordTimes,
        entries: &mut Vec<BranchEntry>,
        summary: &mut Summary,
    ) {
        let times = times.known();
        for (number, &reference) in references.iter().enumerate() {
            let kept = entries.len();
            if !self.push_entry(reference, entries, summary) {
                break;
            }
            if let (Some(entry), Some(&[now, before])) = (
                entries.get_mut(kept),
                times.get(number..).and_then(|t| t.first_chunk()),
            ) {
                let elapsed = now / PARTS - before / PARTS;
                entry.flags.cycles = elapsed.min(self.cycle_limit.into()) as u16;
            }
        }
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
        let entries = thread.stack.entries();
        self.push_entries(entries, &thread.times, &mut last_stack, &mut ignored);
        ThreadSummary {
            totals: thread.totals.into(),
            counts: amounts.events[..self.counters.events().len()].to_vec(),
            last_stack,
            cycles: self.clock_of(&thread.totals.counts).map(Cycles::value),
            slots: None,
        }
    }
}
