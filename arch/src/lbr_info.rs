//! `MSR_LBR_INFO_n` and `IA32_LBR_n_INFO`.

use crate::bits::register_bits;

register_bits! {
    /// The INFO word of an LBR entry (0xDC0 + n, 0x1200 + n). SDM volume 3, "LBR stack" of
    /// Skylake and "Last Branch Records".
    ///
    /// Legacy parts have the cycle count and the three top bits; the branch type,
    /// `CYC_CNT_VALID` and the event counts are architectural LBR.
    LbrInfo {
        /// The cycle count is meaningful (architectural LBR).
        CYC_CNT_VALID = 60,
        /// The entry is a TSX abort.
        TSX_ABORT = 61,
        /// The branch retired in a transaction.
        IN_TSX = 62,
        /// Direction or target was mispredicted.
        MISPRED = 63,
    }
}

impl LbrInfo {
    /// Bits 15:0, the cycle count.
    pub const CYC_CNT_MASK: u64 = 0xffff;
    /// Bits 39:32, four 2-bit event counts (event logging).
    pub const EVENTS_MASK: u64 = 0xff << 32;
    /// Position of the event counts.
    pub const EVENTS_SHIFT: u32 = 32;
    /// Bits 59:56, the branch type.
    pub const BR_TYPE_MASK: u64 = 0xf << 56;
    /// Position of the branch type.
    pub const BR_TYPE_SHIFT: u32 = 56;

    /// Core clocks since the previous record, saturating.
    #[must_use]
    pub const fn cycles(self) -> u16 {
        (self.bits() & Self::CYC_CNT_MASK) as u16
    }

    /// The branch type field of architectural LBR.
    #[must_use]
    pub const fn branch_type(self) -> BrType {
        BrType::new((self.bits() >> Self::BR_TYPE_SHIFT) as u8)
    }

    /// Event count of `PMCn`, n from 0 to 3, 0 to 3; `None` for another n.
    #[must_use]
    pub const fn events(self, n: u8) -> Option<u8> {
        if n > 3 {
            return None;
        }
        Some((self.bits() >> (Self::EVENTS_SHIFT + 2 * n as u32)) as u8 & 3)
    }
}

/// Bits 59:56 of `IA32_LBR_n_INFO`. SDM volume 3, branch type encodings.
///
/// Any of the sixteen values is representable: 6 and 7 are reserved, 8 to 15 all mean "other".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrType(u8);

impl BrType {
    /// Taken conditional branch.
    pub const COND: Self = Self(0);
    /// Near indirect jump.
    pub const NEAR_IND_JMP: Self = Self(1);
    /// Near relative jump.
    pub const NEAR_REL_JMP: Self = Self(2);
    /// Near indirect call.
    pub const NEAR_IND_CALL: Self = Self(3);
    /// Near relative call.
    pub const NEAR_REL_CALL: Self = Self(4);
    /// Near return.
    pub const NEAR_RET: Self = Self(5);
    /// Everything else, first of the eight encodings.
    pub const OTHER: Self = Self(8);

    /// The type with the low four bits of `value`.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value & 0xf)
    }

    /// The encoding, 0 to 15.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl core::fmt::Display for BrType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self.0 {
            0 => "COND",
            1 => "NEAR_IND_JMP",
            2 => "NEAR_REL_JMP",
            3 => "NEAR_IND_CALL",
            4 => "NEAR_REL_CALL",
            5 => "NEAR_RET",
            6 | 7 => return write!(f, "reserved {}", self.0),
            _ => "OTHER_BRANCH",
        };
        f.write_str(name)
    }
}
