//! Tasks of the host.

use vlbr_arch::{BranchClass, Cpl, Cycles, Transfer};
use vlbr_host::CpuId;
use vlbr_host::machine::Input;
use vlbr_pmu::Increments;

use super::Simulation;
use super::passing::add_clocks;
use crate::SceneError;

/// Where the branches of task n lie.
const BASE: u64 = 0x5555_0000_0000;
const KERNEL_BASE: u64 = 0xffff_ffff_a000_0000;

impl Simulation<'_> {
    /// Runs a task until it sleeps, or a time.
    pub(super) fn run_task(
        &mut self,
        cpu: usize,
        task: usize,
        until: u64,
    ) -> Result<(), SceneError> {
        let spec = self.tasks[task].spec.map(|n| &self.scene.task[n]);
        let every = spec.map_or(0, |spec| spec.branch_every);
        let kernel = spec.is_some_and(|spec| spec.kernel_thread);
        let now = self.cpus[cpu].now;
        let clocks = self.tasks[task].left.min(until.saturating_sub(now)).max(1);
        if every == 0 {
            let cpl = if kernel { Cpl::Ring0 } else { Cpl::Ring3 };
            self.host_runs(cpu, cpl, clocks)?;
        } else {
            self.branch(cpu, task, (every, kernel), clocks)?;
        }
        self.set_clock(cpu);
        self.tasks[task].left = self.tasks[task].left.saturating_sub(clocks);
        if self.tasks[task].left == 0 {
            return self.pick(cpu);
        }
        Ok(())
    }

    /// Loops of calls and returns, so many instructions apart.
    fn branch(
        &mut self,
        cpu: usize,
        task: usize,
        (every, kernel): (u16, bool),
        clocks: u64,
    ) -> Result<(), SceneError> {
        let each = (u64::from(every) * self.clocks_per_thousand).div_ceil(1000);
        let mut done = 0;
        while done < clocks {
            done += each;
            self.host_ran(cpu, each);
            self.host_branch(cpu, task, (every, kernel), each)?;
        }
        Ok(())
    }

    /// The next branch of a task, behind so many instructions and clocks.
    pub(super) fn host_branch(
        &mut self,
        cpu: usize,
        task: usize,
        (every, kernel): (u16, bool),
        clocks: u64,
    ) -> Result<(), SceneError> {
        let (base, cpl) = if kernel {
            (KERNEL_BASE, Cpl::Ring0)
        } else {
            (BASE + ((task as u64) << 24), Cpl::Ring3)
        };
        let n = self.tasks[task].branches;
        self.tasks[task].branches += 1;
        let (class, from, to) = match n % 2 {
            0 => (
                BranchClass::NearRelCall,
                base + 0x40 * (n / 2 % 16),
                base + 0x1000,
            ),
            _ => (
                BranchClass::NearRet,
                base + 0x1010,
                base + 0x40 * (n / 2 % 16) + 5,
            ),
        };
        let transfer = Transfer::near(class, from, to, cpl);
        let mut run = Increments::new();
        run.add(vlbr_pmu::Source::Instructions, cpl, every.into());
        run.add_branch(class, true, false, cpl);
        if self.is_modelled_time() {
            add_clocks(&mut run, cpl, clocks);
        }
        let now = Cycles::new(self.cpus[cpu].now);
        let boxed = Box::new((run, Some(transfer)));
        let output = self
            .machine
            .apply(&Input::Retire(CpuId(cpu as u16), boxed, now))?;
        self.host_pmi(cpu, output)
    }
}
