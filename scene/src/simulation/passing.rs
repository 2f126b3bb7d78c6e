//! Time that passes outside of guests: what transitions and MSR accesses take, and work of the host.
//!
//! An input happens at one time; what it took passes at its end. Counters are given the clocks of the
//! host as soon as it runs behind them: VM entry ends in the guest, so its clocks wait for the next exit.

use serde::Serialize;
use vlbr_arch::{Cpl, Cycles};
use vlbr_cpu::processor::Boundary;
use vlbr_host::CpuId;
use vlbr_host::hardware::Running;
use vlbr_host::machine::Output;
use vlbr_pmu::{Increments, Source};

use super::Simulation;
use crate::{SceneError, SceneTime};

/// Where the clocks of a processor went. Their sum is its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuTime {
    /// Guests executed.
    pub guest: u64,
    /// VM transitions and MSR accesses, by the cost model.
    pub costs: u64,
    /// Tasks of the host and what handles exits executed.
    pub host: u64,
    /// Nothing ran.
    pub idle: u64,
}

impl CpuTime {
    /// All clocks.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.guest + self.costs + self.host + self.idle
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            guest: self.guest + other.guest,
            costs: self.costs + other.costs,
            host: self.host + other.host,
            idle: self.idle + other.idle,
        }
    }
}

/// Where the clocks of a run by models went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeTally {
    /// Each processor.
    pub cpus: Vec<CpuTime>,
    /// Clocks in which each vCPU's guest executed.
    pub guests: Vec<u64>,
}

/// So many clocks at a privilege level.
pub(super) fn add_clocks(run: &mut Increments, cpl: Cpl, clocks: u64) {
    run.add(Source::CoreCycles, cpl, clocks);
    run.add(Source::ReferenceCycles, cpl, clocks);
}

impl Simulation<'_> {
    /// Whether time is a model's.
    pub(super) const fn is_modelled_time(&self) -> bool {
        matches!(self.time, SceneTime::Model(_))
    }

    /// Lets pass what transitions and accesses took since the last time, on each processor.
    #[inline]
    pub(super) fn pass_costs(&mut self) -> Result<(), SceneError> {
        if self.is_modelled_time() {
            self.pass_priced()?;
        }
        Ok(())
    }

    fn pass_priced(&mut self) -> Result<(), SceneError> {
        let mut spent = std::mem::take(&mut self.spent);
        self.take_spent(&mut spent);
        for &(cpu, clocks) in &spent {
            self.cpus[cpu].owed += clocks;
            if let Running::Host(_) = self.running(cpu) {
                self.count_owed(cpu)?;
            }
        }
        self.spent = spent;
        Ok(())
    }

    /// The same of an access that a guest made without an exit: its own clocks. A PMI that they raise
    /// comes when it executes something, else a handler that lets its counter count might never end.
    pub(super) fn pass_guests_costs(&mut self) -> Result<(), SceneError> {
        if !self.is_modelled_time() {
            return Ok(());
        }
        let mut spent = std::mem::take(&mut self.spent);
        self.take_spent(&mut spent);
        for &(cpu, clocks) in &spent {
            let id = CpuId(cpu as u16);
            let mut run = Increments::new();
            add_clocks(&mut run, Cpl::Ring0, clocks);
            let boundary = Boundary {
                run: &run,
                transfer: None,
                now: self.machine.host().hardware().cpu(id).now(),
            };
            self.machine.pass(id, boundary)?;
        }
        self.spent = spent;
        Ok(())
    }

    /// The same of the handler of a PMI, in which counters stand still.
    fn pass_uncounted(&mut self) {
        let mut spent = std::mem::take(&mut self.spent);
        self.take_spent(&mut spent);
        self.spent = spent;
    }

    /// The clocks of processors go on by what was spent on them.
    fn take_spent(&mut self, spent: &mut Vec<(usize, u64)>) {
        self.machine.host_mut().hardware_mut().take_spent(spent);
        for &(cpu, clocks) in &*spent {
            let state = &mut self.cpus[cpu];
            let processor = self.machine.host_mut().hardware_mut();
            let processor = processor.cpu_mut(CpuId(cpu as u16));
            // Inside a step of a guest the processor is ahead.
            let now = processor.now().value().max(state.now) + clocks;
            processor.set_now(Cycles::new(now));
            state.now += clocks;
            state.time.costs += clocks;
        }
    }

    fn running(&self, cpu: usize) -> Running {
        let hardware = self.machine.host().hardware();
        hardware.cpu(CpuId(cpu as u16)).running()
    }

    /// Clocks of the host that its counters were not given yet.
    fn count_owed(&mut self, cpu: usize) -> Result<(), SceneError> {
        let clocks = std::mem::take(&mut self.cpus[cpu].owed);
        self.count(cpu, Cpl::Ring0, clocks)
    }

    /// Counters are given clocks of the host, which have passed.
    fn count(&mut self, cpu: usize, cpl: Cpl, clocks: u64) -> Result<(), SceneError> {
        let id = CpuId(cpu as u16);
        let processor = self.machine.host().hardware().cpu(id);
        let now = processor.now();
        if clocks == 0 || !processor.logical().pmu().counts() {
            return Ok(());
        }
        let mut run = Increments::new();
        add_clocks(&mut run, cpl, clocks);
        let boundary = Boundary {
            run: &run,
            transfer: None,
            now,
        };
        let output = self.machine.retire(id, boundary)?;
        self.host_pmi(cpu, output)
    }

    /// A PMI that interrupted the host, if there was one.
    pub(super) fn host_pmi(&mut self, cpu: usize, output: Output) -> Result<(), SceneError> {
        if let Output::Pmi { samples, .. } = output {
            let now = self.cpus[cpu].now;
            self.pmi_taken();
            self.host_took(&samples);
            if self.watch.is_some() {
                self.draw_pmi(cpu, now, false, samples.len());
            }
        }
        Ok(())
    }

    /// A PMI was taken, and its handler has ended.
    pub(super) fn pmi_taken(&mut self) {
        if self.is_modelled_time() {
            self.pass_uncounted();
        }
    }

    /// Code of the host runs for so many clocks.
    pub(super) fn host_runs(
        &mut self,
        cpu: usize,
        cpl: Cpl,
        clocks: u64,
    ) -> Result<(), SceneError> {
        let mut left = clocks;
        while left != 0 {
            // An overflow falls where it happens.
            let part = left.min(self.clocks_unlooked(cpu, cpl));
            left -= part;
            self.host_ran(cpu, part);
            self.set_clock(cpu);
            if self.is_modelled_time() {
                self.count(cpu, cpl, part)?;
            }
        }
        Ok(())
    }

    /// A branch of the host's kernel while it handles an exit; nominally it takes no time.
    pub(super) fn kernel_branch(&mut self, cpu: usize, vcpu: usize) -> Result<(), SceneError> {
        let clocks = match self.is_modelled_time() {
            true => self.clocks_per_thousand.div_ceil(1000),
            false => 0,
        };
        self.host_ran(cpu, clocks);
        self.host_branch(cpu, vcpu, (1, true), clocks)
    }

    /// A processor's clock goes on by work of the host.
    pub(super) fn host_ran(&mut self, cpu: usize, clocks: u64) {
        let state = &mut self.cpus[cpu];
        state.now += clocks;
        state.time.host += clocks;
    }

    /// Clocks of the host after which a counter may overflow.
    fn clocks_unlooked(&self, cpu: usize, cpl: Cpl) -> u64 {
        if !self.is_modelled_time() {
            return u64::MAX;
        }
        let hardware = self.machine.host().hardware();
        let horizon = hardware.cpu(CpuId(cpu as u16)).logical().pmu().horizon();
        let limits = horizon.limits.iter().filter(|limit| {
            let selector = &limit.selector;
            let level = match cpl.is_kernel() {
                true => selector.kernel,
                false => selector.user,
            };
            let sources = selector.sources;
            let clocks = [Source::CoreCycles, Source::ReferenceCycles];
            level && clocks.into_iter().any(|clock| sources.contains(clock))
        });
        let events = limits.map(|limit| limit.events.max(1));
        events.min().unwrap_or(u64::MAX)
    }
}
