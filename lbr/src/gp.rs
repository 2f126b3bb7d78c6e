//! Why an access was refused.

use core::fmt;

use vlbr_arch::{DebugCtl, LbrCtl, Msr};

/// The instruction that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// RDMSR of this register.
    Rdmsr(Msr),
    /// WRMSR of this value to this register.
    Wrmsr(Msr, u64),
    /// XSAVES with `IA32_XSS[15]`.
    Xsaves,
    /// XRSTORS with `IA32_XSS[15]`; the register whose image was refused, if one was.
    Xrstors(Option<(Msr, u64)>),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rdmsr(msr) => write!(f, "RDMSR {msr}"),
            Self::Wrmsr(msr, value) => write!(f, "WRMSR {msr} = {value:#x}"),
            Self::Xsaves => f.write_str("XSAVES of component 15"),
            Self::Xrstors(None) => f.write_str("XRSTORS of component 15"),
            Self::Xrstors(Some((msr, value))) => write!(f, "XRSTORS of {msr} = {value:#x}"),
        }
    }
}

/// Why an access raises `#GP(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GpReason {
    /// The part has no such register.
    #[error("no such register on this part")]
    NoSuchMsr,
    /// The entry lies at or above `IA32_LBR_DEPTH`.
    #[error("entry {entry} is at or above IA32_LBR_DEPTH = {depth}")]
    BeyondDepth {
        /// Index of the entry.
        entry: u32,
        /// Value of `IA32_LBR_DEPTH`.
        depth: u32,
    },
    /// Bits that are reserved on every part are set.
    #[error("reserved bits {0:#x} are set")]
    Reserved(u64),
    /// Named bits of `IA32_DEBUGCTL` that this part lacks are set.
    #[error("this part has no {0}")]
    UnsupportedDebugCtl(DebugCtl),
    /// Named bits of `IA32_LBR_CTL` whose capability CPUID does not enumerate are set.
    #[error("CPUID leaf 0x1C does not enumerate {0}")]
    UnsupportedLbrCtl(LbrCtl),
    /// Not a depth that CPUID enumerates.
    #[error("{0} is no depth that CPUID leaf 0x1C enumerates")]
    UnsupportedDepth(u64),
    /// Not a canonical address of so many bits.
    #[error("not canonical in {0} bits")]
    NonCanonical(u8),
    /// The bits between the address and the flags differ from the sign.
    #[error("bits {high}:48 differ from bit 47")]
    SignExtension {
        /// The highest bit that must equal bit 47.
        high: u8,
    },
    /// The part has no XSAVE component 15.
    #[error("no architectural LBR on this part")]
    NoArchLbr,
}

/// A general-protection fault, `#GP(0)`, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("#GP(0): {access}: {reason}")]
pub struct GpFault {
    /// What was attempted.
    pub access: Access,
    /// Why it is refused.
    pub reason: GpReason,
}
