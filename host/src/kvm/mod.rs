//! KVM: vCPUs, MSR accesses that exit, VM entry and exit, the guest's PMU.

mod access;
mod event;
mod intercept;
mod journal;
mod nested;
mod pmu;
mod setup;
mod vcpu;
mod version;
mod vmcs;

pub use access::{Access, Answer, Call, Initiator, Operation};
pub use event::LbrStack;
pub use intercept::ExitLevel;
pub use journal::{Journal, Note};
pub use nested::{NestedEntryFailed, Vmcs12};
pub(crate) use pmu::FW_WRITES;
pub use pmu::{GuestCounter, GuestPmu};
pub(crate) use vcpu::Spare;
pub use vcpu::{GuestCpu, Nested, Place, Requests, SavedStack, Vcpu, VcpuLbr, Vm};
pub use version::{KvmBehaviour, SnapshotPoint};
