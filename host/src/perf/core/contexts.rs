//! Contexts: the events of a processor or of a task.

use std::collections::BTreeMap;

use crate::perf::EventId;
use crate::perf::lbr::LbrDataId;
use crate::{CpuId, TaskId};

/// The number of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContextId(pub(crate) u32);

/// Whose a context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Cpu(CpuId),
    Task(TaskId),
    /// Its task is gone; events that somebody holds stay in it.
    Nobody,
}

/// Classes of events: `enum event_type_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Classes(u8);

impl Classes {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const PINNED: Self = Self(1);
    pub(crate) const FLEXIBLE: Self = Self(2);
    pub(crate) const ALL: Self = Self(3);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Groups of one class, by `group_index`.
pub(crate) type Groups = BTreeMap<u64, EventId>;

/// `struct perf_event_context`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    pub(crate) holder: Holder,
    /// `pinned_groups`.
    pub(crate) pinned: Groups,
    /// `flexible_groups`.
    pub(crate) flexible: Groups,
    /// `pinned_active`: leaders that are on, in the order they went on.
    pub(crate) pinned_active: Vec<EventId>,
    /// `flexible_active`.
    pub(crate) flexible_active: Vec<EventId>,
    next_index: u64,
    /// `nr_events`, siblings included.
    pub(crate) events: u32,
    /// How many of them are not of software.
    pub(crate) hardware: u32,
    /// `nr_active`.
    pub(crate) active: u32,
    /// `is_active`: classes that were placed.
    pub(crate) is_active: Classes,
    pub(crate) rotate_necessary: bool,
    /// `parent_ctx` and `parent_gen`: the context this one is a clone of.
    pub(crate) parent: Option<(ContextId, u64)>,
    pub(crate) generation: u64,
    /// `task_ctx_data`, before it became the task's.
    pub(crate) data: Option<LbrDataId>,
}

impl Context {
    pub(crate) fn new(holder: Holder) -> Self {
        Self {
            holder,
            pinned: Groups::new(),
            flexible: Groups::new(),
            pinned_active: Vec::new(),
            flexible_active: Vec::new(),
            next_index: 0,
            events: 0,
            hardware: 0,
            active: 0,
            is_active: Classes::NONE,
            rotate_necessary: false,
            parent: None,
            generation: 0,
            data: None,
        }
    }

    pub(crate) const fn groups(&self, pinned: bool) -> &Groups {
        if pinned { &self.pinned } else { &self.flexible }
    }

    pub(crate) const fn groups_mut(&mut self, pinned: bool) -> &mut Groups {
        if pinned {
            &mut self.pinned
        } else {
            &mut self.flexible
        }
    }

    pub(crate) const fn active_list(&mut self, pinned: bool) -> &mut Vec<EventId> {
        if pinned {
            &mut self.pinned_active
        } else {
            &mut self.flexible_active
        }
    }

    /// `perf_event_groups_insert`: last of its class. Its index.
    pub(crate) fn insert_group(&mut self, pinned: bool, leader: EventId) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        self.groups_mut(pinned).insert(index, leader);
        index
    }

    /// Indices count from 0 in the same order; those that the leaders have then.
    pub(crate) fn compress(&mut self) -> Vec<(EventId, u64)> {
        let mut order: Vec<u64> = self
            .pinned
            .keys()
            .chain(self.flexible.keys())
            .copied()
            .collect();
        order.sort_unstable();
        let place = |index: u64| order.partition_point(|other| *other < index) as u64;
        for groups in [&mut self.pinned, &mut self.flexible] {
            *groups = groups.iter().map(|(at, id)| (place(*at), *id)).collect();
        }
        self.next_index = order.len() as u64;
        let all = self.pinned.iter().chain(&self.flexible);
        all.map(|(at, id)| (*id, *at)).collect()
    }

    /// `unclone_ctx`: it is nobody's clone from now on.
    pub(crate) const fn unclone(&mut self) {
        self.parent = None;
        self.generation += 1;
    }
}

/// `context_equiv`: whether `a` and `b` are clones of each other or of one context, unchanged
/// since.
pub(crate) fn equivalent(a: (ContextId, &Context), b: (ContextId, &Context)) -> bool {
    let of = |(id, context): (ContextId, &Context), clone: &Context| {
        clone.parent == Some((id, context.generation))
    };
    of(a, b.1) || of(b, a.1) || (a.1.parent.is_some() && a.1.parent == b.1.parent)
}
