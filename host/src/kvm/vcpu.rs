//! What KVM knows of a vCPU and its VM.

use core::hash::{Hash, Hasher};

use vlbr_lbr::CpuModel;
use vlbr_vmx::Vmcs;

use super::pmu::GuestPmu;
use crate::hardware::{LbrMsrs, Stack};
use crate::perf::EventId;
use crate::{CpuId, Owned, TaskId, VcpuId, VmId};

/// Where a vCPU's thread is. The transitions are [`Place::TRANSITIONS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In user space, outside every ioctl: the vCPU is not loaded.
    #[default]
    UserSpace,
    /// Inside `KVM_RUN`, on no processor.
    SwitchedOut,
    /// Inside `KVM_RUN`, in the host's kernel, loaded.
    Kernel,
    /// In the guest.
    Guest,
}

impl Place {
    /// From, to, and by what.
    pub const TRANSITIONS: &'static [(Self, Self, &'static str)] = &[
        (Self::UserSpace, Self::Kernel, "KVM_RUN: load"),
        (Self::Kernel, Self::Guest, "VM entry"),
        (Self::Guest, Self::Kernel, "VM exit"),
        (Self::Kernel, Self::UserSpace, "KVM_RUN returns: put"),
        (Self::Kernel, Self::SwitchedOut, "switched out: put"),
        (Self::SwitchedOut, Self::Kernel, "switched in: load"),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserSpace => "user space",
            Self::SwitchedOut => "switched out",
            Self::Kernel => "kernel",
            Self::Guest => "guest",
        }
    }
}

/// The processor that the guest is told it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GuestCpu {
    /// Family and model, of CPUID leaf 1.
    pub model: CpuModel,
    /// CPUID.1:ECX.PDCM: `IA32_PERF_CAPABILITIES` exists.
    pub pdcm: bool,
    /// Version of architectural perfmon, of leaf 0xA; 0: no PMU.
    pub pmu_version: u8,
    /// General-purpose counters.
    pub gp_counters: u8,
    /// Fixed counters.
    pub fixed_counters: u8,
    /// CPUID.1C:EBX, what filters of architectural LBR the guest has.
    pub arch_lbr_ebx: u32,
}

/// A stack that a policy keeps in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SavedStack {
    /// Every entry.
    pub entries: Stack,
    /// TOS.
    pub tos: Owned,
    /// `MSR_LBR_SELECT` or `IA32_LBR_CTL`.
    pub filter: Owned,
}

/// Memory for a stack that is used again. What stands in it is no state: all are equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spare(pub(crate) Option<SavedStack>);

impl PartialEq for Spare {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Spare {}

impl Hash for Spare {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The LBR side of a vCPU: `struct lbr_desc` and what other policies need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VcpuLbr {
    /// The registers that the guest has; `None`: LBR is not enabled for it.
    pub msrs: Option<LbrMsrs>,
    /// The perf event that stands for the guest's LBR.
    pub event: Option<EventId>,
    /// v8's `lbr_used`: an LBR MSR was accessed in this time slice.
    pub used: bool,
    /// Counter index 58 is marked as in use.
    pub in_use: bool,
    /// The bitmap lets the LBR MSRs through.
    pub open: bool,
    /// The areas hold the LBR's registers.
    pub armed: bool,
    /// The guest's stack, with policies that keep it in memory.
    pub saved: Option<SavedStack>,
    /// Memory for a stack.
    pub(crate) spare: Spare,
    /// The host's stack, while the guest runs.
    pub host: Option<SavedStack>,
    /// For a policy of one's own.
    pub words: [u64; 4],
}

/// What is waiting for the next pass of `vcpu_enter_guest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// `KVM_REQ_PMU` cleanup: `kvm_pmu_cleanup`.
    pub cleanup: bool,
    /// `KVM_REQ_PMI`.
    pub pmi: bool,
    /// `KVM_REQ_PMU` for counters whose events have to be made anew: bits as in
    /// `IA32_PERF_GLOBAL_CTRL`. `reprogram_pmi`.
    pub reprogram: u64,
}

impl Requests {
    /// Whether any is waiting: the fast path is left then. `kvm_vcpu_exit_request`.
    #[must_use]
    pub const fn pending(&self) -> bool {
        self.cleanup || self.pmi || self.reprogram != 0
    }
}

/// L2 of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nested {
    /// vmcs12 saves debug controls at exit.
    pub save_debug_controls: bool,
    /// `GUEST_IA32_DEBUGCTL` of vmcs12.
    pub debugctl12: u64,
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vcpu {
    /// Its number.
    pub id: VcpuId,
    /// Its VM.
    pub vm: VmId,
    /// Its thread.
    pub thread: TaskId,
    /// Where the thread is.
    pub place: Place,
    /// Where it is loaded.
    pub cpu: Option<CpuId>,
    /// Where its VMCS is current or active; its data otherwise stands in `parked`.
    pub(crate) active_on: Option<CpuId>,
    pub(crate) parked: Option<Box<Vmcs>>,
    pub(crate) launched: bool,
    pub(crate) vmcs_at: u64,
    pub(crate) bitmap_at: u64,
    pub(crate) areas_at: u64,
    /// The host's `IA32_DEBUGCTL` as KVM copied it.
    pub host_debugctl: u64,
    /// LBR.
    pub lbr: VcpuLbr,
    /// Guest counters.
    pub pmu: GuestPmu,
    /// What the guest's CPUID says.
    pub guest_cpu: GuestCpu,
    /// `IA32_PERF_CAPABILITIES` of the guest.
    pub perf_capabilities: u64,
    /// It was made: what a vCPU starts with is set.
    pub(crate) made: bool,
    /// It has run.
    pub ran: bool,
    /// Waiting.
    pub requests: Requests,
    /// `#GP` is injected at the next entry.
    pub inject_gp: bool,
    /// L2 runs.
    pub nested: Option<Nested>,
}

/// A VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vm {
    /// Its vCPUs.
    pub vcpus: Vec<VcpuId>,
    /// v8's `lbr_in_guest`.
    pub lbr_in_guest: bool,
    /// v8's `lbr_stack`, once described.
    pub lbr_stack: Option<LbrMsrs>,
}
