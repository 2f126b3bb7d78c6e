//! Opening events and switching them on and off.

use super::{ContextId, Holder};
use crate::hardware::Hardware;
use crate::perf::event::{Branch, HwEvent};
use crate::perf::{
    Creator, Errno, Event, EventAttr, EventCause, EventId, EventState, Perf, Target,
};
use crate::{CpuId, TaskId};

impl Perf {
    /// Opens an event and installs it: `perf_event_open`, or of a kernel creator
    /// `perf_event_create_kernel_counter`. Whether it can be placed is no error: its state tells.
    ///
    /// The machine first makes a guest exit on [`Perf::interrupts`].
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EINVAL`: what the processor cannot do, attributes or groups that can never be
    /// placed. `ESRCH`: the task is dying. `ENODEV`: the processor is offline or does not exist.
    /// `ENOENT`: no such leader. `ENOSPC`: 2^32 - 1 events were opened.
    pub fn open(
        &mut self,
        hw: &mut Hardware,
        attr: EventAttr,
        target: Target,
        creator: Creator,
        leader: Option<EventId>,
    ) -> Result<EventId, Errno> {
        let attr = self.checked(attr, creator)?;
        if leader.is_some_and(|leader| !self.events.contains_key(&leader)) {
            return Err(Errno::ENOENT);
        }
        let (attr, hw_event) = self.hw_config(attr, creator)?;
        self.validate(&attr, &hw_event, leader)?;
        self.find_target(target)?;
        if let Some(leader) = leader {
            self.may_join(leader, &attr, target)?;
        }
        let id = EventId(self.next_event);
        self.next_event = self.next_event.checked_add(1).ok_or(Errno::ENOSPC)?;
        let context = self.find_context(target, hw_event.branch);
        let state = if attr.disabled {
            EventState::Off
        } else {
            EventState::Inactive
        };
        let event = Event {
            attr,
            target,
            creator,
            state,
            oncpu: None,
            context,
            leader: leader.unwrap_or(id),
            siblings: Vec::new(),
            group_index: 0,
            parent: None,
            detached: false,
            hw: hw_event,
            count: 0,
            since: 0,
            enabled: 0,
            running: 0,
            ran: false,
            wakeups: 0,
        };
        self.events.insert(id, event);
        self.install(hw, id);
        Ok(id)
    }

    /// `perf_copy_attr` and the checks of `perf_event_open`, for events of processes.
    fn checked(&self, mut attr: EventAttr, creator: Creator) -> Result<EventAttr, Errno> {
        use vlbr_traces::perfdata::BranchSampleType as B;
        const PRIVILEGES: u64 = B::USER.0 | B::KERNEL.0 | B::HV.0;
        let Some(filter) = attr.branch_sample_type.filter(|_| !creator.is_kernel()) else {
            return Ok(attr);
        };
        if filter.0 >= B::COUNTERS.0 << 1 || filter.0 & !PRIVILEGES == 0 {
            return Err(Errno::EINVAL);
        }
        if filter.0 & PRIVILEGES == 0 {
            let mut bits = filter | B::HV;
            if !attr.exclude_user {
                bits |= B::USER;
            }
            if !attr.exclude_kernel {
                bits |= B::KERNEL;
            }
            attr.branch_sample_type = Some(bits);
        }
        Ok(attr)
    }

    /// Whether the task lives and the processor is online.
    fn find_target(&self, target: Target) -> Result<(), Errno> {
        if let Some(task) = target.task()
            && self.tasks.get(&task).is_some_and(|state| state.exiting)
        {
            return Err(Errno::ESRCH);
        }
        match target.cpu().map(|cpu| self.cpus.get(cpu.index())) {
            Some(None) => Err(Errno::ENODEV),
            Some(Some(cpu)) if !cpu.online => Err(Errno::ENODEV),
            _ => Ok(()),
        }
    }

    /// The rules of `perf_event_open` for siblings.
    fn may_join(&self, leader: EventId, attr: &EventAttr, target: Target) -> Result<(), Errno> {
        let event = self.event_ref(leader);
        let alone = event.leader != leader || event.detached;
        if alone || event.target != target || attr.pinned || attr.exclusive {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// `find_get_context`: the context of a target, with room for the LBR if the event has a
    /// call stack.
    fn find_context(&mut self, target: Target, branch: Option<Branch>) -> ContextId {
        let Some(task) = target.task() else {
            let cpu = target.cpu().unwrap_or_default();
            let context = self.cpu(cpu).context;
            self.attach_system_wide(branch);
            return context;
        };
        let id = match self.task_mut(task).context {
            Some(id) => id,
            None => {
                let id = self.new_context(Holder::Task(task));
                self.task_mut(task).context = Some(id);
                id
            }
        };
        self.context_mut(id).unclone();
        self.attach_data(task, id, branch);
        id
    }

    /// Which processor is interrupted if an event with this target is opened, released, enabled or
    /// disabled now: where it is or could be on.
    #[must_use]
    pub fn interrupts(&self, target: Target) -> Option<CpuId> {
        match target {
            Target::Cpu(cpu) => Some(cpu).filter(|cpu| self.cpus.get(cpu.index()).is_some()),
            Target::Task(task) | Target::TaskOnCpu(task, _) => self.cpu_of(task),
        }
        .filter(|cpu| self.cpu(*cpu).online)
    }

    /// As [`Perf::interrupts`], for an event that is open: where its context is on. After clones
    /// have exchanged their contexts, that is not where its target is.
    #[must_use]
    pub fn interrupts_for(&self, event: EventId) -> Option<CpuId> {
        let event = self.events.get(&event).filter(|event| !event.detached)?;
        self.cpu_of_context(event.context)
    }

    /// `perf_install_in_context`, `__perf_install_in_context`.
    fn install(&mut self, hw: &mut Hardware, id: EventId) {
        let context = self.event_ref(id).context;
        let cpu = self.cpu_of_context(context);
        let leader = self.event_ref(self.event_ref(id).leader);
        let off = self.event_ref(id).state.min(leader.state) <= EventState::Off;
        let quiet = self.behaviour.quiet_install && off && self.context(context).events != 0;
        let now = cpu.map_or(0, |cpu| hw.cpu(cpu).now().value());
        self.event_mut(id).since = now;
        self.add_to_context(id);
        if let Some(cpu) = cpu.filter(|_| !quiet) {
            self.make_room(hw, cpu, id);
        }
    }

    /// `ctx_resched` on behalf of an event, with the class of its group.
    fn make_room(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        let event = self.event_ref(id);
        if self.is_software_group(event.leader) {
            self.place_software(hw, cpu, event.leader);
            return;
        }
        let pinned = self.event_ref(event.leader).attr.pinned;
        let of_cpu = matches!(self.context(event.context).holder, Holder::Cpu(_));
        let task = if of_cpu {
            self.cpu(cpu).task_context
        } else {
            Some(event.context)
        };
        self.reschedule(hw, cpu, task, (pinned, of_cpu));
    }

    /// `add_event_to_ctx`.
    pub(crate) fn add_to_context(&mut self, id: EventId) {
        let event = self.event_ref(id);
        let (context, leader, pinned) = (event.context, event.leader, event.attr.pinned);
        let hardware = !event.is_software();
        if leader == id {
            let index = self.context_mut(context).insert_group(pinned, id);
            self.event_mut(id).group_index = index;
        } else {
            self.event_mut(leader).siblings.push(id);
        }
        let context = self.context_mut(context);
        context.events += 1;
        context.hardware += u32::from(hardware);
        context.generation += 1;
    }

    /// Enables an event: `PERF_EVENT_IOC_ENABLE`. It leaves ERROR that way alone.
    ///
    /// # Errors
    /// `ENOENT`: no such event. `ENODEV`, `ESRCH`: its processor or task is gone.
    pub fn enable(&mut self, hw: &mut Hardware, id: EventId) -> Result<(), Errno> {
        let event = self.events.get(&id).ok_or(Errno::ENOENT)?;
        if event.detached {
            return Err(match event.target.task() {
                Some(_) => Errno::ESRCH,
                None => Errno::ENODEV,
            });
        }
        if !matches!(event.state, EventState::Off | EventState::Error) {
            return Ok(());
        }
        let (leader, context) = (event.leader, event.context);
        let cpu = self.cpu_of_context(context);
        let now = cpu.map_or(0, |cpu| hw.cpu(cpu).now().value());
        self.event_mut(id).change(EventCause::Enabled, now);
        let on = self.context(context).is_active != super::Classes::NONE;
        let event = self.event_ref(id);
        let Some(cpu) = cpu.filter(|cpu| on && event.target.cpu().is_none_or(|own| own == *cpu))
        else {
            return Ok(());
        };
        if leader == id || self.event_ref(leader).state == EventState::Active {
            self.make_room(hw, cpu, id);
        }
        Ok(())
    }

    /// Disables an event: `PERF_EVENT_IOC_DISABLE`. Of a leader the whole group comes off.
    ///
    /// # Errors
    /// `ENOENT`: no such event.
    pub fn disable(&mut self, hw: &mut Hardware, id: EventId) -> Result<(), Errno> {
        let event = self.events.get(&id).ok_or(Errno::ENOENT)?;
        if event.state < EventState::Inactive {
            return Ok(());
        }
        let (leader, oncpu) = (event.leader, event.oncpu);
        if let Some(cpu) = oncpu {
            if leader == id {
                self.group_out(hw, cpu, id);
            } else {
                self.event_out(hw, cpu, id);
            }
        }
        let now = oncpu.map_or(0, |cpu| hw.cpu(cpu).now().value());
        self.event_mut(id).change(EventCause::Disabled, now);
        Ok(())
    }

    /// What an event and its copies in children have counted: `perf_read`. `None` of one in ERROR:
    /// the end of the file.
    ///
    /// # Errors
    /// `ENOENT`: no such event.
    pub fn read(&self, hw: &Hardware, id: EventId) -> Result<Option<u64>, Errno> {
        let event = self.events.get(&id).ok_or(Errno::ENOENT)?;
        if event.state == EventState::Error {
            return Ok(None);
        }
        let copies = self
            .events
            .iter()
            .filter(|(_, copy)| copy.parent == Some(id));
        let counts = copies.map(|(copy, event)| event.count + self.pending_count(hw, *copy));
        let own = event.count + self.pending_count(hw, id);
        Ok(Some(counts.fold(own, u64::wrapping_add)))
    }

    /// The tasks that perf knows.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = TaskId> {
        self.tasks.keys().copied()
    }
}

impl Event {
    /// A copy for a child, before it is in its context.
    pub(super) fn inherited(&self, id: EventId, (leader, context): (EventId, ContextId)) -> Self {
        let on = self.state >= EventState::Inactive;
        let parent = (leader, id);
        Self {
            state: if on {
                EventState::Inactive
            } else {
                EventState::Off
            },
            oncpu: None,
            context,
            leader: parent.0,
            siblings: Vec::new(),
            hw: HwEvent {
                idx: None,
                last: None,
                prev_count: 0,
                period_left: self.hw.sample_period as i64,
                branch: self.hw.branch.map(|branch| Branch {
                    alloc: false,
                    ..branch
                }),
                ..self.hw.clone()
            },
            count: 0,
            since: 0,
            enabled: 0,
            running: 0,
            ran: false,
            wakeups: 0,
            ..self.clone()
        }
    }
}
