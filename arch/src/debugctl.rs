//! `IA32_DEBUGCTL`.

use crate::bits::register_bits;

register_bits! {
    /// `IA32_DEBUGCTL` (0x1D9). SDM volume 3, "IA32_DEBUGCTL MSR"; volume 4, table 2-2.
    ///
    /// Which bits exist depends on the model: a set bit that does not exist makes WRMSR fault.
    DebugCtl {
        /// Record branches in the legacy LBR stack. With architectural LBR: writable, reads 0.
        LBR = 0,
        /// Single-step on taken branches instead of on every instruction.
        BTF = 1,
        /// Trap (`#DB`) on a bus lock taken above CPL 0.
        BUS_LOCK_DETECT = 2,
        /// Send branch trace messages.
        TR = 6,
        /// Store branch trace messages in the BTS buffer.
        BTS = 7,
        /// Interrupt near the end of the BTS buffer, which else is circular.
        BTINT = 8,
        /// Store no branch trace of CPL 0.
        BTS_OFF_OS = 9,
        /// Store no branch trace of CPL 1 to 3.
        BTS_OFF_USR = 10,
        /// Freeze the LBR stack when a PMI is raised.
        FREEZE_LBRS_ON_PMI = 11,
        /// Freeze the performance counters when a PMI is raised.
        FREEZE_PERFMON_ON_PMI = 12,
        /// Accept PMIs of the uncore.
        ENABLE_UNCORE_PMI = 13,
        /// Stop counters and LBR while in system-management mode.
        FREEZE_WHILE_SMM = 14,
        /// Advanced debugging of RTM transactions.
        RTM_DEBUG = 15,
    }
}
