//! Controls of the performance counters.

use crate::bits::register_bits;

register_bits! {
    /// `IA32_PERFEVTSELn` (0x186 + n), the single bits. SDM volume 3, "Architectural Performance
    /// Monitoring Version 1 Facilities" and those of later versions.
    PerfEvtSel {
        /// Count at CPL > 0.
        USR = 16,
        /// Count at CPL 0.
        OS = 17,
        /// Count how often the condition begins instead of how long it holds.
        EDGE = 18,
        /// Toggle the PMi pins. Of no effect from Sandy Bridge on.
        PC = 19,
        /// PMI on overflow.
        INT = 20,
        /// Count for every logical processor of the core (version 3).
        ANY = 21,
        /// The counter is enabled.
        EN = 22,
        /// Count cycles with fewer events than CMASK. Ignored if that is 0.
        INV = 23,
        /// Count in transactions only.
        IN_TX = 32,
        /// Take back what aborted transactions counted. Counter 2 only.
        IN_TXCP = 33,
        /// The counter's PEBS records have the groups of `MSR_PEBS_DATA_CFG`.
        ADAPTIVE_RECORD = 34,
        /// Log the counter's events into the LBR.
        LBR_LOG = 35,
    }
}

impl PerfEvtSel {
    /// Event and umask without any flag.
    #[must_use]
    pub const fn of_event(code: u8, umask: u8) -> Self {
        Self::from_bits((umask as u64) << 8 | code as u64)
    }

    /// Bits 7:0, the event.
    #[must_use]
    pub const fn event(self) -> u8 {
        self.bits() as u8
    }

    /// Bits 15:8, the unit mask.
    #[must_use]
    pub const fn umask(self) -> u8 {
        (self.bits() >> 8) as u8
    }

    /// Bits 31:24, the threshold; 0 counts events, else cycles are counted.
    #[must_use]
    pub const fn cmask(self) -> u8 {
        (self.bits() >> 24) as u8
    }
}

/// `IA32_FIXED_CTR_CTRL` (0x38D): four bits for each fixed counter, and one above bit 32. SDM
/// volume 3, "Architectural Performance Monitoring Version 2 Facilities".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FixedCtrCtrl(u64);

impl FixedCtrCtrl {
    /// Count at CPL 0, of a counter's four bits.
    pub const OS: u64 = 1;
    /// Count at CPL > 0.
    pub const USR: u64 = 2;
    /// Count for every logical processor of the core (version 3).
    pub const ANY: u64 = 4;
    /// PMI on overflow.
    pub const PMI: u64 = 8;

    /// The register with this value.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The value.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The four bits of fixed counter `i`, which is below 8.
    #[must_use]
    pub const fn field(self, i: u32) -> u64 {
        self.0 >> (4 * (i & 7)) & 0xf
    }

    /// PEBS records of fixed counter `i`, which is below 8, have the groups of
    /// `MSR_PEBS_DATA_CFG`.
    #[must_use]
    pub const fn adaptive_record(self, i: u32) -> bool {
        self.0 >> (32 + 4 * (i & 7)) & 1 != 0
    }
}
