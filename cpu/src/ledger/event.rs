//! What is counted.

use core::fmt;

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};

/// A kind of access, to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// RDMSR that completed.
    Rdmsr(Msr),
    /// RDMSR that faulted.
    RdmsrFault(Msr),
    /// WRMSR that completed.
    Wrmsr(Msr),
    /// WRMSR that faulted.
    WrmsrFault(Msr),
    /// XSAVES of component 15.
    Xsaves,
    /// XRSTORS of component 15.
    Xrstors,
    /// VMREAD that completed.
    Vmread(VmcsField),
    /// VMWRITE that completed.
    Vmwrite(VmcsField),
    /// VM entry that completed.
    VmEntry,
    /// VM entry that failed after its checks of controls and host state.
    VmEntryFailure(ExitReason),
    /// VM exit.
    VmExit {
        /// Basic reason.
        reason: ExitReason,
        /// The MSR, if an access to one exited.
        msr: Option<Msr>,
    },
    /// An MSR area with at least one entry was processed.
    Area(MsrArea),
    /// An entry of an MSR area was transferred.
    Transfer(MsrArea, Msr),
    /// VM entry or exit loaded the register from its VMCS field.
    FieldLoad(Msr),
    /// VM exit saved the register into its VMCS field.
    FieldSave(Msr),
    /// VM exit cleared the register.
    FieldClear(Msr),
}

impl Event {
    /// A number that no other event has, below 2^56.
    #[inline]
    pub(super) fn key(self) -> u64 {
        let of = |kind: u64, more: u64, number: u32| kind << 50 | more << 33 | u64::from(number);
        match self {
            Self::Rdmsr(msr) => of(0, 0, msr.value()),
            Self::RdmsrFault(msr) => of(1, 0, msr.value()),
            Self::Wrmsr(msr) => of(2, 0, msr.value()),
            Self::WrmsrFault(msr) => of(3, 0, msr.value()),
            Self::Xsaves => of(4, 0, 0),
            Self::Xrstors => of(5, 0, 0),
            Self::Vmread(field) => of(6, 0, field.encoding()),
            Self::Vmwrite(field) => of(7, 0, field.encoding()),
            Self::VmEntry => of(8, 0, 0),
            Self::VmEntryFailure(reason) => of(9, 0, reason.value()),
            Self::VmExit { reason, msr: None } => of(10, (reason.value() & 0xffff).into(), 0),
            Self::VmExit {
                reason,
                msr: Some(msr),
            } => of(11, (reason.value() & 0xffff).into(), msr.value()),
            Self::Area(area) => of(12, area as u64, 0),
            Self::Transfer(area, msr) => of(13, area as u64, msr.value()),
            Self::FieldLoad(msr) => of(14, 0, msr.value()),
            Self::FieldSave(msr) => of(15, 0, msr.value()),
            Self::FieldClear(msr) => of(16, 0, msr.value()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rdmsr(msr) => write!(f, "RDMSR {msr}"),
            Self::RdmsrFault(msr) => write!(f, "RDMSR {msr}: #GP"),
            Self::Wrmsr(msr) => write!(f, "WRMSR {msr}"),
            Self::WrmsrFault(msr) => write!(f, "WRMSR {msr}: #GP"),
            Self::Xsaves => f.write_str("XSAVES of the LBR"),
            Self::Xrstors => f.write_str("XRSTORS of the LBR"),
            Self::Vmread(field) => write!(f, "VMREAD {field}"),
            Self::Vmwrite(field) => write!(f, "VMWRITE {field}"),
            Self::VmEntry => f.write_str("VM entry"),
            Self::VmEntryFailure(reason) => reason.fmt(f),
            Self::VmExit { reason, msr: None } => write!(f, "VM exit: {reason}"),
            Self::VmExit {
                reason,
                msr: Some(msr),
            } => write!(f, "VM exit: {reason} {msr}"),
            Self::Area(area) => write!(f, "{area} area"),
            Self::Transfer(area, msr) => write!(f, "{area} {msr}"),
            Self::FieldLoad(msr) => write!(f, "{msr} from its VMCS field"),
            Self::FieldSave(msr) => write!(f, "{msr} to its VMCS field"),
            Self::FieldClear(msr) => write!(f, "{msr} cleared by VM exit"),
        }
    }
}
