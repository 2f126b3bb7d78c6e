//! Tasks and processors that come and go.

use std::collections::BTreeMap;

use super::{Classes, Holder};
use crate::hardware::Hardware;
use crate::perf::{EventCause, EventId, EventState, Perf, TaskState};
use crate::{CpuId, TaskId};

impl Perf {
    /// A task begins: `perf_event_init_task`. It gets a copy of each group of `parent` that is
    /// inherited, and if that is every group, its context is a clone.
    pub fn fork(&mut self, parent: TaskId, child: TaskId) {
        *self.task_mut(child) = TaskState::default();
        self.attach_forked(child);
        let Some(from) = self.tasks.get(&parent).and_then(|task| task.context) else {
            return;
        };
        let mut all = true;
        let mut copied = false;
        let groups: Vec<EventId> = {
            let context = self.context(from);
            let pinned = context.pinned.values();
            pinned.chain(context.flexible.values()).copied().collect()
        };
        let inherited = |perf: &Self, id: EventId| perf.event_ref(id).attr.inherit;
        let to = match groups.iter().any(|leader| inherited(self, *leader)) {
            true => self.new_context(Holder::Task(child)),
            false => return,
        };
        self.task_mut(child).context = Some(to);
        for leader in groups {
            if !inherited(self, leader) {
                all = false;
                continue;
            }
            copied = true;
            let mut leaders = BTreeMap::new();
            for member in self.members(leader) {
                let id = EventId(self.next_event);
                self.next_event += 1;
                let new_leader = *leaders.entry(leader).or_insert(id);
                let parent = self.event_ref(member);
                let mut event = parent.inherited(id, (new_leader, to));
                event.parent = Some(parent.parent.unwrap_or(member));
                event.target = match event.target.cpu() {
                    Some(cpu) => crate::perf::Target::TaskOnCpu(child, cpu),
                    None => crate::perf::Target::Task(child),
                };
                let branch = event.hw.branch;
                self.events.insert(id, event);
                self.attach_data(child, to, branch);
                self.add_to_context(id);
            }
        }
        if all && copied {
            let (parent, generation) = {
                let context = self.context(from);
                (context.parent, context.generation)
            };
            self.context_mut(to).parent = Some(parent.unwrap_or((from, generation)));
        }
    }

    /// A task ends: `perf_event_exit_task`. Its events come off; those that somebody opened stay,
    /// in EXIT, inherited ones give their counts to whom they come from. Opening more is refused.
    pub fn exit(&mut self, hw: &mut Hardware, task: TaskId) {
        let state = self.task_mut(task);
        state.exiting = true;
        let (context, data) = (state.context.take(), state.data.take());
        if let Some(data) = data {
            self.data.remove(&data);
        }
        let Some(id) = context else {
            return;
        };
        let cpu = self
            .cpu_of(task)
            .filter(|cpu| self.cpu(*cpu).task_context == Some(id));
        if let Some(cpu) = cpu {
            self.context_out(hw, cpu, id, Classes::ALL);
        }
        let context = self.context_mut(id);
        context.holder = Holder::Nobody;
        if let Some(data) = context.data.take() {
            self.data.remove(&data);
        }
        let of_task = self.events.iter().filter(|(_, event)| event.context == id);
        let events: Vec<EventId> = of_task.map(|(id, _)| *id).collect();
        for event in events {
            if self.event_ref(event).detached {
                continue;
            }
            self.remove_from_context(hw, None, event);
            self.event_mut(event).change(EventCause::TaskExited, 0);
            if let Some(parent) = self.event_ref(event).parent {
                let count = self.event_ref(event).count;
                self.events.remove(&event);
                if let Some(parent) = self.events.get_mut(&parent) {
                    parent.count += count;
                }
            }
        }
        self.free_context(id);
    }

    /// A processor goes offline: `perf_event_exit_cpu`. Its own events are off for good, and opening
    /// more is refused. The task that was on has been moved away before.
    pub fn cpu_dead(&mut self, hw: &mut Hardware, cpu: CpuId) {
        let Some(id) = self.cpus.get(cpu.index()).map(|state| state.context) else {
            return;
        };
        self.context_out(hw, cpu, id, Classes::ALL);
        let of_cpu = self.events.iter().filter(|(_, event)| event.context == id);
        let events: Vec<EventId> = of_cpu.map(|(id, _)| *id).collect();
        for event in events {
            if self.event_ref(event).detached {
                continue;
            }
            self.remove_from_context(hw, Some(cpu), event);
            if self.event_ref(event).state > EventState::Off {
                self.event_mut(event).change(EventCause::Disabled, 0);
            }
        }
        let state = self.cpu_mut(cpu);
        state.online = false;
        state.current = None;
    }
}
