//! The hooks of a context switch.

use vlbr_cpu::ledger::Actor;

use super::contexts::equivalent;
use super::{Classes, ContextId, Holder};
use crate::hardware::Hardware;
use crate::perf::{CloneSwap, Perf, SchedHook};
use crate::{CpuId, TaskId};

impl Perf {
    /// `prev` leaves a processor for `next`: `__perf_event_task_sched_out`. The hook of the LBR
    /// saves, then the events of `prev` come off; or the two exchange their contexts.
    pub fn task_sched_out(&mut self, hw: &mut Hardware, cpu: CpuId, prev: TaskId, next: TaskId) {
        if prev == next {
            return;
        }
        let task = self.cpu(cpu).task_context;
        let core = self.core_context(task);
        let in_switch = self.behaviour.sched_hook != SchedHook::OwnBracket;
        if !in_switch || self.hooks_without_context() && self.seen(task).is_none() {
            self.hook_in_bracket(hw, cpu, (prev, core), false);
        }
        let Some(id) = task else {
            return;
        };
        if core.is_some() {
            self.pmu_disable(hw, cpu, Actor::Host);
            if in_switch {
                self.lbr_sched_task(hw, cpu, prev, core, false);
            }
        }
        if !self.exchange(prev, next, id) {
            self.context_out(hw, cpu, id, Classes::ALL);
        }
        if core.is_some() {
            self.pmu_enable(hw, cpu, Actor::Host);
        }
    }

    /// The context, if it has events of the core's PMU.
    fn core_context(&self, id: Option<ContextId>) -> Option<ContextId> {
        id.filter(|id| self.context(*id).hardware != 0)
    }

    /// `task_ctx` as the core's PMU has it: before there was one context for all kinds of events,
    /// one of software was none.
    fn seen(&self, id: Option<ContextId>) -> Option<ContextId> {
        match self.behaviour.one_task_context {
            true => id,
            false => self.core_context(id),
        }
    }

    /// `next` enters a processor after `prev`: `__perf_event_task_sched_in`. Its events are
    /// placed, then the hook of the LBR restores or resets.
    pub fn task_sched_in(&mut self, hw: &mut Hardware, cpu: CpuId, next: TaskId, prev: TaskId) {
        self.cpu_mut(cpu).current = Some(next);
        let in_switch = self.behaviour.sched_hook != SchedHook::OwnBracket;
        let context = self.tasks.get(&next).and_then(|task| task.context);
        let mut hooked = false;
        if let Some(id) = context {
            if self.cpu(cpu).task_context == Some(id) {
                // It came with the exchange.
                if in_switch && self.context(id).hardware != 0 {
                    self.hook_in_bracket(hw, cpu, (next, Some(id)), true);
                    hooked = true;
                }
            } else if self.core_context(context).is_none() {
                self.context_in(hw, cpu, id, Classes::ALL);
            } else {
                self.pmu_disable(hw, cpu, Actor::Host);
                let own = self.cpu(cpu).context;
                if !self.context(id).pinned.is_empty() {
                    self.context_out(hw, cpu, own, Classes::FLEXIBLE);
                }
                self.place_all(hw, cpu, Some(id));
                if in_switch {
                    self.lbr_sched_task(hw, cpu, next, context, true);
                    hooked = true;
                }
                self.pmu_enable(hw, cpu, Actor::Host);
            }
        }
        // In the switch, the hook of its own is for tasks without a context that is on.
        let task = self.cpu(cpu).task_context;
        let without = self.hooks_without_context() && self.seen(task).is_none();
        let left = !in_switch || without;
        if prev != next && !hooked && left {
            let core = self.core_context(task);
            self.hook_in_bracket(hw, cpu, (next, core), true);
        }
    }

    fn hooks_without_context(&self) -> bool {
        self.behaviour.sched_hook == SchedHook::InSwitch
    }

    /// `__perf_pmu_sched_task`, if somebody asked for the hook: `perf_sched_cb_inc`.
    fn hook_in_bracket(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        (task, context): (TaskId, Option<ContextId>),
        enters: bool,
    ) {
        if self.cpu(cpu).lbr.users == 0 {
            return;
        }
        self.pmu_disable(hw, cpu, Actor::Host);
        self.lbr_sched_task(hw, cpu, task, context, enters);
        self.pmu_enable(hw, cpu, Actor::Host);
    }

    /// `perf_event_context_sched_out`, clones: `next` goes on with the events of `prev` as they
    /// are. Whether it did.
    fn exchange(&mut self, prev: TaskId, next: TaskId, id: ContextId) -> bool {
        let Some(other) = self.tasks.get(&next).and_then(|task| task.context) else {
            return false;
        };
        if !equivalent((id, self.context(id)), (other, self.context(other))) {
            return false;
        }
        self.context_mut(id).holder = Holder::Task(next);
        self.context_mut(other).holder = Holder::Task(prev);
        if self.behaviour.clone_swap != CloneSwap::DataOfTask {
            let (mine, theirs) = (self.context(id).data, self.context(other).data);
            self.context_mut(id).data = theirs;
            self.context_mut(other).data = mine;
            if self.behaviour.clone_swap == CloneSwap::CountsBack {
                self.swap_call_stack_users(mine, theirs);
            }
        }
        self.task_mut(prev).context = Some(other);
        self.task_mut(next).context = Some(id);
        true
    }
}
