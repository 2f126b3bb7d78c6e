//! Who has the LBR when: policies of KVM and of other hypervisors, and how to write another.
//!
//! A [`Policy`] is a set of hooks, each with what its name says in KVM. It keeps what it needs of a
//! vCPU in [`crate::kvm::VcpuLbr`] and reaches processors, perf and the VMCS through
//! [`crate::machine::Host`], so that all state can be cloned, compared and hashed and the policy
//! itself has none.

mod architectural;
mod catalog;
mod event;
mod knobs;
mod lazy;
mod list;
mod offer;
mod plain;
mod rules;
mod swap;

use core::fmt;

use vlbr_vmx::VmExit;

use crate::kvm::{Access, Answer, Call, ExitLevel, LbrStack};
use crate::machine::Host;
use crate::perf::{Behaviour, Errno, KernelVersion};
use crate::{VcpuId, VmId};

pub use architectural::Architectural;
pub use catalog::{Catalog, PolicyError};
pub use event::EventPolicy;
pub use lazy::MediatedLazy;
pub use list::{ListPolicy, ListRules, ListSet};
pub use plain::{Ideal, NoLbr};
pub use rules::{
    Arbitration, DebugCtlRule, Denied, EntryCheck, EventRules, Feature, InfoRange, Open, Release,
};
pub use swap::{SwapAt, SwapPolicy, SwapRules};

/// What perf has of the claim of a guest to the registers of the LBR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing: the policy moves registers by itself. A vCPU that has an event all the same is looked
    /// at as [`Standing::Event`].
    Nothing,
    /// An event of the vCPU's thread, [`crate::kvm::VcpuLbr::event`].
    Event,
    /// The LBR is lent: [`crate::perf::Perf::guest_lbr_load`].
    Lent,
}

/// What a hypervisor does about the guest's LBR.
///
/// Every hook has a default: LBR is not offered, nothing is switched.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Its name, as `--policy` takes it.
    fn name(&self) -> &str;

    /// One line for a list.
    fn title(&self) -> &str;

    /// The kernel it is part of, if of one; a scene may say another.
    fn kernel(&self) -> Option<KernelVersion> {
        None
    }

    /// Changes what perf of the host does, beside the version.
    fn adjust(&self, behaviour: &mut Behaviour) {
        let _ = behaviour;
    }

    /// The guest has a processor of its own: what others are compared with.
    fn is_yardstick(&self) -> bool {
        false
    }

    /// What perf has of a guest's claim to the registers: by it pass-through is judged.
    fn standing(&self) -> Standing {
        Standing::Nothing
    }

    /// The whole stack is exchanged before the guest runs, so that what it records is not in the
    /// host's, whatever perf thinks.
    fn swaps_stacks(&self) -> bool {
        false
    }

    /// It gives guests architectural LBR: a processor that has it is needed to see what it does.
    fn is_architectural(&self) -> bool {
        false
    }

    /// A vCPU was made, or user space changed what its CPUID says: what the guest is offered.
    /// `kvm_pmu_refresh`.
    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        let _ = (host, vcpu);
    }

    /// An access to `IA32_DEBUGCTL`, `IA32_PERF_CAPABILITIES` or a register of the LBR that exited,
    /// or that user space makes. `intel_pmu_get_msr`, `intel_pmu_set_msr`. A first access is one
    /// of these.
    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let _ = (host, call, access);
        Answer::Unknown
    }

    /// What of the `IA32_DEBUGCTL` of vmcs12 is loaded for L2, in kernels that check it; `None`: the
    /// entry fails. `nested_vmx_check_guest_state`, `prepare_vmcs02`.
    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        let _ = (host, call);
        let ignored = vlbr_arch::DebugCtl::LBR.bits() | vlbr_arch::DebugCtl::BTF.bits();
        (value & !ignored == 0).then_some(0)
    }

    /// Interrupts are off, VM entry comes next. `vmx_passthrough_lbr_msrs`.
    fn before_entry(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// A VM exit happened and the host's `IA32_DEBUGCTL` is back; interrupts are off.
    fn after_exit(&self, host: &mut Host, call: Call, exit: &VmExit, level: ExitLevel) {
        let _ = (host, call, exit, level);
    }

    /// The vCPU was loaded on a processor: `KVM_RUN` begins, or its thread was switched in.
    /// `vmx_vcpu_load`.
    fn load(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// The vCPU leaves the processor. `vmx_vcpu_put`.
    fn put(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// Its thread was switched in inside `KVM_RUN`, before [`Policy::load`]. `kvm_arch_sched_in`.
    fn sched_in(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// Its thread is switched out inside `KVM_RUN`, before [`Policy::put`]. `kvm_sched_out`.
    fn sched_out(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// The clean-up that was requested at sched-in is served: what the guest does not use may be
    /// taken back. `kvm_pmu_cleanup`.
    fn reclaim(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// A virtual PMI is about to be delivered. `intel_pmu_deliver_pmi`.
    fn pmi(&self, host: &mut Host, call: Call) {
        let _ = (host, call);
    }

    /// The vCPU or its PMU is reset. `intel_pmu_reset`.
    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        let _ = (host, vcpu);
    }

    /// `KVM_CHECK_EXTENSION` of `KVM_CAP_X86_GUEST_LBR`: size of the structure, 0 if unknown.
    fn check_capability(&self, host: &Host) -> u32 {
        let _ = host;
        0
    }

    /// `KVM_ENABLE_CAP` of `KVM_CAP_X86_GUEST_LBR` with args\[0\] and whether args\[1\] can be
    /// written.
    ///
    /// # Errors
    /// `EINVAL`, also for a capability that the kernel does not have.
    fn enable_capability(
        &self,
        host: &mut Host,
        vm: VmId,
        enable: bool,
        pointer_is_good: bool,
    ) -> Result<LbrStack, Errno> {
        let _ = (host, vm, enable, pointer_is_good);
        Err(Errno::EINVAL)
    }

    /// The registers of the LBR that the hypervisor's list of MSRs to be saved names, beside
    /// `IA32_PERF_CAPABILITIES` and the counters: what a migration carries by itself.
    fn listed(&self, host: &Host) -> Vec<vlbr_arch::Msr> {
        let _ = host;
        Vec::new()
    }
}
