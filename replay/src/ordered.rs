//! The slow road: every transfer through the LBR itself and every instruction through the PMU, in
//! order. For quirks and options under which a record depends on its predecessors, for events that
//! change the LBR's registers, for skid, and to compare the hot loop with the devices.

use vlbr_arch::{Cycles, Transfer};
use vlbr_cpu::processor::{Boundary, LogicalProcessor, Nothing};
use vlbr_cpu::run::{MAX_COLUMNS, Op, Pace, Sample};
use vlbr_cpu::{Exit, Inserts, StepId};
use vlbr_host::perf::X86Br;
use vlbr_lbr::{Record, Verdict};
use vlbr_pmu::{Device, Increments};
use vlbr_traces::perfdata::BranchEntry;
use vlbr_traces::vlt::ChunkBuffer;

use crate::counters::{Amounts, ProgrammedCounters, handle, read, width};
use crate::session::{ReplayError, Session, Taken};
use crate::summary::{Consumer, Summary, ThreadSummary, Totals};

/// One thread's processor.
#[derive(Clone)]
struct Thread {
    cpu: LogicalProcessor,
    totals: Totals,
    /// What the device's counters have counted, as of the last look at them.
    amounts: Amounts,
    /// What they read then, or were loaded with since.
    values: [u64; MAX_COLUMNS],
    pace: Option<Pace>,
    /// Events of the sampled counter before the one that may overflow it, by the device's horizon;
    /// `None` while a PMI waits, which each instruction brings nearer.
    clear: Option<u64>,
}

/// Where in a step a boundary lies.
#[derive(Clone, Copy)]
struct At {
    step: StepId,
    retired: u16,
    after_exit: bool,
}

/// As [`Session::run`].
pub(crate) fn run(
    session: &Session<'_>,
    consumer: &mut dyn Consumer,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let trace = session.trace;
    let code = trace.code();
    let initial = Thread {
        cpu: session.counters.processor().clone(),
        totals: Totals::default(),
        amounts: Amounts::default(),
        values: [0; MAX_COLUMNS],
        pace: session.pace,
        clear: None,
    };
    let mut road = Road {
        session,
        types: session.lbr.types(code),
        consumer,
        summary: Summary::default(),
        before: 0,
        done: 0,
        thread: 0,
    };
    let mut threads = vec![initial; trace.threads().len()];
    for thread in &mut threads {
        thread.look();
        thread.values = values(&thread.cpu, &session.counters);
    }
    let mut buffer = ChunkBuffer::default();
    for index in session.region.chunks(trace.chunks().len()) {
        road.consumer.chunk(index, road.before)?;
        let chunk = trace.decode(index, &mut buffer)?;
        let (start, end) = session.region.steps(index, chunk.ids.len());
        road.thread = trace.chunks()[index].thread.0 as usize;
        let thread = &mut threads[road.thread];
        road.done = 0;
        for position in start..end {
            road.step(thread, chunk.map[chunk.ids.local(position)])?;
        }
        thread.totals.instructions += road.done;
        road.before += road.done;
        progress(road.before);
    }
    for thread in &mut threads {
        thread.read(session);
        let mut last_stack = Vec::new();
        road.stack(&thread.cpu, &mut last_stack, &mut Summary::default());
        let events = session.counters.events().len();
        road.summary.threads.push(ThreadSummary {
            totals: thread.totals,
            counts: thread.amounts.events[..events].to_vec(),
            last_stack,
        });
    }
    Ok(road.summary)
}

impl Thread {
    /// Reads the counters. What they have counted since the last time is less than they can hold.
    fn read(&mut self, session: &Session<'_>) {
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

    /// Asks the device how far it may count unlooked.
    fn look(&mut self) {
        let horizon = self.cpu.pmu().horizon();
        let limits = horizon.limits.iter().map(|limit| limit.events);
        self.clear = match horizon.delivery {
            Some(_) => None,
            None => Some(limits.min().unwrap_or(u64::MAX).saturating_sub(1)),
        };
    }
}

/// What the counters read, by event.
fn values(cpu: &LogicalProcessor, programmed: &ProgrammedCounters) -> [u64; MAX_COLUMNS] {
    let mut values = [0; MAX_COLUMNS];
    for (value, &counter) in values.iter_mut().zip(programmed.counters()) {
        *value = read(cpu, counter);
    }
    values
}

struct Road<'a> {
    session: &'a Session<'a>,
    types: rustc_hash::FxHashMap<(u64, u64, bool), X86Br>,
    consumer: &'a mut dyn Consumer,
    summary: Summary,
    /// Instructions before the chunk, and of it.
    before: u64,
    done: u64,
    thread: usize,
}

impl Road<'_> {
    fn step(&mut self, thread: &mut Thread, id: StepId) -> Result<(), ReplayError> {
        let code = self.session.trace.code();
        let retired = code.step(id).retired;
        let by_event = matches!(code.step(id).exit, Exit::Event { .. });
        let transfer = code.transfer(id);
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
        let at = |retired, after_exit| At {
            step: id,
            retired,
            after_exit,
        };
        let whole = feed.step(id, none);
        let sampled = |run: &Increments| {
            let selector = &self.session.counting.sampled;
            selector.as_ref().map_or(0, |one| one.amount(run))
        };
        let own = transfer.filter(|_| !by_event);
        let clear = thread
            .clear
            .and_then(|clear| clear.checked_sub(sampled(&feed.step(id, inserts))));
        if let Some(clear) = clear.filter(|_| !by_event) {
            thread.clear = Some(clear);
            return self.boundary(thread, &whole, own, at(retired, true));
        }
        let mut past = Increments::new();
        for index in 0..retired {
            let now = feed.through(id, index, none);
            let last = index + 1 == retired;
            let own = own.filter(|_| last);
            let behind = at(index + 1, last && !by_event);
            self.boundary(thread, &now.less(&past), own, behind)?;
            past = now;
        }
        if by_event || retired == 0 {
            // The event that leaves the step is no instruction; its record may be counted.
            let run = whole.less(&past);
            self.boundary(thread, &run, transfer, at(retired, true))?;
        }
        thread.look();
        Ok(())
    }

    /// What happens at one boundary, and the PMI if it is delivered there.
    fn boundary(
        &mut self,
        thread: &mut Thread,
        run: &Increments,
        transfer: Option<&Transfer>,
        at: At,
    ) -> Result<(), ReplayError> {
        let boundary = Boundary {
            run,
            transfer,
            now: Cycles::new(0),
        };
        let retired = thread.cpu.retire(boundary, &mut Nothing);
        match retired.verdict {
            Some(Verdict::Push) => thread.totals.pushes += 1,
            Some(Verdict::Pop) => thread.totals.pops += 1,
            Some(Verdict::Ignore) | None => {}
        }
        thread.amounts.instructions += run.instructions();
        self.done += run.instructions();
        if thread.cpu.deliver().is_some() {
            self.sample(thread, at)?;
        }
        Ok(())
    }

    /// The interrupt handler.
    fn sample(&mut self, thread: &mut Thread, at: At) -> Result<(), ReplayError> {
        thread.read(self.session);
        let mut entries = Vec::new();
        let mut removed = Summary::default();
        self.stack(&thread.cpu, &mut entries, &mut removed);
        self.summary.removed += removed.removed;
        let period = thread.pace.map_or(0, |pace| pace.period());
        if let Some(pace) = &mut thread.pace {
            pace.sampled(thread.amounts.instructions);
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
            before: self.before,
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
