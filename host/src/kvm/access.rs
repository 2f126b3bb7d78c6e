//! MSR accesses that reach KVM.

use vlbr_arch::Msr;

use crate::{CpuId, Owned, TaskId, VcpuId};

/// On whose initiative KVM acts. `struct msr_data::host_initiated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The guest: an access that exited.
    Guest,
    /// User space: `KVM_GET_MSRS`, `KVM_SET_MSRS`.
    UserSpace,
}

/// Where KVM runs for a vCPU, and in whose thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// The processor on which KVM runs now.
    pub cpu: CpuId,
    /// The thread that runs there: `current`. The vCPU's own but for accesses by user space.
    pub thread: TaskId,
    /// Who wants it.
    pub initiator: Initiator,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// RDMSR.
    Read,
    /// WRMSR of this value.
    Write(Owned),
}

/// An access to an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The register.
    pub msr: Msr,
    /// Read or write.
    pub operation: Operation,
}

/// What KVM's MSR code says to an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The value read.
    Value(Owned),
    /// Written, or swallowed.
    Done,
    /// `#GP` in the guest, an error for user space. `ignore_msrs` does not help.
    Refused,
    /// Nobody knows the MSR here: as [`Answer::Refused`], or with `ignore_msrs` 0 and nothing
    /// written.
    Unknown,
}

impl Access {
    /// RDMSR.
    #[must_use]
    pub const fn read(msr: Msr) -> Self {
        Self {
            msr,
            operation: Operation::Read,
        }
    }

    /// WRMSR.
    #[must_use]
    pub const fn write(msr: Msr, value: Owned) -> Self {
        Self {
            msr,
            operation: Operation::Write(value),
        }
    }

    /// What swallows the access: a read gives 0 of nobody, a write does nothing.
    #[must_use]
    pub const fn dummy(&self) -> Answer {
        match self.operation {
            Operation::Read => Answer::Value(Owned::CLEARED),
            Operation::Write(_) => Answer::Done,
        }
    }
}
