//! One thread's processor on the ordered road.

use vlbr_arch::Cycles;
use vlbr_cpu::processor::LogicalProcessor;
use vlbr_cpu::run::{MAX_COLUMNS, Pace, Plan, Tally};
use vlbr_cpu::{Code, Slots, StepClock, StepId, StepTime};
use vlbr_pmu::{Device, SourceSet};

use super::passed::{Passed, Usual};
use super::waiting::Waiting;
use crate::counters::{Amounts, CounterError, ProgrammedCounters, read, width};
use crate::error::ReplayError;
use crate::session::Session;
use crate::summary::Totals;

/// No time passes, and mispredictions are those of the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untimed;

impl StepClock for Untimed {
    #[inline]
    fn retire(&mut self, code: &Code, step: StepId) -> StepTime {
        StepTime {
            end: Cycles::new(0),
            mispredicted: code.transfer(step).is_some_and(|t| t.mispredicted),
        }
    }

    #[inline]
    fn retired_at(&self, _index: u16) -> Cycles {
        Cycles::new(0)
    }

    fn pass(&mut self, _until: Cycles) {}
}

/// A thread's devices, its clock, and what its counters have not been given yet.
#[derive(Clone)]
pub(super) struct Thread<C> {
    pub(super) cpu: LogicalProcessor,
    pub(super) clock: C,
    pub(super) totals: Totals,
    /// What the device's counters have counted, as of the last look at them.
    pub(super) amounts: Amounts,
    /// What they read then, or were loaded with since.
    pub(super) values: [u64; MAX_COLUMNS],
    pub(super) pace: Option<Pace>,
    /// Events of the sampled counter before the one that may overflow it, by the device's horizon; means nothing
    /// while a PMI is `due`.
    /// Those of the steps that were lent are not off it yet, see [`Thread::reclaim`].
    pub(super) clear: u64,
    /// A PMI waits, which each instruction brings nearer, as of the last look.
    pub(super) due: bool,
    /// Steps that retired whole and that the counters have not been given, by whether their branch
    /// was mispredicted.
    pub(super) tally: Tally,
    /// Clocks until `told`.
    pub(super) passed: Passed,
    /// What the steps since `told` were.
    pub(super) usual: Usual,
    pub(super) told: Cycles,
    /// Time at the last boundary.
    pub(super) now: Cycles,
    /// See [`may_wait`].
    may_wait: bool,
    /// Steps may wait for the counters now.
    pub(super) waits: bool,
    /// Plain records may wait for the LBR, which stands as it is programmed.
    pub(super) defers: bool,
    pub(super) waiting: Waiting,
    /// Instructions that are left of the warm-up.
    pub(super) warming: u64,
    /// Time and slots when the warm-up ended.
    pub(super) start: (Cycles, Option<Slots>),
}

impl<C: StepClock> Thread<C> {
    pub(super) fn new(session: &Session<'_>, clock: &C) -> Self {
        let mut this = Self {
            cpu: session.counters.processor().clone(),
            clock: clock.clone(),
            totals: Totals::default(),
            amounts: Amounts::default(),
            values: [0; MAX_COLUMNS],
            pace: session.pace,
            clear: 0,
            due: false,
            tally: Tally::default(),
            passed: Passed::default(),
            usual: Usual::NOTHING,
            told: Cycles::new(0),
            now: Cycles::new(0),
            may_wait: may_wait(session),
            waits: false,
            defers: false,
            waiting: Waiting::new(),
            warming: session.timing.warmup,
            start: (Cycles::new(0), clock.slots()),
        };
        this.look();
        this.watch(session);
        this.values = values(&this.cpu, &session.counters);
        this
    }

    /// Reads the counters. What they have counted since the last time is less than they can hold.
    pub(super) fn read(&mut self, session: &Session<'_>) {
        let programmed = &session.counters;
        let now = values(&self.cpu, programmed);
        let profile = self.cpu.pmu().profile();
        for (index, &counter) in programmed.counters().iter().enumerate() {
            let counted = now[index].wrapping_sub(self.values[index]);
            self.amounts.events[index] += counted & u64::MAX >> (64 - width(profile, counter));
        }
        self.values = now;
        if programmed.sampled.is_some() {
            self.totals.events = self.amounts.events[0];
        }
    }

    /// Whether steps and their records may wait, as things are now.
    pub(super) fn watch(&mut self, session: &Session<'_>) {
        self.waits = self.warming == 0 && self.may_wait && !self.due;
        let programmed = session.counters.processor().lbr();
        self.defers = !session.literal && self.cpu.lbr().judges_as(programmed);
        self.usual.set(self.usual.kind(), self.defers);
    }

    /// Lets steps be added unlooked, as many as no counter can overflow in.
    pub(super) fn lend(&mut self, plans: [&Plan; 2]) {
        self.reclaim(plans);
        self.tally.lend(plans, self.clear);
        self.told = self.now;
    }

    /// From now on every step is looked at; what those were that were not is known.
    pub(super) fn reclaim(&mut self, plans: [&Plan; 2]) {
        self.clear = self.clear.saturating_sub(self.tally.reclaim(plans));
        self.tell();
    }

    /// The clocks since they were told pass for the steps since then.
    pub(super) fn tell(&mut self) {
        let clocks = self.now.since(self.told);
        self.passed.add(self.usual.kind(), clocks, clocks);
        self.told = self.now;
    }

    /// Asks the device how far it may count unlooked.
    pub(super) fn look(&mut self) {
        let horizon = self.cpu.pmu().horizon();
        let limits = horizon.limits.iter().map(|limit| limit.events);
        self.clear = limits.min().unwrap_or(u64::MAX).saturating_sub(1);
        self.due = horizon.delivery.is_some();
    }

    /// Gives the counters the steps that wait; returns their instructions. They lie before the
    /// horizon, so that nothing interrupts.
    pub(super) fn settle(
        &mut self,
        session: &Session<'_>,
        number: usize,
        plans: [&Plan; 2],
    ) -> Result<u64, ReplayError> {
        let programmed = &session.counters;
        let first = usize::from(programmed.sampled.is_some());
        self.reclaim(plans);
        let sums = self.tally.take(plans);
        if sums.steps == 0 {
            return Ok(0);
        }
        let instructions = sums.instructions;
        let mut events = [0; MAX_COLUMNS];
        if first > 0 {
            events[0] = sums.events;
        }
        for (event, count) in events[first..].iter_mut().zip(sums.counts) {
            *event += count;
        }
        let passed = std::mem::take(&mut self.passed);
        let counting = &session.counting;
        let selectors = counting.sampled.iter().chain(&counting.others);
        for (event, selector) in events.iter_mut().zip(selectors) {
            *event += passed.amount(selector);
        }
        let mut amounts = [0; MAX_COLUMNS];
        for (amount, &event) in amounts.iter_mut().zip(&programmed.active) {
            *amount = events[event];
        }
        let amounts = &amounts[..programmed.active.len()];
        let outcome = self
            .cpu
            .retire_amounts(amounts, instructions, passed.core())
            .map_err(CounterError::from)?;
        if outcome.pmi.is_some() {
            let events = self.amounts.events[0].saturating_add(events[0]);
            let thread = number;
            return Err(CounterError::Overflow { thread, events }.into());
        }
        self.amounts.instructions += instructions;
        Ok(instructions)
    }
}

/// Whether the sums of steps tell the counters of `session` enough: LBR_INSERTS is counted by the LBR
/// itself, and a counter whose events stand in the records acts on each of them.
fn may_wait(session: &Session<'_>) -> bool {
    let inserts = SourceSet::of(vlbr_pmu::Source::LbrInserts);
    let sources = session.counting.sources();
    let mut events = session.counters.events().iter();
    sources.without(inserts) == sources
        && events.all(|event| !event.select.contains(vlbr_arch::PerfEvtSel::LBR_LOG))
}

/// What the counters read, by event.
pub(super) fn values(
    cpu: &LogicalProcessor,
    programmed: &ProgrammedCounters,
) -> [u64; MAX_COLUMNS] {
    let mut values = [0; MAX_COLUMNS];
    for (value, &counter) in values.iter_mut().zip(programmed.counters()) {
        *value = read(cpu, counter);
    }
    values
}
