//! `IA32_PERF_CAPABILITIES.LBR_FMT`.

/// `IA32_PERF_CAPABILITIES[5:0]`: how FROM, TO and INFO are laid out. SDM volume 3, "LBR stack".
///
/// An open number space: values without a name stay representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LbrFormat(u8);

impl LbrFormat {
    /// 0: 32-bit offsets in the code segment.
    pub const OFFSET_32: Self = Self(0);
    /// 1: 64-bit linear addresses (LIP).
    pub const LIP: Self = Self(1);
    /// 2: 64-bit effective addresses (EIP).
    pub const EIP: Self = Self(2);
    /// 3: EIP, MISPRED in FROM\[63\].
    pub const EIP_FLAGS: Self = Self(3);
    /// 4: EIP, MISPRED, IN_TSX and TSX_ABORT in FROM\[63:61\].
    pub const EIP_FLAGS_TSX: Self = Self(4);
    /// 5: EIP, flags and cycles in an INFO MSR.
    pub const EIP_INFO: Self = Self(5);
    /// 6: LIP, MISPRED in FROM\[63\], cycles in TO\[63:48\].
    pub const LIP_CYCLES: Self = Self(6);
    /// 7: LIP, INFO MSR without TSX bits.
    pub const LIP_INFO: Self = Self(7);
    /// 0x3F: architectural LBR only.
    pub const ARCH: Self = Self(0x3f);

    /// The format with the low six bits of `value`.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value & 0x3f)
    }

    /// The encoding.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl core::fmt::Display for LbrFormat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match *self {
            Self::OFFSET_32 => "32-bit offset",
            Self::LIP => "LIP",
            Self::EIP => "EIP",
            Self::EIP_FLAGS => "EIP with MISPRED",
            Self::EIP_FLAGS_TSX => "EIP with MISPRED and TSX",
            Self::EIP_INFO => "EIP with INFO",
            Self::LIP_CYCLES => "LIP with MISPRED and cycles in TO",
            Self::LIP_INFO => "LIP with INFO",
            Self::ARCH => "architectural",
            _ => "unknown",
        };
        write!(f, "{:#x} ({name})", self.0)
    }
}
