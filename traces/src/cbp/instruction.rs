//! An instruction of such a trace.

/// Class of an instruction, by the number in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Integer arithmetic.
    Alu = 0,
    /// Load.
    Load = 1,
    /// Store.
    Store = 2,
    /// Conditional branch.
    Conditional = 3,
    /// Direct jump.
    Jump = 4,
    /// Indirect jump.
    IndirectJump = 5,
    /// Floating point.
    Float = 6,
    /// Slow integer arithmetic.
    SlowAlu = 7,
    /// Anything else.
    Undefined = 8,
    /// Direct call.
    Call = 9,
    /// Indirect call.
    IndirectCall = 10,
    /// Return.
    Return = 11,
}

impl Class {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Alu,
        Self::Load,
        Self::Store,
        Self::Conditional,
        Self::Jump,
        Self::IndirectJump,
        Self::Float,
        Self::SlowAlu,
        Self::Undefined,
        Self::Call,
        Self::IndirectCall,
        Self::Return,
    ];

    /// The class with this number, or `None`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number in the trace.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether it is a branch.
    #[must_use]
    pub const fn is_branch(self) -> bool {
        matches!(
            self,
            Self::Conditional
                | Self::Jump
                | Self::IndirectJump
                | Self::Call
                | Self::IndirectCall
                | Self::Return
        )
    }
}

/// An instruction, as far as branches need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Address.
    pub address: u64,
    /// Class.
    pub class: Class,
    /// Where a taken branch went; `None` of everything else.
    pub target: Option<u64>,
}
