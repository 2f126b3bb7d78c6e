//! The counters of one thread of a trace.

use vlbr_arch::{Cpl, Msr, PerfGlobalStatus};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::LogicalProcessor;
use vlbr_cpu::run::MAX_COLUMNS;
use vlbr_pmu::{Counter, Device, Profile};

use super::program::NMI;
use super::{CounterError, ProgrammedCounters};

/// How much each event of a session counted, in its order, and the instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) events: [u64; MAX_COLUMNS],
    pub(crate) instructions: u64,
}

impl Amounts {
    /// What was counted after `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        let mut rest = *self;
        for (now, before) in rest.events.iter_mut().zip(earlier.events) {
            *now = now.wrapping_sub(before);
        }
        rest.instructions = rest.instructions.wrapping_sub(earlier.instructions);
        rest
    }
}

/// A logical processor and what its counters have been given.
#[derive(Clone, Debug)]
pub(crate) struct CounterThread {
    pub(crate) cpu: LogicalProcessor,
    given: Amounts,
}

impl CounterThread {
    pub(crate) fn new(programmed: &ProgrammedCounters) -> Self {
        Self {
            cpu: programmed.cpu.clone(),
            given: Amounts::default(),
        }
    }

    /// Lets the device count up to `until`, which is counted from the start of the thread.
    fn retire(
        &mut self,
        programmed: &ProgrammedCounters,
        until: &Amounts,
    ) -> Result<vlbr_pmu::Outcome, CounterError> {
        let more = until.since(&self.given);
        self.given = *until;
        let mut amounts = [0; MAX_COLUMNS];
        for (amount, &event) in amounts.iter_mut().zip(&programmed.active) {
            *amount = more.events[event];
        }
        let amounts = &amounts[..programmed.active.len()];
        Ok(self.cpu.retire_amounts(amounts, more.instructions, 0)?)
    }

    /// The hot loop says that the sampled counter overflows at `until`: the device must, and its
    /// PMI is delivered and handled.
    pub(crate) fn sample(
        &mut self,
        programmed: &ProgrammedCounters,
        number: usize,
        until: &Amounts,
        period: u64,
    ) -> Result<(), CounterError> {
        let outcome = self.retire(programmed, until)?;
        let events = until.events[0];
        if outcome.pmi.is_none() || self.cpu.deliver().is_none() {
            return Err(CounterError::NoOverflow {
                thread: number,
                events,
                value: programmed
                    .sampled
                    .map_or(0, |reload| read(&self.cpu, reload.counter)),
            });
        }
        handle(&mut self.cpu, programmed, period)
    }

    /// The end of the thread, or of the part of the trace that is run.
    pub(crate) fn finish(
        &mut self,
        programmed: &ProgrammedCounters,
        number: usize,
        until: &Amounts,
    ) -> Result<(), CounterError> {
        let outcome = self.retire(programmed, until)?;
        if outcome.pmi.is_some() {
            return Err(CounterError::Overflow {
                thread: number,
                events: until.events[0],
            });
        }
        let first = usize::from(programmed.sampled.is_some());
        let counting = programmed.counters().iter().zip(until.events);
        for (&counter, counted) in counting.skip(first) {
            let value = read(&self.cpu, counter);
            let width = width(self.cpu.pmu().profile(), counter);
            if value != counted & u64::MAX >> (64 - width) {
                return Err(CounterError::Count {
                    thread: number,
                    counter,
                    value,
                    counted,
                });
            }
        }
        Ok(())
    }
}

/// Bits of a counter.
pub(crate) fn width(profile: &Profile, counter: Counter) -> u32 {
    match counter {
        Counter::Gp(_) => profile.gp_width(),
        Counter::Fixed(_) => profile.fixed_width(),
    }
}

/// RDPMC.
pub(crate) fn read(cpu: &LogicalProcessor, counter: Counter) -> u64 {
    let ecx = match counter {
        Counter::Gp(n) => n.into(),
        Counter::Fixed(i) => 0x4000_0000 | u32::from(i),
    };
    // The counter was programmed, so it exists.
    cpu.rdpmc(ecx, Cpl::Ring0, true).unwrap_or_default()
}

/// What Linux does with a PMI: stops the counters, acknowledges the status, loads the sampled
/// counter again, unmasks the LVT entry, starts LBR and counters. `intel_pmu_handle_irq`.
///
/// Linux never loads a counter for less than 2 events, a quirk of early parts; here 1 is 1.
pub(crate) fn handle(
    cpu: &mut LogicalProcessor,
    programmed: &ProgrammedCounters,
    period: u64,
) -> Result<(), CounterError> {
    if programmed.global_ctrl.is_some() {
        cpu.wrmsr(Msr::PERF_GLOBAL_CTRL, 0)?;
        let status = cpu.rdmsr(Msr::PERF_GLOBAL_STATUS)?;
        // Bits that cannot be acknowledged stay: the ASCI bit is none of the handler's.
        let known = status & !PerfGlobalStatus::ASCI.bits();
        cpu.wrmsr(Msr::PERF_GLOBAL_OVF_CTRL, known)?;
    }
    if let Some(reload) = programmed.sampled {
        // What was counted since the overflow belongs to the next period. Where that is over
        // already it begins anew: no sample stands for it. `x86_perf_event_set_period`.
        let past = read(cpu, reload.counter);
        let left = if past < period { period - past } else { period };
        let preset = cpu.pmu().profile().preset(reload.counter, left)?;
        cpu.wrmsr(reload.msr, preset)?;
    }
    for &(msr, value) in &programmed.rewritten {
        cpu.wrmsr(msr, value)?;
    }
    cpu.pmu_mut().set_lvtpc(NMI);
    if let Some(global_ctrl) = programmed.global_ctrl {
        cpu.wrmsr(Msr::PERF_GLOBAL_CTRL, global_ctrl)?;
    }
    Ok(())
}
