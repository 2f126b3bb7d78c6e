//! Rotation: flexible groups that did not fit get their turn.

use vlbr_cpu::ledger::Actor;

use super::{Classes, Context, ContextId};
use crate::CpuId;
use crate::hardware::Hardware;
use crate::perf::{EventId, Perf};

/// `ctx_event_to_rotate`: the flexible group that is on longest; the first, if none is on.
fn to_rotate(context: &Context) -> Option<EventId> {
    let first = || context.flexible.values().next();
    context.flexible_active.first().or_else(first).copied()
}

impl Perf {
    /// Whether the rotation timer of a processor has something to do: a flexible group of a context
    /// that is on did not fit.
    #[must_use]
    pub fn wants_rotation(&self, cpu: CpuId) -> bool {
        let state = self.cpu(cpu);
        let own = self.context(state.context).rotate_necessary;
        own || state
            .task_context
            .is_some_and(|task| self.context(task).rotate_necessary)
    }

    /// The rotation timer of a processor fires: `perf_rotate_context`.
    pub fn rotate(&mut self, hw: &mut Hardware, cpu: CpuId) {
        if !self.wants_rotation(cpu) {
            return;
        }
        let (own, task) = (self.cpu(cpu).context, self.cpu(cpu).task_context);
        self.pmu_disable(hw, cpu, Actor::Host);
        let chosen = |perf: &mut Self, id: ContextId| {
            let necessary = perf.context(id).rotate_necessary;
            let event = to_rotate(perf.context(id)).filter(|_| necessary);
            if necessary {
                perf.context_mut(id).rotate_necessary = false;
            }
            event
        };
        let of_task = task.and_then(|task| chosen(self, task));
        let of_cpu = chosen(self, own);
        if let Some(task) = task.filter(|_| of_task.is_some() || of_cpu.is_some()) {
            self.context_out(hw, cpu, task, Classes::FLEXIBLE);
        }
        if of_cpu.is_some() {
            self.context_out(hw, cpu, own, Classes::FLEXIBLE);
        }
        for (id, event) in [(task, of_task), (Some(own), of_cpu)] {
            if let (Some(id), Some(event)) = (id, event) {
                self.move_to_end(id, event);
            }
        }
        self.place_all(hw, cpu, task);
        self.pmu_enable(hw, cpu, Actor::Host);
    }

    /// `rotate_ctx`.
    fn move_to_end(&mut self, id: ContextId, leader: EventId) {
        let index = self.event_ref(leader).group_index;
        let context = self.context_mut(id);
        context.flexible.remove(&index);
        let index = context.insert_group(false, leader);
        self.event_mut(leader).group_index = index;
    }
}
