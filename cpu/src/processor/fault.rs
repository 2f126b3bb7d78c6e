//! Why an access of the MSR space was refused.

use core::fmt;

use vlbr_arch::{Cpl, Msr};
use vlbr_pmu::{PmuError, Refusal};

/// What was done to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsrOperation {
    /// RDMSR.
    Read,
    /// WRMSR of this value.
    Write(u64),
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MsrReason {
    /// RDMSR and WRMSR need CPL 0.
    #[error("CPL is {}, not 0", *.0 as u8)]
    Privilege(Cpl),
    /// No device has such a register on this part.
    #[error("no such register on this part")]
    NoSuchMsr,
    /// Reserved bits are set.
    #[error("reserved bits {0:#x} are set")]
    Reserved(u64),
    /// Bits that only read are written with another value.
    #[error("bits {0:#x} are read only")]
    ReadOnlyBits(u64),
    /// The LBR refuses.
    #[error(transparent)]
    Lbr(vlbr_lbr::GpReason),
    /// The PMU refuses.
    #[error(transparent)]
    Pmu(vlbr_pmu::GpReason),
    /// The part would do it, the model of the PMU cannot: no `#GP`.
    #[error("not modelled: {0}")]
    Refused(Box<Refusal>),
    /// The part would do it, and Intel PT is not modelled: no `#GP`.
    #[error("not modelled: bits {0:#x} of Intel PT")]
    IntelPt(u64),
}

/// A refused access: `#GP(0)`, or what the model lacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MsrFault {
    /// The register.
    pub msr: Msr,
    /// What was done.
    pub operation: MsrOperation,
    /// Why it is refused.
    pub reason: MsrReason,
}

impl MsrFault {
    /// Whether the part raises `#GP(0)`; if not, the model lacks what the part does.
    #[must_use]
    pub const fn is_gp(&self) -> bool {
        !matches!(self.reason, MsrReason::Refused(_) | MsrReason::IntelPt(_))
    }
}

impl fmt::Display for MsrFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_gp() {
            f.write_str("#GP(0): ")?;
        }
        match self.operation {
            MsrOperation::Read => write!(f, "RDMSR {}", self.msr)?,
            MsrOperation::Write(value) => write!(f, "WRMSR {} = {value:#x}", self.msr)?,
        }
        write!(f, ": {}", self.reason)
    }
}

impl core::error::Error for MsrFault {}

impl From<vlbr_lbr::GpReason> for MsrReason {
    fn from(reason: vlbr_lbr::GpReason) -> Self {
        match reason {
            vlbr_lbr::GpReason::NoSuchMsr => Self::NoSuchMsr,
            other => Self::Lbr(other),
        }
    }
}

impl From<vlbr_pmu::GpReason> for MsrReason {
    fn from(reason: vlbr_pmu::GpReason) -> Self {
        match reason {
            vlbr_pmu::GpReason::NoSuchMsr => Self::NoSuchMsr,
            other => Self::Pmu(other),
        }
    }
}

impl From<PmuError> for MsrReason {
    fn from(error: PmuError) -> Self {
        match error {
            PmuError::Gp(fault) => fault.reason.into(),
            PmuError::Refused { refusal, .. } => Self::Refused(Box::new(refusal)),
        }
    }
}
