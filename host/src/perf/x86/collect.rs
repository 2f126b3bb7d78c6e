//! Events on and off a processor's list, and transactions: `arch/x86/events/core.c`.

use std::collections::BTreeMap;

use vlbr_cpu::ledger::Actor;

use super::assign::assign;
use super::constraints::Constraint;
use crate::CpuId;
use crate::hardware::Hardware;
use crate::perf::{EventId, Perf};

/// An event on the list: `event_list[n]`, `event_constraint[n]`, `assign[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Listed {
    pub(crate) event: EventId,
    pub(crate) constraint: Option<Constraint>,
    pub(crate) assign: Option<u8>,
}

/// The counters' part of `struct cpu_hw_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CpuPmu {
    /// The list: `n_events`.
    pub(crate) list: Vec<Listed>,
    /// `n_added`: events at its end that were not programmed.
    pub(crate) added: usize,
    /// `n_txn`: events of the running transaction.
    transaction: usize,
    /// `txn_flags`.
    pub(crate) in_transaction: bool,
    /// `enabled`.
    pub(crate) enabled: bool,
    /// `tags`, by place in the list.
    pub(crate) tags: Vec<u32>,
    /// `events` and `active_mask`: what each counter counts for.
    pub(crate) active: BTreeMap<u8, EventId>,
    /// `intel_ctrl_guest_mask`: counters that count for the guest alone; bit 58 is the guest's LBR.
    pub(crate) guest_mask: u64,
    /// `intel_ctrl_host_mask`: counters that do not count in the guest.
    pub(crate) host_mask: u64,
    /// `pebs_enabled`.
    pub(crate) pebs_enabled: u64,
    /// The wanted value of `FIXED_CTR_CTRL`, where it is written late.
    pub(crate) fixed_control: u64,
    /// What was written last.
    pub(crate) active_fixed_control: u64,
}

impl Perf {
    /// `x86_pmu_start_txn`.
    pub(crate) fn start_transaction(&mut self, hw: &mut Hardware, cpu: CpuId) {
        self.pmu_disable(hw, cpu, Actor::Host);
        let pmu = &mut self.cpu_mut(cpu).pmu;
        pmu.in_transaction = true;
        pmu.transaction = 0;
    }

    /// `x86_pmu_commit_txn`. Whether every event on the list fits.
    pub(crate) fn commit_transaction(&mut self, hw: &mut Hardware, cpu: CpuId) -> bool {
        if !self.schedule(cpu) {
            return false;
        }
        self.cpu_mut(cpu).pmu.in_transaction = false;
        self.pmu_enable(hw, cpu, Actor::Host);
        true
    }

    /// `x86_pmu_cancel_txn`: the list without the events of the transaction.
    pub(crate) fn cancel_transaction(&mut self, hw: &mut Hardware, cpu: CpuId) {
        let pmu = &mut self.cpu_mut(cpu).pmu;
        pmu.in_transaction = false;
        let left = pmu.list.len() - pmu.transaction;
        pmu.list.truncate(left);
        pmu.added -= pmu.transaction;
        self.pmu_enable(hw, cpu, Actor::Host);
    }

    /// `collect_events`: how many events may be on at once, whatever they need.
    pub(crate) const fn collection_limit(&self) -> usize {
        self.pmu.gp as usize + self.pmu.fixed as usize
    }

    /// `x86_pmu_add`. False if the list is full, before anything was done.
    pub(crate) fn pmu_add(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) -> bool {
        if self.cpu(cpu).pmu.list.len() >= self.collection_limit() {
            return false;
        }
        let event = &mut self.event_mut(id).hw;
        (event.stopped, event.uptodate, event.arch) = (true, true, false);
        let pmu = &mut self.cpu_mut(cpu).pmu;
        pmu.list.push(Listed {
            event: id,
            constraint: None,
            assign: None,
        });
        pmu.added += 1;
        pmu.transaction += 1;
        // Before the event is known to fit.
        if self.event_ref(id).needs_branch_stack() {
            self.lbr_add(hw, cpu, id);
        }
        true
    }

    /// `x86_pmu_del`.
    pub(crate) fn pmu_del(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        if !self.cpu(cpu).pmu.in_transaction {
            self.stop(hw, cpu, id, true);
            let pmu = &mut self.cpu_mut(cpu).pmu;
            if let Some(at) = pmu.list.iter().position(|listed| listed.event == id) {
                if at >= pmu.list.len() - pmu.added {
                    pmu.added -= 1;
                }
                pmu.list.remove(at);
            }
            self.put_constraint(cpu, id);
        }
        if self.event_ref(id).needs_branch_stack() {
            self.lbr_del(hw, cpu, id);
        }
    }

    /// `x86_schedule_events` at the end of a transaction: counters for every event on the list.
    fn schedule(&mut self, cpu: CpuId) -> bool {
        let pmu = &self.cpu(cpu).pmu;
        let before = pmu.list.len() - pmu.transaction;
        let events: Vec<EventId> = pmu.list.iter().map(|listed| listed.event).collect();
        for (n, id) in events.iter().enumerate() {
            if self.cpu(cpu).pmu.list[n].constraint.is_none() {
                let constraint = self.get_constraint(cpu, *id);
                self.cpu_mut(cpu).pmu.list[n].constraint = Some(constraint);
            }
        }
        let listed = &self.cpu(cpu).pmu.list;
        let constraints: Vec<Constraint> = listed
            .iter()
            .map(|listed| listed.constraint.unwrap_or(Constraint::EMPTY))
            .collect();
        let Some(assigned) = self
            .same_again(&events, &constraints)
            .or_else(|| assign(&constraints))
        else {
            for id in &events[before..] {
                self.put_constraint(cpu, *id);
            }
            for listed in &mut self.cpu_mut(cpu).pmu.list[before..] {
                listed.constraint = None;
            }
            return false;
        };
        let list = &mut self.cpu_mut(cpu).pmu.list;
        for (listed, idx) in list.iter_mut().zip(assigned) {
            listed.assign = idx;
        }
        true
    }

    /// The fast path: every event where it was last. An event without counter never was anywhere.
    fn same_again(
        &self,
        events: &[EventId],
        constraints: &[Constraint],
    ) -> Option<Vec<Option<u8>>> {
        let mut used = 0u64;
        events
            .iter()
            .zip(constraints)
            .map(|(id, constraint)| {
                let idx = self.event_ref(*id).hw.idx?;
                let bit = 1u64 << idx;
                let free = constraint.mask & bit != 0 && used & bit == 0;
                used |= bit;
                free.then_some(Some(idx))
            })
            .collect()
    }
}
