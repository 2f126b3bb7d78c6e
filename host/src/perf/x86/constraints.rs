//! Which counters an event may have: `__intel_get_event_constraints` and the shared registers.

use super::VLBR;
use crate::CpuId;
use crate::perf::lbr::SharedSlot;
use crate::perf::{EventAttr, EventId, EventKind, GuestLbr, Perf};

/// `struct event_constraint`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Constraint {
    /// `idxmsk64`: counters by index.
    pub(crate) mask: u64,
    /// v8: on without a counter.
    pub(crate) no_counter: bool,
}

impl Constraint {
    /// `emptyconstraint`: it cannot be on now.
    pub(crate) const EMPTY: Self = Self {
        mask: 0,
        no_counter: false,
    };

    /// `weight`.
    pub(crate) const fn weight(self) -> u32 {
        self.mask.count_ones()
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.mask == 0
    }
}

/// The filter of an event as sharing sees it, and whether it holds a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) config: Option<u64>,
    pub(crate) alloc: bool,
}

/// A bit of the shared value that no filter has.
const NOBODY_ELSES: u64 = 1 << 62;

/// `__intel_shared_reg_get_constraints`: takes a reference if the event has a filter and none yet;
/// whether it did. `None`: the slot holds another value.
fn refer(share: Share, slot: &mut SharedSlot, scratch: bool) -> Option<bool> {
    let Some(config) = share.config.filter(|_| scratch || !share.alloc) else {
        return Some(false);
    };
    if slot.refs != 0 && slot.config != config {
        return None;
    }
    slot.config = config;
    slot.refs += 1;
    Some(true)
}

impl Perf {
    /// The static constraint, PEBS's in its stead: `intel_pebs_constraints`,
    /// `x86_get_event_constraints`.
    fn static_constraint(&self, attr: &EventAttr) -> Constraint {
        let EventKind::Counter { counters, .. } = attr.kind else {
            return Constraint::EMPTY;
        };
        let mut mask = counters.0 & self.pmu.counters;
        if attr.precise_ip != 0 {
            mask &= self.pmu.pebs;
        }
        Constraint {
            mask,
            no_counter: false,
        }
    }

    /// `__intel_get_event_constraints`: the virtual event first, which takes no reference; then the
    /// slot of the branch filter; then PEBS and the static tables. With it, whether a reference was
    /// taken.
    pub(crate) fn constraint(
        &self,
        attr: &EventAttr,
        no_counter: bool,
        share: Share,
        slot: &mut SharedSlot,
        scratch: bool,
    ) -> (Constraint, bool) {
        if attr.kind == EventKind::VirtualLbr {
            let known = self.behaviour.guest_lbr == GuestLbr::Virtual;
            let mask = if known { 1 << VLBR } else { 0 };
            let constraint = Constraint {
                mask,
                no_counter: false,
            };
            let config = share.config.map(|config| config | NOBODY_ELSES);
            let shares = self.behaviour.virtual_lbr_shares_register;
            let share = Share { config, ..share };
            return match shares.then(|| refer(share, slot, scratch)) {
                None => (constraint, false),
                Some(Some(taken)) => (constraint, taken),
                Some(None) => (Constraint::EMPTY, false),
            };
        }
        let Some(taken) = refer(share, slot, scratch) else {
            return (Constraint::EMPTY, false);
        };
        let mut constraint = self.static_constraint(attr);
        constraint.no_counter = no_counter;
        (constraint, taken)
    }

    /// `intel_get_event_constraints` for an event of a processor's list.
    pub(crate) fn get_constraint(&mut self, cpu: CpuId, id: EventId) -> Constraint {
        let event = self.event_ref(id);
        let (attr, no_counter) = (event.attr, event.hw.no_counter);
        let share = event.hw.branch.map_or_else(Share::default, |branch| Share {
            config: branch.config,
            alloc: branch.alloc,
        });
        let at = self.slot_of(cpu);
        let mut slot = self.slots[at];
        let (constraint, taken) = self.constraint(&attr, no_counter, share, &mut slot, false);
        self.slots[at] = slot;
        if let Some(branch) = self.event_mut(id).hw.branch.as_mut().filter(|_| taken) {
            branch.alloc = true;
        }
        constraint
    }

    /// `intel_put_event_constraints`: the reference goes back, the slot keeps its value.
    pub(crate) fn put_constraint(&mut self, cpu: CpuId, id: EventId) {
        let at = self.slot_of(cpu);
        let branch = self.event_mut(id).hw.branch.as_mut();
        if let Some(branch) = branch.filter(|branch| branch.alloc) {
            branch.alloc = false;
            self.slots[at].refs -= 1;
        }
    }
}
