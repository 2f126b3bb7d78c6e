//! `IA32_PERF_GLOBAL_STATUS`, as far as the LBR reads it, and `IA32_PERF_CAPABILITIES`.

use crate::bits::register_bits;

register_bits! {
    /// `IA32_PERF_GLOBAL_STATUS` (0x38E), the bits above the counters. SDM volume 3,
    /// "Architectural Performance Monitoring Version 4".
    PerfGlobalStatus {
        /// A topdown metric overflowed.
        PERF_METRICS_OVF = 48,
        /// An Intel PT output region filled up.
        TRACE_TOPA_PMI = 55,
        /// The LBR stack is frozen (version 4 and later).
        LBR_FRZ = 58,
        /// The counters are frozen (version 4 and later).
        CTR_FRZ = 59,
        /// The state includes that of an enclave.
        ASCI = 60,
        /// An uncore counter overflowed.
        OVF_UNCORE = 61,
        /// The DS buffer reached its threshold.
        OVF_BUFFER = 62,
        /// Some condition of the register changed.
        COND_CHGD = 63,
    }
}

register_bits! {
    /// `IA32_PERF_CAPABILITIES` (0x345), the single bits. SDM volume 4, table 2-2.
    PerfCapabilities {
        /// PEBS records are taken after the instruction.
        PEBS_TRAP = 6,
        /// PEBS records hold the architectural registers.
        PEBS_ARCH_REG = 7,
        /// `IA32_DEBUGCTL.FREEZE_WHILE_SMM` exists.
        FREEZE_WHILE_SMM = 12,
        /// Full-width counter writes.
        FW_WRITE = 13,
        /// Adaptive PEBS.
        PEBS_BASELINE = 14,
        /// `IA32_PERF_METRICS` exists.
        PERF_METRICS = 15,
        /// PEBS output to Intel PT.
        PEBS_OUTPUT_PT = 16,
        /// PEBS records hold retire latency.
        PEBS_TIMING_INFO = 17,
        /// PEBS records name the transaction's address.
        TSX_ADDRESS = 18,
        /// RDPMC of the metrics clears them.
        RDPMC_METRICS_CLEAR = 19,
    }
}

impl PerfCapabilities {
    /// Bits 5:0, the LBR format.
    #[must_use]
    pub const fn lbr_format(self) -> crate::LbrFormat {
        crate::LbrFormat::new(self.bits() as u8)
    }

    /// Bits 11:8, the PEBS record format.
    #[must_use]
    pub const fn pebs_format(self) -> u8 {
        (self.bits() >> 8) as u8 & 0xf
    }
}
