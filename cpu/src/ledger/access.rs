//! The MSRs of a logical processor.

use vlbr_arch::Msr;

/// RDMSR and WRMSR of a logical processor, after the checks of CPL and of VMX.
///
/// Whoever accesses MSRs does so through a [`crate::ledger::Ledger`], which counts.
pub trait MsrAccess {
    /// `#GP(0)`, with the register and the reason.
    type Fault: core::error::Error + 'static;

    /// RDMSR at CPL 0.
    ///
    /// # Errors
    /// `#GP(0)`: no such register, or it cannot be read.
    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Self::Fault>;

    /// WRMSR at CPL 0. A refused write changes nothing.
    ///
    /// # Errors
    /// `#GP(0)`: no such register, it cannot be written, or not with this value.
    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), Self::Fault>;

    /// The bits that must be 0 for WRMSR not to fault; every bit, if there is no such register. VM
    /// entry tests `IA32_DEBUGCTL`, `IA32_LBR_CTL` and `IA32_PERF_GLOBAL_CTRL` with it.
    fn reserved_bits(&self, msr: Msr) -> u64;
}
