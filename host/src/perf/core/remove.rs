//! Releasing events.

use crate::CpuId;
use crate::hardware::Hardware;
use crate::perf::{Errno, EventCause, EventId, EventState, Perf};

use super::{Classes, Holder};

impl Perf {
    /// Releases an event: `perf_event_release_kernel`. It comes off at once, on whatever processor
    /// it is; nothing else is placed in its stead before the next switch or rotation.
    ///
    /// # Errors
    /// `ENOENT`: no such event.
    pub fn release(&mut self, hw: &mut Hardware, id: EventId) -> Result<(), Errno> {
        let event = self.events.get(&id).ok_or(Errno::ENOENT)?;
        if !event.detached {
            let cpu = self.cpu_of_context(event.context);
            self.remove_from_context(hw, cpu, id);
        }
        self.event_mut(id).change(EventCause::Released, 0);
        let Some(event) = self.events.remove(&id) else {
            return Ok(());
        };
        for other in self.events.values_mut() {
            if other.parent == Some(id) {
                other.parent = None;
            }
        }
        self.detach_data(&event);
        self.free_context(event.context);
        Ok(())
    }

    /// Forgets a context of a task that is gone when its last event is.
    pub(super) fn free_context(&mut self, id: super::ContextId) {
        let orphan = self.context(id).holder == Holder::Nobody;
        if orphan && !self.events.values().any(|event| event.context == id) {
            self.contexts.remove(&id);
        }
    }

    /// `__perf_remove_from_context`, with the group detached.
    pub(super) fn remove_from_context(
        &mut self,
        hw: &mut Hardware,
        cpu: Option<CpuId>,
        id: EventId,
    ) {
        if let Some(cpu) = self.event_ref(id).oncpu {
            self.event_out(hw, cpu, id);
        }
        let event = self.event_ref(id);
        let (context, leader, pinned) = (event.context, event.leader, event.attr.pinned);
        let (index, hardware) = (event.group_index, !event.is_software());
        if leader == id {
            let siblings = core::mem::take(&mut self.event_mut(id).siblings);
            self.context_mut(context).groups_mut(pinned).remove(&index);
            for sibling in siblings {
                self.make_leader(sibling);
            }
        } else {
            self.event_mut(leader).siblings.retain(|other| *other != id);
            self.event_mut(id).leader = id;
        }
        let gone = {
            let context = self.context_mut(context);
            context.events -= 1;
            context.hardware -= u32::from(hardware);
            context.generation += 1;
            let gone = context.events == 0 && context.is_active != Classes::NONE;
            if gone {
                context.is_active = Classes::NONE;
                context.rotate_necessary = false;
            }
            gone
        };
        if let Some(cpu) = cpu.filter(|_| gone)
            && self.cpu(cpu).task_context == Some(context)
        {
            self.cpu_mut(cpu).task_context = None;
        }
        self.event_mut(id).detached = true;
    }

    /// `perf_group_detach`: a sibling stands alone when its leader goes, and stays on.
    fn make_leader(&mut self, id: EventId) {
        let event = self.event_ref(id);
        let (context, pinned, state) = (event.context, event.attr.pinned, event.state);
        let index = self.context_mut(context).insert_group(pinned, id);
        let event = self.event_mut(id);
        event.leader = id;
        event.group_index = index;
        if state == EventState::Active {
            self.context_mut(context).active_list(pinned).push(id);
        }
    }
}
