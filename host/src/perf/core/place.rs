//! Placement: contexts, groups and events go on and off a processor.

use vlbr_cpu::ledger::Actor;

use super::{Classes, ContextId, Holder};
use crate::CpuId;
use crate::hardware::Hardware;
use crate::perf::{EventCause, EventId, EventState, ExclusiveRule, Perf};

impl Perf {
    /// `ctx_sched_out`: takes classes of a context off.
    pub(crate) fn context_out(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        id: ContextId,
        classes: Classes,
    ) {
        let context = self.context_mut(id);
        if context.events == 0 {
            return;
        }
        let changed = context.is_active.both(classes);
        context.is_active = context.is_active.without(classes);
        let gone = context.is_active == Classes::NONE;
        let (active, holder) = (context.active, context.holder);
        let hardware = context.hardware != 0;
        if gone && !matches!(holder, Holder::Cpu(_)) {
            self.cpu_mut(cpu).task_context = None;
        }
        if active == 0 || changed == Classes::NONE {
            return;
        }
        if hardware {
            self.pmu_disable(hw, cpu, Actor::Host);
        }
        for (class, pinned) in [(Classes::PINNED, true), (Classes::FLEXIBLE, false)] {
            if changed.has(class) {
                for leader in self.context_mut(id).active_list(pinned).clone() {
                    self.group_out(hw, cpu, leader);
                }
            }
        }
        if changed.has(Classes::FLEXIBLE) {
            self.context_mut(id).rotate_necessary = false;
        }
        if hardware {
            self.pmu_enable(hw, cpu, Actor::Host);
        }
    }

    /// `ctx_sched_in`: places the classes of a context that are not on.
    pub(crate) fn context_in(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        id: ContextId,
        classes: Classes,
    ) {
        let context = self.context_mut(id);
        if context.events == 0 {
            return;
        }
        let changed = classes.without(context.is_active);
        context.is_active = context.is_active.with(classes);
        if !matches!(context.holder, Holder::Cpu(_)) {
            self.cpu_mut(cpu).task_context = Some(id);
        }
        for (class, pinned) in [(Classes::PINNED, true), (Classes::FLEXIBLE, false)] {
            if changed.has(class) {
                self.place_class(hw, cpu, id, pinned);
            }
        }
    }

    /// `ctx_pinned_sched_in`, `ctx_flexible_sched_in`: one pass over the groups of a class.
    fn place_class(&mut self, hw: &mut Hardware, cpu: CpuId, id: ContextId, pinned: bool) {
        let leaders: Vec<EventId> = self.context(id).groups(pinned).values().copied().collect();
        let mut can_add_hardware = true;
        for leader in leaders {
            let event = self.event_ref(leader);
            if event.state <= EventState::Off
                || event.target.cpu().is_some_and(|on| on != cpu)
                || self.is_put_aside(cpu, leader)
            {
                continue;
            }
            let tried = self.can_go_on(cpu, leader, can_add_hardware);
            if tried && self.group_in(hw, cpu, leader) {
                self.context_mut(id).active_list(pinned).push(leader);
            }
            if self.event_ref(leader).state != EventState::Inactive {
                continue;
            }
            let merged = self.behaviour.pinned_cascade;
            if pinned {
                can_add_hardware &= !merged;
                let (now, wakes) = (hw.cpu(cpu).now().value(), self.behaviour.error_wakes);
                let event = self.event_mut(leader);
                event.change(EventCause::PinnedFailed, now);
                event.wakeups += u32::from(wakes);
            } else if tried || merged {
                can_add_hardware = false;
                self.context_mut(id).rotate_necessary = true;
            }
        }
    }

    /// `PERF_EV_CAP_SOFTWARE` of a group.
    pub(super) fn is_software_group(&self, leader: EventId) -> bool {
        let event = self.event_ref(leader);
        let siblings = event.siblings.iter();
        event.is_software() && { siblings }.all(|sibling| self.event_ref(*sibling).is_software())
    }

    /// `group_can_go_on`.
    fn can_go_on(&mut self, cpu: CpuId, leader: EventId, can_add_hardware: bool) -> bool {
        if self.is_software_group(leader) {
            return true;
        }
        if self.cpu(cpu).exclusive {
            return false;
        }
        let (attr, context) = {
            let event = self.event_ref(leader);
            (event.attr, event.context)
        };
        let kept_off = attr.exclusive
            && match self.behaviour.exclusive {
                ExclusiveRule::AnyOnCpu => self.cpu(cpu).active != 0,
                ExclusiveRule::SameList => !self
                    .context_mut(context)
                    .active_list(attr.pinned)
                    .is_empty(),
            };
        !kept_off && can_add_hardware
    }

    /// `perf_event_sched_in`: every class in its order.
    pub(crate) fn place_all(&mut self, hw: &mut Hardware, cpu: CpuId, task: Option<ContextId>) {
        let own = self.cpu(cpu).context;
        for class in [Classes::PINNED, Classes::FLEXIBLE] {
            self.context_in(hw, cpu, own, class);
            if let Some(task) = task {
                self.context_in(hw, cpu, task, class);
            }
        }
    }

    /// `ctx_resched`: makes room for an event of this class, of the processor's context or of the
    /// task's, and places everything again.
    pub(crate) fn reschedule(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        task: Option<ContextId>,
        (pinned, of_cpu): (bool, bool),
    ) {
        let classes = if pinned {
            Classes::ALL
        } else {
            Classes::FLEXIBLE
        };
        self.pmu_disable(hw, cpu, Actor::Host);
        if let Some(task) = task.filter(|_| self.cpu(cpu).task_context.is_some()) {
            self.context_out(hw, cpu, task, classes);
        }
        let own = self.cpu(cpu).context;
        if of_cpu {
            self.context_out(hw, cpu, own, classes);
        } else if pinned {
            self.context_out(hw, cpu, own, Classes::FLEXIBLE);
        }
        self.place_all(hw, cpu, task);
        self.pmu_enable(hw, cpu, Actor::Host);
    }

    /// `group_sched_in`: all of a group, or nothing. Whether it is on.
    fn group_in(&mut self, hw: &mut Hardware, cpu: CpuId, leader: EventId) -> bool {
        let members = self.members(leader);
        if self.is_software_group(leader) {
            return members.iter().all(|member| self.event_in(hw, cpu, *member));
        }
        self.start_transaction(hw, cpu);
        let mut placed = 0;
        for member in &members {
            if !self.event_in(hw, cpu, *member) {
                break;
            }
            placed += 1;
        }
        if placed == members.len() && self.commit_transaction(hw, cpu) {
            return true;
        }
        // The siblings first, as they went on, then the leader.
        for member in members
            .iter()
            .take(placed)
            .skip(1)
            .chain(&members[..placed.min(1)])
        {
            self.event_out(hw, cpu, *member);
        }
        self.cancel_transaction(hw, cpu);
        false
    }

    /// `group_sched_out`.
    pub(crate) fn group_out(&mut self, hw: &mut Hardware, cpu: CpuId, leader: EventId) {
        if self.event_ref(leader).state != EventState::Active {
            return;
        }
        let hardware = !self.is_software_group(leader);
        if hardware {
            self.pmu_disable(hw, cpu, Actor::Host);
        }
        for member in self.members(leader) {
            self.event_out(hw, cpu, member);
        }
        if hardware {
            self.pmu_enable(hw, cpu, Actor::Host);
        }
    }

    /// A group of software is placed without moving anything.
    pub(super) fn place_software(&mut self, hw: &mut Hardware, cpu: CpuId, leader: EventId) {
        let event = self.event_ref(leader);
        let (id, pinned) = (event.context, event.attr.pinned);
        if self.context(id).is_active == Classes::NONE {
            self.context_in(hw, cpu, id, Classes::ALL);
        } else if self.event_ref(leader).state == EventState::Active {
            for member in self.members(leader) {
                if self.event_ref(member).state == EventState::Inactive {
                    self.event_in(hw, cpu, member);
                }
            }
        } else if event.state > EventState::Off && self.group_in(hw, cpu, leader) {
            self.context_mut(id).active_list(pinned).push(leader);
        }
    }

    /// The leader and its siblings.
    pub(crate) fn members(&self, leader: EventId) -> Vec<EventId> {
        let siblings = self.event_ref(leader).siblings.iter().copied();
        core::iter::once(leader).chain(siblings).collect()
    }

    /// `event_sched_in`. Whether it is on, or off because it is disabled.
    fn event_in(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) -> bool {
        let now = hw.cpu(cpu).now().value();
        let event = self.event_mut(id);
        if event.state <= EventState::Off {
            return true;
        }
        event.oncpu = Some(cpu);
        event.change(EventCause::Placed, now);
        let (software, exclusive, context) =
            (event.is_software(), event.attr.exclusive, event.context);
        if !software {
            self.pmu_disable(hw, cpu, Actor::Host);
            let added = self.pmu_add(hw, cpu, id);
            self.pmu_enable(hw, cpu, Actor::Host);
            if !added {
                let event = self.event_mut(id);
                event.change(EventCause::TakenOff, now);
                event.oncpu = None;
                return false;
            }
            self.cpu_mut(cpu).active += 1;
        }
        self.context_mut(context).active += 1;
        if exclusive {
            self.cpu_mut(cpu).exclusive = true;
        }
        true
    }

    /// `event_sched_out`.
    pub(crate) fn event_out(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        let event = self.event_ref(id);
        if event.state != EventState::Active {
            return;
        }
        let (software, attr, context) = (event.is_software(), event.attr, event.context);
        let was_on = !self.cpu(cpu).pmu.in_transaction;
        let list = self.context_mut(context).active_list(attr.pinned);
        list.retain(|leader| *leader != id);
        if !software {
            self.pmu_disable(hw, cpu, Actor::Host);
            self.pmu_del(hw, cpu, id);
        }
        let now = hw.cpu(cpu).now().value();
        let event = self.event_mut(id);
        event.oncpu = None;
        event.change(EventCause::TakenOff, now);
        event.ran |= was_on;
        self.context_mut(context).active -= 1;
        let state = self.cpu_mut(cpu);
        if !software {
            state.active -= 1;
        }
        if attr.exclusive || state.active == 0 {
            state.exclusive = false;
        }
        if !software {
            self.pmu_enable(hw, cpu, Actor::Host);
        }
    }
}
