//! Host-state area.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitControls, VmcsField};
use vlbr_cpu::ledger::MsrAccess;

use crate::Vmcs;

/// Why the host-state area is wrong: VMfailValid 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostFault {
    /// Reserved bits of the host's `IA32_PERF_GLOBAL_CTRL`.
    #[error("host IA32_PERF_GLOBAL_CTRL: reserved bits {0:#x} are set")]
    PerfGlobalCtrl(u64),
}

pub(crate) fn check_host<M: MsrAccess + ?Sized>(vmcs: &Vmcs, msrs: &M) -> Result<(), HostFault> {
    let controls = vmcs.exit_controls();
    if controls.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
        let value = vmcs.field(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL);
        let reserved = value & msrs.reserved_bits(Msr::PERF_GLOBAL_CTRL);
        if reserved != 0 {
            return Err(HostFault::PerfGlobalCtrl(reserved));
        }
    }
    Ok(())
}
