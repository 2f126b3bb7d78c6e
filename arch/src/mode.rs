//! Privilege level and code size of an executing logical processor.

/// Current privilege level (CPL), rings 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cpl {
    /// Ring 0, the supervisor level `LBR_SELECT.CPL_EQ_0` and `LBR_CTL.OS` speak of.
    Ring0 = 0,
    /// Ring 1.
    Ring1 = 1,
    /// Ring 2.
    Ring2 = 2,
    /// Ring 3, user mode.
    Ring3 = 3,
}

impl Cpl {
    /// The level with this number, or `None` above 3.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ring0),
            1 => Some(Self::Ring1),
            2 => Some(Self::Ring2),
            3 => Some(Self::Ring3),
            _ => None,
        }
    }

    /// The ring number, 0 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether this is ring 0.
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        matches!(self, Self::Ring0)
    }
}

/// Default operand and address size of the code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode or a 16-bit segment.
    Bits16 = 0,
    /// Protected or compatibility mode, `CS.D` = 1.
    Bits32 = 1,
    /// 64-bit mode, `CS.L` = 1.
    Bits64 = 2,
}

impl CodeSize {
    /// The size with this number (0, 1, 2 for 16, 32, 64 bits), or `None`.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Bits16),
            1 => Some(Self::Bits32),
            2 => Some(Self::Bits64),
            _ => None,
        }
    }

    /// The number of [`CodeSize::from_number`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
}
