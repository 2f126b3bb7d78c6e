//! A processor goes from task to task, and what that says of a vCPU's stack.

use vlbr_host::machine::Input;
use vlbr_host::perf::StackState;
use vlbr_host::{CpuId, VcpuId};

use super::{Left, Simulation};
use crate::SceneError;

impl Simulation<'_> {
    pub(super) fn switch_to(&mut self, cpu: usize, next: Option<usize>) -> Result<(), SceneError> {
        let before = self.cpus[cpu].running;
        if before == next {
            return Ok(());
        }
        let leaves = before.and_then(|task| self.tasks[task].vcpu);
        if let Some(vcpu) = leaves {
            self.end_slice(vcpu);
        }
        self.set_clock(cpu);
        self.come(cpu, next);
        let task = next.map(|next| self.tasks[next].id);
        self.apply(&Input::Switch(CpuId(cpu as u16), task))?;
        if let Some(before) = before {
            self.tasks[before].left_at = self.cpus[cpu].now;
        }
        if let Some(vcpu) = next.and_then(|task| self.tasks[task].vcpu) {
            self.came_back(cpu, vcpu);
        }
        if let Some(vcpu) = leaves {
            self.has_left(cpu, vcpu);
        }
        self.cpus[cpu].running = next;
        let left = next.map_or(0, |next| std::mem::take(&mut self.tasks[next].slice_left));
        let slice = if left == 0 { self.slice() } else { left };
        self.cpus[cpu].slice_end = self.cpus[cpu].now + slice;
        if let Some(next) = next {
            let last = self.tasks[next].last.replace(cpu as u16);
            if let Some(vcpu) = self.tasks[next].vcpu {
                let tally = &mut self.vcpus[vcpu].tally.switches;
                tally.pairs += u64::from(last.is_some());
                tally.migrations += u64::from(last.is_some_and(|last| last != cpu as u16));
            }
        } else if self.scene.scheduling.deep_c_states {
            self.apply(&Input::DeepCState(CpuId(cpu as u16)))?;
            self.cpus[cpu].deep += 1;
        }
        Ok(())
    }

    /// A task that left another processor comes no earlier than it left: when the switch there was over,
    /// as `finish_task` says that it is off its processor behind perf's hooks for both tasks.
    fn come(&mut self, cpu: usize, next: Option<usize>) {
        if let Some(next) = next.filter(|_| self.is_modelled_time()) {
            self.catch_up(cpu, self.tasks[next].left_at);
        }
    }

    /// What perf saved of the vCPU that was switched out.
    fn has_left(&mut self, cpu: usize, vcpu: usize) {
        let perf = self.machine.host().perf();
        let thread = self.machine.host().vcpu(VcpuId(vcpu as u16)).thread;
        let saved = perf
            .lbr_context(thread)
            .filter(|context| context.stack_state() == StackState::Valid);
        let valid = saved.map(|context| {
            let entries = context.entries().into_iter();
            match self.machine.host().lbr_msrs().arch {
                true => entries.take_while(|e| e.from().value != 0).count() as u64,
                false => context.valid_lbrs().into(),
            }
        });
        let left = Left {
            last: perf.lbr_cpu(CpuId(cpu as u16)).last(),
            cpu,
            deep: self.cpus[cpu].deep,
            empty: valid == Some(0),
        };
        let nr = u64::from(self.machine.host().lbr_msrs().nr);
        let state = &mut self.vcpus[vcpu];
        state.left = valid.map(|_| left);
        if let Some(valid) = valid {
            state.tally.saved.saves += 1;
            state.tally.saved.entries += valid;
            state.tally.saved.full += u64::from(valid == nr);
        }
    }

    /// Whether what perf saved of the vCPU that was switched in still stood in the registers. A
    /// restore leaves standing whose save they held last.
    fn came_back(&mut self, cpu: usize, vcpu: usize) {
        let Some(left) = self.vcpus[vcpu].left.take() else {
            return;
        };
        let perf = self.machine.host().perf();
        let last = perf.lbr_cpu(CpuId(cpu as u16)).last();
        let same = left.cpu == cpu && left.last.is_some() && left.last == last;
        let reset = self.cpus[cpu].deep != left.deep || left.empty;
        let tally = &mut self.vcpus[vcpu].tally.switches;
        tally.kept += u64::from(same && !reset);
        tally.disturbed += u64::from(!same || reset);
        tally.emptied += u64::from(same && reset);
    }

    /// What is counted when a time slice of a vCPU ends.
    pub(super) fn end_slice(&mut self, vcpu: usize) {
        let state = &mut self.vcpus[vcpu];
        let accesses = state.tally.lbr_accesses + state.tally.debugctl_accesses;
        state.tally.slices_with_lbr += u64::from(accesses != state.lbr_before_slice);
        state.lbr_before_slice = accesses;
    }
}
