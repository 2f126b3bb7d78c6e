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
    /// An NMI that made the guest exit is served before the copy is written back (from 6.2 on).
    /// `vmx_vcpu_enter_exit`.
    pub nmi_before_restore: bool,
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
            nmi_before_restore: version.since(6, 2),
            checks_nested_debugctl: version.since(6, 17),
        }
    }
}
