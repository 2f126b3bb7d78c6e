//! Processor event-based sampling: control registers and the debug store.

use crate::bits::register_bits;

register_bits! {
    /// `IA32_PEBS_ENABLE` (0x3F1), the bits beside the counters. SDM volume 3, "Processor Event
    /// Based Sampling".
    PebsEnable {
        /// PMI after each record, with output to Intel PT.
        PMI_AFTER_EACH_RECORD = 60,
        /// Low bit of the output; 01 is Intel PT.
        OUTPUT_PT = 61,
        /// High bit of the output.
        OUTPUT_HIGH = 62,
        /// Precise store on counter 3 (Sandy Bridge, Ivy Bridge).
        PRECISE_STORE = 63,
    }
}

register_bits! {
    /// `MSR_PEBS_DATA_CFG` (0x3F2), the groups of adaptive records. SDM volume 3, "Adaptive PEBS".
    PebsDataCfg {
        /// Data address, source, latency and transaction.
        MEMORY_INFO = 0,
        /// Registers.
        GPRS = 1,
        /// XMM0 to XMM15.
        XMMS = 2,
        /// Last branch records.
        LBRS = 3,
        /// Values of counters (format 6).
        COUNTERS = 4,
        /// Topdown metrics among the counters (format 6).
        METRICS = 5,
    }
}

impl PebsDataCfg {
    /// Bits 31:24 plus 1, how many last branch records.
    #[must_use]
    pub const fn lbr_entries(self) -> usize {
        (self.bits() >> 24 & 0xff) as usize + 1
    }

    /// Bits 47:32, the general-purpose counters to store.
    #[must_use]
    pub const fn gp_counters(self) -> u16 {
        (self.bits() >> 32) as u16
    }

    /// Bits 55:48, the fixed counters to store.
    #[must_use]
    pub const fn fixed_counters(self) -> u8 {
        (self.bits() >> 48) as u8
    }
}

register_bits! {
    /// Transaction information of a PEBS record, the bits above the 32-bit cycle count. SDM volume
    /// 3, "TX Abort Information Field Definition".
    TxAbortInfo {
        /// The abort ended an HLE region.
        HLE_ABORT = 32,
        /// The abort ended an RTM region.
        RTM_ABORT = 33,
        /// The instruction at EventingIP caused it.
        INSTRUCTION_ABORT = 34,
        /// The instruction at EventingIP need not have caused it.
        NON_INSTRUCTION_ABORT = 35,
        /// A retry may succeed.
        RETRY = 36,
        /// Data conflict.
        DATA_CONFLICT = 37,
        /// Too much was written.
        CAPACITY_WRITES = 38,
        /// Too much was read.
        CAPACITY_READS = 39,
    }
}

/// Offsets in the 64-bit debug store management area. SDM volume 3, "DS Save Area".
pub mod ds {
    /// Base of the PEBS buffer.
    pub const PEBS_BASE: u64 = 0x20;
    /// Where the next PEBS record goes.
    pub const PEBS_INDEX: u64 = 0x28;
    /// First byte behind the PEBS buffer.
    pub const PEBS_ABSOLUTE_MAXIMUM: u64 = 0x30;
    /// The index from which on a PMI is raised.
    pub const PEBS_INTERRUPT_THRESHOLD: u64 = 0x38;
    /// Reset value of general-purpose counter 0; 8 bytes each.
    pub const PEBS_RESET: u64 = 0x40;
}
