//! The LBR of guests without an event that stands for it: a mediated LBR. No kernel has it;
//! `docs/mediated-lazy.md` says what it would change.

use core::hash::{Hash, Hasher};
use std::collections::BTreeMap;

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;

use crate::hardware::{Hardware, Stack, Word};
use crate::kvm::SavedStack;
use crate::perf::core::ContextId;
use crate::perf::{EventId, EventState, Perf};
use crate::{CpuId, Owned, VcpuId};

/// Stacks of guests that are not in the registers of a processor, and how often one was moved. The
/// counts are results, not state.
#[derive(Clone, Debug, Default)]
pub struct GuestLbrs {
    saved: BTreeMap<VcpuId, SavedStack>,
    loads: u64,
    saves: u64,
}

impl PartialEq for GuestLbrs {
    fn eq(&self, other: &Self) -> bool {
        self.saved == other.saved
    }
}

impl Eq for GuestLbrs {}

impl Hash for GuestLbrs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.saved.hash(state);
    }
}

impl GuestLbrs {
    /// How often a stack was written to the registers.
    #[must_use]
    pub const fn loads(&self) -> u64 {
        self.loads
    }

    /// How often one was read from them.
    #[must_use]
    pub const fn saves(&self) -> u64 {
        self.saves
    }

    /// How many stand in memory.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.saved.len()
    }
}

impl Perf {
    /// The stacks of guests.
    #[must_use]
    pub const fn guest_lbrs(&self) -> &GuestLbrs {
        &self.guests
    }

    /// A guest's stack while it is in memory; `None` while a processor's registers hold it, and
    /// before it was used.
    #[must_use]
    pub fn guest_lbr(&self, vcpu: VcpuId) -> Option<&SavedStack> {
        self.guests.saved.get(&vcpu)
    }

    /// As [`Perf::guest_lbr`], to be changed; an empty one if there was none. It must be in no
    /// processor's registers.
    pub fn guest_lbr_mut(&mut self, vcpu: VcpuId) -> &mut SavedStack {
        self.guests.saved.entry(vcpu).or_default()
    }

    /// A guest gets the LBR of a processor until [`Perf::guest_lbr_put`]: events that need it are put
    /// aside, and its stack is written unless it still stands there.
    pub fn guest_lbr_load(&mut self, hw: &mut Hardware, cpu: CpuId, vcpu: VcpuId) {
        if !self.cpu(cpu).lbr.lent {
            self.put_aside(hw, cpu);
        }
        let lbr = &mut self.cpu_mut(cpu).lbr;
        lbr.lent = true;
        if lbr.guest != Some(vcpu) {
            self.guest_lbr_flush(hw, cpu);
            let stack = self.guests.saved.remove(&vcpu).unwrap_or_default();
            self.write_guest(hw, cpu, &stack);
            self.guests.loads += 1;
            let lbr = &mut self.cpu_mut(cpu).lbr;
            (lbr.guest, lbr.of_guest, lbr.last) = (Some(vcpu), true, None);
        }
    }

    /// The host may use the LBR of a processor again: events that were put aside are placed. The
    /// guest's stack stays in the registers until somebody needs them.
    pub fn guest_lbr_put(&mut self, hw: &mut Hardware, cpu: CpuId) {
        if !core::mem::replace(&mut self.cpu_mut(cpu).lbr.lent, false) {
            return;
        }
        let state = self.cpu(cpu);
        let (own, task) = (state.context, state.task_context);
        let waits = |id: ContextId| {
            let context = self.context(id);
            let leaders = context.groups(true).values();
            let mut leaders = leaders.chain(context.groups(false).values());
            leaders.any(|leader| self.needs_lbr(*leader))
        };
        if waits(own) || task.is_some_and(waits) {
            self.reschedule(hw, cpu, task, (true, true));
        }
    }

    /// What the registers of a processor hold of a guest goes into memory: an event needs them, the
    /// VMCS leaves the processor, or a deep C-state follows.
    pub fn guest_lbr_flush(&mut self, hw: &mut Hardware, cpu: CpuId) {
        let Some(vcpu) = self.cpu_mut(cpu).lbr.guest.take() else {
            return;
        };
        let stack = self.read_guest(hw, cpu);
        self.guests.saved.insert(vcpu, stack);
        self.guests.saves += 1;
    }

    /// A guest's stack is given up, wherever it is.
    pub fn guest_lbr_drop(&mut self, vcpu: VcpuId) {
        self.guests.saved.remove(&vcpu);
        for cpu in &mut self.cpus {
            cpu.lbr.guest = cpu.lbr.guest.filter(|guest| *guest != vcpu);
        }
    }

    /// An event of the group needs the LBR, as it is enabled.
    fn needs_lbr(&self, leader: EventId) -> bool {
        self.members(leader).into_iter().any(|member| {
            let event = self.event_ref(member);
            event.needs_branch_stack() && event.state > EventState::Off
        })
    }

    /// A group that has to wait until the guest's vCPU is put. It stays INACTIVE, a pinned one too.
    pub(crate) fn is_put_aside(&self, cpu: CpuId, leader: EventId) -> bool {
        self.cpu(cpu).lbr.lent && self.needs_lbr(leader)
    }

    /// Takes off every group that needs the LBR.
    fn put_aside(&mut self, hw: &mut Hardware, cpu: CpuId) {
        if self.cpu(cpu).lbr.users == 0 {
            return;
        }
        let on = |id: &EventId| {
            let event = self.event_ref(*id);
            event.needs_branch_stack() && event.oncpu == Some(cpu)
        };
        let users = self.events.keys().copied().filter(on);
        let mut leaders: Vec<EventId> = users.map(|id| self.event_ref(id).leader).collect();
        leaders.dedup();
        self.pmu_disable(hw, cpu, Actor::Host);
        for leader in leaders {
            self.group_out(hw, cpu, leader);
        }
        self.cpu_mut(cpu).lbr.lent = true;
        self.pmu_enable(hw, cpu, Actor::Host);
    }

    /// TOS, `LBR_SELECT`, every entry: N * E + 2 reads.
    fn read_guest(&mut self, hw: &mut Hardware, cpu: CpuId) -> SavedStack {
        const BY: Actor = Actor::HostSave;
        let msrs = self.model.msrs;
        let mut read =
            |msr: Option<Msr>| msr.map_or(Owned::CLEARED, |msr| self.rdmsr(hw, cpu, BY, msr));
        let (tos, filter) = (read(msrs.tos), read(msrs.select));
        let mut entries = Stack::default();
        let (processor, _, ledger) = hw.split(cpu);
        if processor.read_stack(ledger, BY, &mut entries).is_err() {
            self.unchecked += 1;
        }
        SavedStack {
            entries,
            tos,
            filter,
        }
    }

    /// The same back, with what FROM needs for the sign quirk.
    fn write_guest(&mut self, hw: &mut Hardware, cpu: CpuId, stack: &SavedStack) {
        const BY: Actor = Actor::HostRestore;
        let mut entries = stack.entries.clone();
        if self.model.sign_quirk {
            for n in 0..self.model.msrs.nr {
                let mut entry = entries.entry(n);
                let from = entry.from();
                let read = self.model.from_after_read(from.value);
                let value = self.model.from_for_write(read);
                entry.set(Word::From, Owned::new(value, from.owner));
                entries.set_entry(n, entry);
            }
        }
        let (processor, _, ledger) = hw.split(cpu);
        if processor.write_stack(ledger, BY, &entries).is_err() {
            self.unchecked += 1;
        }
        let msrs = self.model.msrs;
        for (msr, value) in [(msrs.select, stack.filter), (msrs.tos, stack.tos)] {
            if let Some(msr) = msr {
                self.wrmsr_of(hw, cpu, BY, msr, value);
            }
        }
    }
}
