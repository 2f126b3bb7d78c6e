//! perf without what no later input can tell apart.

use std::collections::BTreeMap;

use super::core::ContextId;
use super::lbr::LbrDataId;
use super::{EventId, Perf};

/// Counts of `lbr_callstack_users` beyond this, either way, are taken as equal: some kernels have hazards by
/// which they grow without end, and nothing but whether they are 0 is ever asked.
const CALLSTACK_USERS: i32 = 2;

/// What replaces `log_id` of a save that is not the last any more.
const OVERTAKEN: u64 = u64::MAX;

/// Numbers that are never given twice, as they are given anew from 0 in the same order.
#[derive(Debug)]
struct Renumbered<T>(BTreeMap<T, u32>);

impl<T: Ord + Copy> Renumbered<T> {
    fn of(numbers: impl Iterator<Item = T>) -> Self {
        Self(numbers.zip(0..).collect())
    }

    /// A number that nothing has any more gets the highest.
    fn get(&self, number: T) -> u32 {
        self.0.get(&number).copied().unwrap_or(u32::MAX)
    }

    fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

/// The events as [`Perf::canonical`] numbers them.
#[derive(Debug)]
pub(crate) struct EventNumbers(Renumbered<EventId>);

impl EventNumbers {
    pub(crate) fn get(&self, event: EventId) -> EventId {
        EventId(self.0.get(event))
    }
}

impl Perf {
    /// Numbers are given anew in their order, counts of what happened are dropped, and of stamps that
    /// are only compared for equality it stays which are equal.
    pub(crate) fn canonical(&self) -> (Self, EventNumbers) {
        let mut perf = self.clone();
        let events = Renumbered::of(perf.events.keys().copied());
        let contexts = Renumbered::of(perf.contexts.keys().copied());
        let data = Renumbered::of(perf.data.keys().copied());
        let (event, context) = (
            |id| EventId(events.get(id)),
            |id| ContextId(contexts.get(id)),
        );
        let datum = |id| LbrDataId(data.get(id));

        perf.stamp_tags();
        perf.stamp_saves();
        perf.compress_groups();
        for found in perf.events.values_mut() {
            found.context = context(found.context);
            found.leader = event(found.leader);
            found.siblings.iter_mut().for_each(|id| *id = event(*id));
            found.parent = found.parent.map(event);
            found.wakeups = 0;
        }
        let cloned = perf.contexts.values().any(|found| found.parent.is_some());
        for found in perf.contexts.values_mut() {
            let groups = found.pinned.values_mut().chain(found.flexible.values_mut());
            groups.for_each(|id| *id = event(*id));
            let active = found.pinned_active.iter_mut();
            let active = active.chain(&mut found.flexible_active);
            active.for_each(|id| *id = event(*id));
            found.parent = found.parent.map(|(id, at)| (context(id), at));
            found.data = found.data.map(datum);
            if !cloned {
                found.generation = 0;
            }
        }
        for task in perf.tasks.values_mut() {
            task.context = task.context.map(context);
            task.data = task.data.map(datum);
        }
        for cpu in &mut perf.cpus {
            cpu.context = context(cpu.context);
            cpu.task_context = cpu.task_context.map(context);
            cpu.lbr.last = cpu.lbr.last.map(|(id, at)| (datum(id), at));
            let listed = cpu.pmu.list.iter_mut().map(|listed| &mut listed.event);
            let listed = listed.chain(cpu.pmu.active.values_mut());
            listed.for_each(|id| *id = event(*id));
        }
        perf.events = perf
            .events
            .into_iter()
            .map(|(k, v)| (event(k), v))
            .collect();
        let renamed = perf.contexts.into_iter();
        perf.contexts = renamed.map(|(k, v)| (context(k), v)).collect();
        perf.data = perf.data.into_iter().map(|(k, v)| (datum(k), v)).collect();
        perf.next_event = events.len();
        perf.next_context = contexts.len();
        perf.next_data = data.len();
        let few = |users: i32| users.clamp(-CALLSTACK_USERS, CALLSTACK_USERS);
        perf.system_wide.callstack_users = few(perf.system_wide.callstack_users);
        for found in perf.data.values_mut() {
            found.users = few(found.users);
        }
        perf.unchecked = 0;
        perf.not_modelled = 0;
        (perf, EventNumbers(events))
    }

    /// Of an event's tag it stays which places of its processor's list have the same.
    fn stamp_tags(&mut self) {
        for event in self.events.values_mut() {
            if let Some((cpu, tag)) = &mut event.hw.last {
                let tags = self.cpus[cpu.index()].pmu.tags.iter().take(32);
                let same = tags.zip(0u32..).filter(|(of, _)| **of == *tag);
                *tag = same.fold(0, |mask, (_, n)| mask | 1 << n);
            }
        }
        for cpu in &mut self.cpus {
            cpu.pmu.tags.fill(0);
        }
    }

    /// Of `log_id` it stays whether what a processor holds is the last save.
    fn stamp_saves(&mut self) {
        for cpu in &mut self.cpus {
            if let Some((id, at)) = &mut cpu.lbr.last {
                let last = self.data.get(id).is_some_and(|data| data.log_id == *at);
                *at = if last { 0 } else { OVERTAKEN };
            }
        }
        for data in self.data.values_mut() {
            data.log_id = 0;
        }
    }

    /// Places in the trees of groups count from 0.
    fn compress_groups(&mut self) {
        let mut places = BTreeMap::new();
        for context in self.contexts.values_mut() {
            places.extend(context.compress());
        }
        for (id, event) in &mut self.events {
            event.group_index = places.get(id).copied().unwrap_or(0);
        }
    }
}
