//! Steps through the devices of a thread.

mod steps;

use rustc_hash::FxHashMap;
use vlbr_arch::{Cycles, Transfer};
use vlbr_cpu::processor::{Boundary, LogicalProcessor, Nothing};
use vlbr_cpu::run::{Op, Plan, Sample};
use vlbr_cpu::{Code, Inserts, StepClock, StepId, StepTime};
use vlbr_host::perf::X86Br;
use vlbr_lbr::{Record, Verdict};
use vlbr_pmu::{Increments, Selector, Source, SourceSet};
use vlbr_traces::perfdata::BranchEntry;

use super::passed::{Kind, Passed};
use super::thread::{Thread, values};
use crate::counters::handle;
use crate::error::ReplayError;
use crate::misses::StepMisses;
use crate::session::{Session, Taken};
use crate::summary::{Consumer, Summary, ThreadSummary, Totals};

/// Where in a step a boundary lies.
#[derive(Clone, Copy)]
struct At {
    step: StepId,
    retired: u16,
    after_exit: bool,
    now: Cycles,
}

/// What is the same for all threads, and the place in the file.
pub(super) struct Road<'a, const TIMED: bool> {
    session: &'a Session<'a>,
    code: &'a Code,
    types: FxHashMap<(u64, u64, bool), X86Br>,
    kinds: Vec<Kind>,
    /// What steps add up to, by whether their branch was mispredicted.
    plans: [&'a Plan; 2],
    /// Core clocks pass as fast as those of the TSC.
    same_rate: bool,
    /// Core clocks pass as fast as those of the TSC, and no clock is sampled.
    plain_clocks: bool,
    /// What is sampled, if clocks are among it.
    sampled_clocks: Option<Selector>,
    consumer: &'a mut dyn Consumer,
    /// How often each step retired in the chunk, by whether its branch was mispredicted; empty if nobody
    /// asks.
    ran: Vec<[u64; 2]>,
    summary: Summary,
    /// Instructions before the chunk, and of it.
    before: u64,
    done: u64,
    /// Core clocks before the chunk, in file order.
    clocks_before: u64,
    /// Time of the chunk's thread at its start.
    chunk_start: Cycles,
    thread: usize,
}

impl<'a, const TIMED: bool> Road<'a, TIMED> {
    pub(super) fn new(
        session: &'a Session<'a>,
        consumer: &'a mut dyn Consumer,
        plans: [&'a Plan; 2],
    ) -> Self {
        let code = session.trace.code();
        let misses = session
            .tell_branches
            .then(|| StepMisses::new(session.trace));
        let ran = match misses {
            Some(_) => vec![[0; 2]; code.steps().len()],
            None => Vec::new(),
        };
        let steps = (0..code.steps().len() as u32).map(StepId);
        let clocks: SourceSet = [Source::CoreCycles, Source::ReferenceCycles]
            .into_iter()
            .collect();
        let programmed = session.counters.processor().lbr();
        let rates = session.timing.rates;
        let same_rate = rates.core_mhz == rates.tsc_mhz;
        let has_clocks = |one: &Selector| one.sources.without(clocks) != one.sources;
        let sampled_clocks = session.counting.sampled.filter(has_clocks);
        Self {
            session,
            code,
            types: session.lbr.types(code),
            kinds: steps.map(|id| Kind::of(code, id, programmed)).collect(),
            plans,
            same_rate,
            plain_clocks: same_rate && sampled_clocks.is_none(),
            sampled_clocks,
            consumer,
            ran,
            summary: Summary {
                misses,
                threads: vec![ThreadSummary::default(); session.trace.threads().len()],
                ..Summary::default()
            },
            before: 0,
            done: 0,
            clocks_before: 0,
            chunk_start: Cycles::new(0),
            thread: 0,
        }
    }

    /// The process of the chunk's thread.
    fn process(&self) -> usize {
        let threads = self.session.trace.threads();
        threads[self.thread].process.0 as usize
    }

    /// Instructions done.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    pub(super) fn begin_chunk(
        &mut self,
        thread: usize,
        chunk: usize,
        now: Cycles,
    ) -> Result<(), ReplayError> {
        self.thread = thread;
        self.chunk_start = now;
        self.done = 0;
        let time = self.time(now);
        self.consumer.chunk(chunk, time)
    }

    /// Ends a chunk, which has the steps of `map`.
    pub(super) fn end_chunk<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        map: &[StepId],
    ) -> Result<(), ReplayError> {
        self.settle(thread)?;
        let process = self.process();
        if let Some(misses) = &mut self.summary.misses {
            for &step in map {
                misses.add(
                    process,
                    step,
                    std::mem::take(&mut self.ran[step.0 as usize]),
                );
            }
        }
        self.before += self.done;
        self.clocks_before += thread.now.since(self.chunk_start);
        Ok(())
    }

    /// Sums up thread `number`.
    pub(super) fn end_thread<C: StepClock>(&mut self, number: usize, mut thread: Thread<C>) {
        thread.read(self.session);
        let mut last_stack = Vec::new();
        self.stack(&thread.cpu, &mut last_stack, &mut Summary::default());
        let events = self.session.counters.events().len();
        let (start, slots) = thread.start;
        let now = thread.clock.slots();
        self.summary.threads[number] = ThreadSummary {
            totals: thread.totals,
            counts: thread.amounts.events[..events].to_vec(),
            last_stack,
            cycles: TIMED.then(|| thread.now.since(start)),
            slots: now.zip(slots).map(|(now, start)| now - start),
        };
    }

    /// The sums, with those of the threads.
    pub(super) fn finish(self) -> Summary {
        self.summary
    }

    /// Nanoseconds of the trace at `now` of the thread: its chunks run one behind the other.
    fn time(&self, now: Cycles) -> u64 {
        if TIMED {
            let clocks = self.clocks_before + now.since(self.chunk_start);
            self.session.timing.rates.nanoseconds(Cycles::new(clocks))
        } else {
            self.before + self.done
        }
    }

    fn settle<C: StepClock>(&mut self, thread: &mut Thread<C>) -> Result<(), ReplayError> {
        self.give_records(thread);
        let instructions = thread.settle(self.session, self.thread, self.plans)?;
        self.done += instructions;
        thread.totals.instructions += instructions;
        Ok(())
    }

    /// Gives the LBR the records that wait.
    fn give_records<C: StepClock>(&self, thread: &mut Thread<C>) {
        let lbr = thread.cpu.lbr_mut();
        thread.totals.pushes += thread.waiting.give(lbr, self.code, &self.kinds);
    }

    /// A step that does not wait for the counters.
    #[cold]
    fn step_alone<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        id: StepId,
        time: StepTime,
    ) -> Result<(), ReplayError> {
        if thread.warming > 0 {
            self.warm_up(thread, id, time);
            return Ok(());
        }
        self.settle(thread)?;
        self.looked_at(thread, id, time)?;
        // The counters were given all clocks.
        thread.told = thread.now;
        thread.watch(self.session);
        Ok(())
    }

    /// The LBR alone sees the transfer of a step, if there is one.
    #[inline(never)]
    fn record<C: StepClock>(&self, thread: &mut Thread<C>, id: StepId, time: StepTime) {
        let Some(transfer) = self.code.transfer(id) else {
            return;
        };
        self.give_records(thread);
        let transfer = as_retired(transfer, self.kinds[id.0 as usize], time);
        match thread.cpu.lbr_mut().retire(&transfer, time.end) {
            Verdict::Push => thread.totals.pushes += 1,
            Verdict::Pop => thread.totals.pops += 1,
            Verdict::Ignore => {}
        }
        thread.watch(self.session);
    }

    /// [`Road::clocks`], and how many of them the sampled counter counts in a step of `kind`.
    #[inline(never)]
    fn clocks_and_sampled(&self, kind: Kind, from: Cycles, to: Cycles) -> (u64, u64, u64) {
        let (core, reference) = self.clocks(from, to);
        let sampled = self.sampled_clocks.as_ref();
        let sampled = sampled.map_or(0, |one| Passed::of(kind, core, reference).amount(one));
        (core, reference, sampled)
    }

    /// Core clocks and reference clocks between two points of a thread.
    #[inline]
    fn clocks(&self, from: Cycles, to: Cycles) -> (u64, u64) {
        if !TIMED {
            return (0, 0);
        }
        let core = to.since(from);
        if self.same_rate {
            return (core, core);
        }
        let rates = self.session.timing.rates;
        let reference = rates.reference(to) - rates.reference(from).min(rates.reference(to));
        (core, reference)
    }

    /// A step that nobody counts: the LBR records it.
    fn warm_up<C: StepClock>(&mut self, thread: &mut Thread<C>, id: StepId, time: StepTime) {
        let retired = u64::from(self.code.step(id).retired);
        self.record(thread, id, time);
        thread.totals = Totals::default();
        thread.now = time.end;
        thread.told = time.end;
        self.done += retired;
        thread.warming = thread.warming.saturating_sub(retired);
        thread.start = (time.end, thread.clock.slots());
        thread.watch(self.session);
    }

    /// A step in which a counter may overflow or a PMI may be delivered, or that is to be counted at
    /// once.
    fn looked_at<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        id: StepId,
        time: StepTime,
    ) -> Result<(), ReplayError> {
        let kind = self.kinds[id.0 as usize];
        let retired = self.code.step(id).retired;
        let by_event = kind.is_by_event();
        let corrected = self.code.transfer(id).map(|t| as_retired(t, kind, time));
        let transfer = corrected.as_ref();
        // What LBR_INSERTS will count, as the registers stand now.
        let op = transfer.map_or(Op::Ignore, |transfer| {
            match thread.cpu.lbr().verdict(transfer) {
                Verdict::Push => Op::Push,
                Verdict::Pop => Op::Pop,
                Verdict::Ignore => Op::Ignore,
            }
        });
        let inserts = self.session.counting.inserts(op);
        let feed = &self.session.feed;
        // The processor itself counts what its LBR inserts.
        let none = Inserts(0);
        let at = |retired, after_exit, now| At {
            step: id,
            retired,
            after_exit,
            now,
        };
        let whole = |inserts| {
            let mut run = feed.step_as(id, inserts, time.mispredicted);
            let (core, reference) = self.clocks(thread.now, time.end);
            Passed::increase(&mut run, kind, core, reference);
            run
        };
        let sampled = |run: &Increments| {
            let selector = &self.session.counting.sampled;
            selector.as_ref().map_or(0, |one| one.amount(run))
        };
        let own = transfer.filter(|_| !by_event);
        let clear = match thread.due {
            true => None,
            false => thread.clear.checked_sub(sampled(&whole(inserts))),
        };
        if let Some(clear) = clear.filter(|_| !by_event) {
            let run = whole(none);
            thread.clear = clear;
            return self.boundary(thread, &run, own, at(retired, true, time.end));
        }
        let feed = &self.session.feed;
        let mut past = Increments::new();
        for index in 0..retired {
            let passed = feed.through_as(id, index, none, time.mispredicted);
            let last = index + 1 == retired;
            let own = own.filter(|_| last);
            let now = match last && !by_event {
                true => time.end,
                false => thread.clock.retired_at(index).clamp(thread.now, time.end),
            };
            let mut run = passed.less(&past);
            let (core, reference) = self.clocks(thread.now, now);
            Passed::increase(&mut run, kind, core, reference);
            self.boundary(thread, &run, own, at(index + 1, last && !by_event, now))?;
            past = passed;
        }
        if by_event || retired == 0 {
            // The event that leaves the step is no instruction; its record may be counted.
            let mut run = feed.step_as(id, none, time.mispredicted).less(&past);
            let (core, reference) = self.clocks(thread.now, time.end);
            Passed::increase(&mut run, kind, core, reference);
            self.boundary(thread, &run, transfer, at(retired, true, time.end))?;
        }
        thread.look();
        Ok(())
    }

    /// What happens at one boundary, and the PMI if it is delivered there.
    fn boundary<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        run: &Increments,
        transfer: Option<&Transfer>,
        at: At,
    ) -> Result<(), ReplayError> {
        let boundary = Boundary {
            run,
            transfer,
            now: at.now,
        };
        thread.now = at.now;
        let retired = thread.cpu.retire(boundary, &mut Nothing);
        match retired.verdict {
            Some(Verdict::Push) => thread.totals.pushes += 1,
            Some(Verdict::Pop) => thread.totals.pops += 1,
            Some(Verdict::Ignore) | None => {}
        }
        thread.amounts.instructions += run.instructions();
        thread.totals.instructions += run.instructions();
        self.done += run.instructions();
        if thread.cpu.deliver().is_some() {
            self.sample(thread, at)?;
        }
        Ok(())
    }

    /// The interrupt handler.
    fn sample<C: StepClock>(&mut self, thread: &mut Thread<C>, at: At) -> Result<(), ReplayError> {
        thread.read(self.session);
        let mut entries = Vec::new();
        let mut removed = Summary::default();
        self.stack(&thread.cpu, &mut entries, &mut removed);
        self.summary.removed += removed.removed;
        let period = thread.pace.map_or(0, |pace| pace.period());
        if let Some(pace) = &mut thread.pace {
            pace.sampled(match TIMED {
                true => self.session.timing.rates.nanoseconds(thread.now),
                false => thread.amounts.instructions,
            });
        }
        let next_period = thread.pace.map_or(0, |pace| pace.period());
        let sample = Sample {
            step: at.step,
            retired: at.retired,
            after_exit: at.after_exit,
            instructions: self.done,
            events: thread.totals.events,
            period,
            next_period,
            net: thread.cpu.lbr().tos() as i64,
        };
        let taken = Taken {
            sample: &sample,
            thread: self.thread,
            time_ns: self.time(thread.now),
            entries: &entries,
            amounts: &thread.amounts,
        };
        self.session
            .hand_out(self.consumer, &mut self.summary, &taken)?;
        let programmed = &self.session.counters;
        handle(&mut thread.cpu, programmed, next_period)?;
        thread.values = values(&thread.cpu, programmed);
        Ok(())
    }

    /// What perf reads of the LBR.
    fn stack(&self, cpu: &LogicalProcessor, entries: &mut Vec<BranchEntry>, summary: &mut Summary) {
        for record in cpu.lbr().stack() {
            if !self.read(&record, entries, summary) {
                break;
            }
        }
    }

    /// Appends what perf hands out for `record`; false if perf stops reading here.
    fn read(&self, record: &Record, entries: &mut Vec<BranchEntry>, summary: &mut Summary) -> bool {
        let session = self.session;
        let kind = self
            .types
            .get(&(record.from, record.to, record.abort))
            .copied()
            .unwrap_or(X86Br::NONE);
        let rendered = session.lbr.read(record, kind);
        if record.is_empty() && session.stops_at_empty() {
            return false;
        }
        if rendered.keep && !(record.is_empty() && session.lbr.filter().software_filters()) {
            entries.push(rendered.entry);
        } else {
            summary.removed += 1;
        }
        true
    }
}

/// The transfer of a step as its clock saw it.
#[inline]
pub(super) fn as_retired(transfer: &Transfer, kind: Kind, time: StepTime) -> Transfer {
    let mispredicted = match kind.is_by_event() {
        true => transfer.mispredicted,
        false => time.mispredicted,
    };
    Transfer {
        mispredicted,
        ..*transfer
    }
}
