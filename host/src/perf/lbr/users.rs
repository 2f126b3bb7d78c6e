//! Events that need the LBR come and go: `intel_pmu_lbr_add`, `intel_pmu_lbr_del`.

use vlbr_traces::perfdata::BranchSampleType as B;

use super::LbrDataId;
use crate::hardware::Hardware;
use crate::perf::core::ContextId;
use crate::perf::event::Branch;
use crate::perf::{CloneSwap, Event, EventId, Perf, X86Br};
use crate::{CpuId, TaskId};

/// `branch_user_callstack`.
fn user_call_stack(br_sel: X86Br) -> bool {
    br_sel.contains(X86Br::USER.with(X86Br::CALL_STACK))
}

/// `PERF_ATTACH_TASK_DATA`: the event has a call stack.
fn wants_data(branch: Option<Branch>) -> bool {
    branch.is_some_and(|branch| branch.br_sel.contains(X86Br::CALL_STACK))
}

impl Perf {
    /// An event is added, before it is known whether it fits.
    pub(crate) fn lbr_add(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        let event = self.event_ref(id);
        let Some(branch) = event.hw.branch.filter(|_| self.model.nr != 0) else {
            return;
        };
        let (flagged, no_counter, new) = (event.hw.lbr_select, event.hw.no_counter, !event.ran);
        let pebs = self.pmu.pebs_baseline && event.attr.precise_ip != 0;
        self.guest_lbr_flush(hw, cpu);
        let lbr = &mut self.cpu_mut(cpu).lbr;
        lbr.select |= flagged;
        lbr.vcpu_lbr |= no_counter;
        lbr.br_sel = branch.br_sel;
        if user_call_stack(branch.br_sel) {
            self.count_call_stack(id, 1);
        }
        let lbr = &mut self.cpu_mut(cpu).lbr;
        lbr.pebs_users += u32::from(pebs);
        lbr.users += 1;
        // A reschedule calls no hook that would reset for a new event.
        if lbr.users == 1 && (new || lbr.of_guest) {
            self.lbr_reset(hw, cpu);
        }
    }

    /// An event is deleted. In every kernel, whether it counts as a call-stack user is read off the
    /// processor, where the filter of the event that was added last stands.
    pub(crate) fn lbr_del(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        if self.model.nr == 0 {
            return;
        }
        let own = self.event_ref(id).hw.branch;
        let br_sel = match own.filter(|_| self.behaviour.callstack_users_by_event) {
            Some(branch) => branch.br_sel,
            None => self.cpu(cpu).lbr.br_sel,
        };
        if user_call_stack(br_sel) {
            self.count_call_stack(id, -1);
        }
        let event = self.event_ref(id);
        let (flagged, no_counter) = (event.hw.lbr_select, event.hw.no_counter);
        let pebs = self.pmu.pebs_baseline && event.attr.precise_ip != 0;
        let logs = event
            .attr
            .branch_sample_type
            .is_some_and(|filter| filter.contains(B::COUNTERS));
        let leads = self.behaviour.branch_counters && event.leader == id && logs;
        let lbr = &mut self.cpu_mut(cpu).lbr;
        lbr.select &= !flagged;
        lbr.vcpu_lbr &= !no_counter;
        lbr.pebs_users -= u32::from(pebs);
        lbr.users -= 1;
        if leads {
            self.lbr_reset(hw, cpu);
        }
    }

    /// `lbr_callstack_users` of the event's task, or of all.
    fn count_call_stack(&mut self, id: EventId, change: i32) {
        let event = self.event_ref(id);
        let of_task = event.target.task();
        let data = match (self.behaviour.clone_swap, of_task) {
            (CloneSwap::DataOfTask, Some(task)) => self.tasks.get(&task).and_then(|t| t.data),
            (CloneSwap::DataOfTask, None) => None,
            (CloneSwap::DataOnly | CloneSwap::CountsBack, _) => self.context(event.context).data,
        };
        if let Some(data) = data.and_then(|data| self.data.get_mut(&data)) {
            data.users += change;
        } else if of_task.is_none() && self.behaviour.system_wide_call_stacks {
            self.system_wide.callstack_users += change;
        }
    }

    /// The data that a task's hook works on: `task_ctx_data`, or `perf_ctx_data` of the task.
    pub(super) fn data_of(
        &mut self,
        task: TaskId,
        context: Option<ContextId>,
    ) -> Option<LbrDataId> {
        match self.behaviour.clone_swap {
            CloneSwap::DataOnly | CloneSwap::CountsBack => self.context(context?).data,
            CloneSwap::DataOfTask => {
                let known = self.tasks.get(&task).and_then(|state| state.data);
                if known.is_none() && self.system_wide.references != 0 {
                    self.task_mut(task).data = Some(self.new_data());
                }
                self.tasks.get(&task).and_then(|state| state.data)
            }
        }
    }

    /// `find_get_context`, `attach_task_ctx_data`: room for the stack of a task.
    pub(crate) fn attach_data(&mut self, task: TaskId, id: ContextId, branch: Option<Branch>) {
        if !wants_data(branch) {
            return;
        }
        match self.behaviour.clone_swap {
            CloneSwap::DataOnly | CloneSwap::CountsBack => {
                if self.context(id).data.is_none() {
                    self.context_mut(id).data = Some(self.new_data());
                }
            }
            CloneSwap::DataOfTask => {
                if self.task_mut(task).data.is_none() {
                    self.task_mut(task).data = Some(self.new_data());
                }
            }
        }
    }

    /// `attach_global_ctx_data`: room for the stack of every task. It is made when a task first
    /// needs it, which nobody can tell from making it at once.
    pub(crate) fn attach_system_wide(&mut self, branch: Option<Branch>) {
        if wants_data(branch) && self.behaviour.system_wide_call_stacks {
            self.system_wide.references += 1;
        }
    }

    /// A task that begins has data of its own: `perf_event_init_task`.
    pub(crate) fn attach_forked(&mut self, task: TaskId) {
        if self.system_wide.references != 0 {
            self.data_of(task, None);
        }
    }

    /// `detach_perf_ctx_data`: what no event needs any more goes. Data of a context stays as long
    /// as the context.
    pub(crate) fn detach_data(&mut self, event: &Event) {
        if !wants_data(event.hw.branch) || self.behaviour.clone_swap != CloneSwap::DataOfTask {
            return;
        }
        match event.target.task() {
            None => self.system_wide.references -= 1,
            Some(_) if self.system_wide.references != 0 => return,
            Some(_) => {}
        }
        if self.system_wide.references != 0 {
            return;
        }
        let needed = |task: TaskId| {
            let mut events = self.events.values();
            events.any(|event| event.target.task() == Some(task) && wants_data(event.hw.branch))
        };
        let unused: Vec<TaskId> = self
            .tasks
            .keys()
            .copied()
            .filter(|task| !needed(*task))
            .collect();
        for task in unused {
            if let Some(data) = self.task_mut(task).data.take() {
                self.data.remove(&data);
            }
        }
    }

    /// `intel_pmu_lbr_swap_task_ctx`, the counts of two contexts' data.
    pub(crate) fn swap_call_stack_users(
        &mut self,
        one: Option<LbrDataId>,
        other: Option<LbrDataId>,
    ) {
        let (Some(one), Some(other)) = (one, other) else {
            return;
        };
        let users = |perf: &Self, id| {
            perf.data
                .get(&id)
                .map_or(0, |data: &super::LbrContext| data.users)
        };
        let counts = [(one, users(self, other)), (other, users(self, one))];
        for (id, users) in counts {
            if let Some(data) = self.data.get_mut(&id) {
                data.users = users;
            }
        }
    }
}
