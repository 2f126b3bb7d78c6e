//! The hook of context switches: `intel_pmu_lbr_sched_task`.

use super::LbrDataId;
use crate::hardware::Hardware;
use crate::perf::Perf;
use crate::perf::core::ContextId;
use crate::{CpuId, TaskId};

impl Perf {
    /// A task leaves or enters while somebody uses the LBR. With data of its own its stack is saved
    /// and restored; without, entering resets, because addresses of another space mean nothing.
    pub(crate) fn lbr_sched_task(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        task: TaskId,
        context: Option<ContextId>,
        enters: bool,
    ) {
        if self.cpu(cpu).lbr.users == 0 {
            return;
        }
        match (self.data_of(task, context), enters) {
            (Some(data), true) => self.lbr_restore(hw, cpu, data),
            (Some(data), false) => self.lbr_save(hw, cpu, data),
            (None, true) => self.lbr_reset(hw, cpu),
            (None, false) => {}
        }
    }

    /// `has_lbr_callstack_users`, or the test of the task's count before 6.15.
    pub(super) fn has_call_stack_users(&self, data: LbrDataId) -> bool {
        let own = self.data.get(&data).is_some_and(|data| data.users != 0);
        own || self.system_wide.callstack_users != 0
    }
}
