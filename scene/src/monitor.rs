//! What user space does to vCPUs beside running them, as a scene says it.

use serde::{Deserialize, Serialize};
use vlbr_host::machine::Carried;

/// What user space does to a vCPU, by the vCPU's own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MonitorSpec {
    /// When; it is done when the thread runs next.
    pub at_us: u64,
    /// The vCPU, by its number in the scene.
    pub vcpu: usize,
    /// What it does.
    pub does: MonitorAct,
    /// Which MSRs it asks for.
    #[serde(default)]
    pub carry: Carry,
}

/// What user space does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorAct {
    /// `KVM_GET_MSRS`.
    GetMsrs,
    /// `KVM_SET_MSRS` of what was read of this vCPU last.
    SetMsrs,
    /// The vCPU goes on on another host of the same kind.
    Migrate,
}

/// Which MSRs user space asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carry {
    /// Those that the hypervisor lists.
    #[default]
    Listed,
    /// `IA32_DEBUGCTL` and every register of the LBR as well.
    Named,
}

impl Carry {
    pub(crate) const fn carried(self) -> Carried {
        match self {
            Self::Listed => Carried::Listed,
            Self::Named => Carried::Named,
        }
    }
}
