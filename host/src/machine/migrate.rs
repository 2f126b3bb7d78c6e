//! What user space carries from one vCPU to another by `KVM_GET_MSRS` and `KVM_SET_MSRS`, and what the
//! guest then finds.

use core::fmt;

use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::MsrAccess as _;

use super::{Host, HostError, Machine};
use crate::hardware::{LbrRegister, Word};
use crate::kvm::{Access, Answer, GuestPmu, Place, VcpuLbr};
use crate::policy::Policy;
use crate::{Owned, Owner, TaskId, VcpuId};

/// Which MSRs user space asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Carried {
    /// Those that the hypervisor lists: `KVM_GET_MSR_INDEX_LIST`.
    #[default]
    Listed,
    /// `IA32_DEBUGCTL` and every register of the LBR as well, by their numbers.
    Named,
}

/// MSRs and their values, as an ioctl takes them.
pub type MsrValues = Vec<(Msr, u64)>;

/// What became of a register or record of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arrival {
    /// The guest reads what it would have read.
    Equal,
    /// It reads something else, or nothing.
    Lost,
    /// It reads what is somebody else's.
    Foreign,
    /// User space could not read or write it.
    Refused,
}

impl Arrival {
    /// Each with its name.
    pub const NAMED: [(Self, &'static str); 4] = [
        (Self::Equal, "equal"),
        (Self::Lost, "lost"),
        (Self::Foreign, "foreign"),
        (Self::Refused, "refused"),
    ];
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMED[*self as usize].1)
    }
}

/// What a migration did to a guest's LBR. What was 0 before is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// MSRs that were read.
    pub read: usize,
    /// MSRs that were written.
    pub written: usize,
    /// MSRs that user space asked for and could not read or write.
    pub refused: Vec<Msr>,
    /// Records that the guest had, by slot.
    pub records: Vec<(u32, Arrival)>,
    /// What else of the LBR was not 0: `IA32_DEBUGCTL`, TOS, the filter.
    pub controls: Vec<(Msr, Arrival)>,
}

impl Migration {
    /// Records of which this became.
    #[must_use]
    pub fn count(&self, arrival: Arrival) -> usize {
        let records = self.records.iter();
        records.filter(|(_, found)| *found == arrival).count()
    }
}

/// What a guest reads of a register; `None`: `#GP`.
type Seen = Vec<(Msr, Option<Owned>)>;

impl Host {
    /// The MSRs of a vCPU that user space asks for, in the order in which it writes them: what
    /// defines the vCPU, counters, what turns recording on, and records behind it, because a new
    /// event empties the stack.
    #[must_use]
    pub fn carried_msrs(&self, policy: &dyn Policy, vcpu: VcpuId, carried: Carried) -> Vec<Msr> {
        let mut msrs = Vec::new();
        if self.kvm.lists_capabilities {
            msrs.push(Msr::PERF_CAPABILITIES);
        }
        if self.kvm.lists_counters {
            msrs.extend(self.vcpu(vcpu).pmu.listed());
        }
        msrs.extend(policy.listed(self));
        if carried == Carried::Named {
            for msr in self.lbr_registers() {
                if !msrs.contains(&msr) {
                    msrs.push(msr);
                }
            }
        }
        msrs
    }

    /// `IA32_DEBUGCTL`, filter, depth, then every word of every entry, and TOS.
    fn lbr_registers(&self) -> impl Iterator<Item = Msr> + use<> {
        let msrs = *self.lbr_msrs();
        let depth = msrs.arch.then_some(Msr::LBR_DEPTH);
        let entries = (0..msrs.nr).flat_map(move |n| {
            let words = msrs.words_of_entry();
            words.filter_map(move |word| msrs.entry(word, n))
        });
        [Some(Msr::DEBUGCTL), depth, msrs.filter()]
            .into_iter()
            .flatten()
            .chain(entries)
            .chain(msrs.tos)
    }

    /// `KVM_GET_MSRS` of these registers by a thread that runs: the values, and what could not be
    /// read.
    ///
    /// # Errors
    /// The thread does not run, or the vCPU is inside `KVM_RUN`.
    pub fn get_msrs(
        &mut self,
        policy: &dyn Policy,
        thread: TaskId,
        vcpu: VcpuId,
        msrs: &[Msr],
    ) -> Result<(MsrValues, Vec<Msr>), HostError> {
        let call = self.begin_ioctl(policy, thread, vcpu)?;
        let (mut values, mut refused) = (MsrValues::new(), Vec::new());
        for &msr in msrs {
            match self.msr_access(policy, call, Access::read(msr)) {
                Answer::Value(value) => values.push((msr, value.value)),
                Answer::Done | Answer::Refused | Answer::Unknown => refused.push(msr),
            }
        }
        self.end_ioctl(policy, call)?;
        Ok((values, refused))
    }

    /// `KVM_SET_MSRS` of these registers by a thread that runs, one after the other; gives those
    /// that were refused. One ioctl ends at the first of them: user space that goes on makes
    /// another for the rest.
    ///
    /// # Errors
    /// The thread does not run, or the vCPU is inside `KVM_RUN`.
    pub fn set_msrs(
        &mut self,
        policy: &dyn Policy,
        thread: TaskId,
        vcpu: VcpuId,
        values: &[(Msr, u64)],
    ) -> Result<Vec<Msr>, HostError> {
        let call = self.begin_ioctl(policy, thread, vcpu)?;
        let mut refused = Vec::new();
        for &(msr, value) in values {
            let access = Access::write(msr, Self::guests(vcpu, value));
            if !matches!(self.msr_access(policy, call, access), Answer::Done) {
                refused.push(msr);
            }
        }
        self.end_ioctl(policy, call)?;
        Ok(refused)
    }

    /// The vCPU goes, and one that knows nothing of it is in its place, on a processor where it never
    /// was: what it meets on another host of the same kind. `kvm_arch_vcpu_destroy`,
    /// `kvm_arch_vcpu_create`.
    fn arrive(
        &mut self,
        policy: &dyn Policy,
        thread: TaskId,
        vcpu: VcpuId,
    ) -> Result<(), HostError> {
        self.reset_guest_pmu(vcpu);
        policy.reset(self, vcpu);
        let cpu = self.task(thread).and_then(|task| task.cpu);
        let cpu = cpu.ok_or(HostError::NotRunning(thread))?;
        self.hardware.cpu_mut(cpu).forget(Owner::Guest(vcpu));
        self.remake_vmcs(vcpu, cpu)?;
        let state = self.vcpu_mut(vcpu);
        state.lbr = VcpuLbr::default();
        state.pmu = GuestPmu::new(&state.guest_cpu);
        state.perf_capabilities = 0;
        state.host_debugctl = 0;
        (state.made, state.ran, state.inject_gp) = (false, false, false);
        state.requests = crate::kvm::Requests::default();
        state.nested = None;
        policy.refresh(self, vcpu);
        self.vcpu_mut(vcpu).made = true;
        Ok(())
    }

    /// What the guest would read of its LBR next, if it did. The host is a copy that is thrown away.
    fn seen_by_guest(mut self, policy: &dyn Policy, vcpu: VcpuId) -> Result<Seen, HostError> {
        self.run(policy, vcpu)?;
        self.enter(policy, vcpu, false)?;
        let mut seen = Seen::new();
        for msr in self.lbr_registers() {
            let read = self.guest_access(policy, vcpu, Access::read(msr), Cpl::Ring0)?;
            seen.push((msr, read.result.ok()));
        }
        Ok(seen)
    }

    /// What became of what the guest saw.
    fn arrivals(&self, vcpu: VcpuId, before: &Seen, after: &Seen, migration: &mut Migration) {
        let guest = Owner::Guest(vcpu);
        let msrs = self.lbr_msrs();
        let verdict = |msr: Msr, (before, after): (&Option<Owned>, &Option<Owned>)| {
            let value = |seen: &Option<Owned>| seen.map_or(0, |seen| seen.value);
            match after {
                Some(after) if !after.owner.may_be_seen_by(guest) => Arrival::Foreign,
                _ if value(before) == value(after) => Arrival::Equal,
                _ if migration.refused.contains(&msr) => Arrival::Refused,
                _ => Arrival::Lost,
            }
        };
        let of = |seen: &Seen, msr: Msr| seen.iter().find(|(at, _)| *at == msr).and_then(|s| s.1);
        let mut records = Vec::new();
        for n in 0..msrs.nr {
            let from = msrs.entry(Word::From, n);
            let held = from.and_then(|from| of(before, from));
            if held.is_none_or(|held| held.value == 0 || !held.owner.may_be_seen_by(guest)) {
                continue;
            }
            let words = msrs.words_of_entry().filter_map(|word| msrs.entry(word, n));
            let worst = words.map(|msr| verdict(msr, (&of(before, msr), &of(after, msr))));
            records.push((n, worst.max().unwrap_or(Arrival::Lost)));
        }
        let mut controls = Vec::new();
        for ((msr, was), (_, is)) in before.iter().zip(after) {
            let steers = matches!(
                msrs.register(*msr),
                Some(LbrRegister::DebugCtl | LbrRegister::Tos | LbrRegister::Filter)
            );
            if steers && was.is_some_and(|was| was.value != 0) {
                controls.push((*msr, verdict(*msr, (was, is))));
            }
        }
        migration.records = records;
        migration.controls = controls;
    }
}

impl Machine {
    /// User space takes the vCPU, which is outside `KVM_RUN` in its running thread, to another host of
    /// the same kind and puts there what it carries; the guest goes on there. On the processor of
    /// that host the guest never ran.
    ///
    /// # Errors
    /// The thread does not run, or the vCPU is inside `KVM_RUN`.
    pub(super) fn migrate(
        &mut self,
        vcpu: VcpuId,
        carried: Carried,
    ) -> Result<Migration, HostError> {
        let policy = std::sync::Arc::clone(&self.policy);
        let policy = &*policy;
        let host = &mut self.host;
        let found = host.check_vcpu(vcpu)?;
        let (thread, place) = (found.thread, found.place);
        if place != Place::UserSpace {
            return Err(HostError::Place {
                vcpu,
                is: place.name(),
                needed: Place::UserSpace.name(),
            });
        }
        if policy.is_yardstick() {
            // Its processor goes with it.
            let own = self.seen_on_own(vcpu);
            let mut migration = Migration::default();
            self.host.arrivals(vcpu, &own, &own, &mut migration);
            return Ok(migration);
        }
        let before = host.clone().seen_by_guest(policy, vcpu)?;
        let msrs = host.carried_msrs(policy, vcpu, carried);
        let (values, mut refused) = host.get_msrs(policy, thread, vcpu, &msrs)?;
        host.arrive(policy, thread, vcpu)?;
        let not_written = host.set_msrs(policy, thread, vcpu, &values)?;
        let written = values.len() - not_written.len();
        refused.extend(not_written);
        let after = host.clone().seen_by_guest(policy, vcpu)?;
        let mut migration = Migration {
            read: values.len(),
            written,
            refused,
            ..Migration::default()
        };
        host.arrivals(vcpu, &before, &after, &mut migration);
        Ok(migration)
    }

    fn seen_on_own(&mut self, vcpu: VcpuId) -> Seen {
        let msrs: Vec<Msr> = self.host.lbr_registers().collect();
        let own = self.own.get_mut(vcpu.index());
        let Some(own) = own else {
            return Seen::new();
        };
        let read = |msr: Msr| {
            let value = own.rdmsr(msr).ok();
            (msr, value.map(|value| Host::guests(vcpu, value)))
        };
        msrs.into_iter().map(read).collect()
    }
}
