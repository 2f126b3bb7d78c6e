//! How a VMX instruction fails.

use vlbr_arch::vmx::{VmInstructionError, VmcsField};

use crate::check::{ControlFault, HostFault};
use crate::inject::InjectionFault;

/// Why a VMX instruction failed: more than its number tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailReason {
    /// The number says it all.
    #[error("see the error number")]
    Plain,
    /// An address that is not aligned to 4 KiB or beyond the physical-address width.
    #[error("address {0:#x} is unaligned or beyond the physical-address width")]
    Address(u64),
    /// The region holds another revision identifier, or bit 31.
    #[error("the region at {at:#x} begins with {found:#x}, the processor wants {expected:#x}")]
    Revision {
        /// Address of the region.
        at: u64,
        /// Its first word.
        found: u32,
        /// The processor's identifier.
        expected: u32,
    },
    /// A field that this processor lacks.
    #[error("{0} does not exist on this processor")]
    Field(VmcsField),
    /// A read-only field.
    #[error("{0} is read only")]
    ReadOnly(VmcsField),
    /// A control is wrong.
    #[error(transparent)]
    Control(#[from] ControlFault),
    /// The event to be injected is wrong.
    #[error(transparent)]
    Injection(#[from] InjectionFault),
    /// The host-state area is wrong.
    #[error(transparent)]
    Host(#[from] HostFault),
}

/// How a VMX instruction failed. SDM volume 3, "Conventions" of the VMX instruction reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fail {
    /// `#UD`: not in VMX operation.
    #[error("#UD: not in VMX operation")]
    NotInVmx,
    /// In non-root operation, where the instruction causes a VM exit.
    #[error("in VMX non-root operation: the instruction causes a VM exit")]
    NonRoot,
    /// Not in non-root operation.
    #[error("not in VMX non-root operation")]
    NotNonRoot,
    /// The processor is in the shutdown that a VMX abort leads to.
    #[error("the processor is shut down after a VMX abort")]
    Shutdown,
    /// VMfailInvalid: CF = 1; there is no current VMCS for a number.
    #[error("VMfailInvalid: {0}")]
    Invalid(FailReason),
    /// VMfailValid: ZF = 1, the number is in the current VMCS.
    #[error("VMfailValid: {error}: {reason}")]
    Valid {
        /// The number.
        error: VmInstructionError,
        /// Why.
        reason: FailReason,
    },
}
