//! What KVM does differently from version to version, whatever the policy.

use crate::perf::KernelVersion;

/// Where KVM copies the host's `IA32_DEBUGCTL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotPoint {
    /// As the last step of loading the vCPU (up to 6.13).
    VcpuLoad,
    /// In each pass of `vcpu_enter_guest`, with interrupts off (from 6.14 on).
    EnterGuest,
}

/// KVM's side of a kernel version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvmBehaviour {
    /// Where the host's `IA32_DEBUGCTL` is copied. `vmx_vcpu_load`, `vcpu_enter_guest`.
    pub snapshot: SnapshotPoint,
    /// An NMI that made the guest exit is served before the copy is written back (from 6.3 on).
    /// `vmx_vcpu_enter_exit`.
    pub nmi_before_restore: bool,
    /// A write to a register of the guest's PMU makes the counter's event anew at the next pass of
    /// `vcpu_enter_guest`, in the vCPU's thread, not at once in the thread that writes (from 6.2
    /// on). `kvm_pmu_request_counter_reprogram`.
    pub defers_reprogramming: bool,
    /// What changes the guest's PMU resets it, which releases the LBR event: `KVM_SET_CPUID2` and
    /// `IA32_PERF_CAPABILITIES` (from 6.8 on). `kvm_pmu_refresh`.
    pub refresh_resets_pmu: bool,
    /// `KVM_GET_MSR_INDEX_LIST` names the registers of the PMU (from 5.4 on). `msrs_to_save_all`.
    pub lists_counters: bool,
    /// It names `IA32_PERF_CAPABILITIES` (from 5.8 on). `emulated_msrs_all`.
    pub lists_capabilities: bool,
    /// `KVM_SET_CPUID2` of a vCPU that has run must say what it said before (from 5.17 on, and in
    /// 5.16.1). `kvm_set_cpuid`.
    pub cpuid_fixed_by_run: bool,
    /// `IA32_DEBUGCTL` of vmcs12 is checked when L2 is entered (from 6.17 on).
    pub checks_nested_debugctl: bool,
}

impl KvmBehaviour {
    /// That of a version.
    #[must_use]
    pub fn of(version: KernelVersion) -> Self {
        Self {
            snapshot: if version.since(6, 14) {
                SnapshotPoint::EnterGuest
            } else {
                SnapshotPoint::VcpuLoad
            },
            nmi_before_restore: version.since(6, 3),
            defers_reprogramming: version.since(6, 2),
            refresh_resets_pmu: version.since(6, 8),
            lists_counters: version.since(5, 4),
            lists_capabilities: version.since(5, 8),
            cpuid_fixed_by_run: version.since(5, 17) || version.stable(5, 16, 1),
            checks_nested_debugctl: version.since(6, 17),
        }
    }
}
