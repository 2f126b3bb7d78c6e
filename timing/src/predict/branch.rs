//! A branch as a predictor sees it, and what it would have guessed.

use vlbr_arch::BranchClass;

/// Class of a branch as a predictor sees it. Far transfers are not predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BranchKind {
    /// Jcc, JRCXZ, LOOPcc.
    Conditional,
    /// JMP rel.
    Jump,
    /// CALL rel.
    Call,
    /// JMP r/m.
    IndirectJump,
    /// CALL r/m.
    IndirectCall,
    /// RET, near.
    Return,
}

impl BranchKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Conditional,
        Self::Jump,
        Self::Call,
        Self::IndirectJump,
        Self::IndirectCall,
        Self::Return,
    ];

    /// That of a class of branches as an LBR tells them apart; `None` for far transfers.
    #[must_use]
    pub const fn of(class: BranchClass) -> Option<Self> {
        Some(match class {
            BranchClass::Jcc => Self::Conditional,
            BranchClass::NearRelJmp => Self::Jump,
            BranchClass::NearIndJmp => Self::IndirectJump,
            BranchClass::NearRelCall | BranchClass::NearRelCallZero => Self::Call,
            BranchClass::NearIndCall => Self::IndirectCall,
            BranchClass::NearRet => Self::Return,
            BranchClass::Far(_) => return None,
        })
    }

    /// Whether it pushes a return address.
    #[must_use]
    pub const fn is_call(self) -> bool {
        matches!(self, Self::Call | Self::IndirectCall)
    }

    /// Whether the target is in the instruction, so that decoding it tells the target.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Conditional | Self::Jump | Self::Call)
    }
}

/// A branch that retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// Address of the instruction.
    pub address: u64,
    /// Address of the instruction behind it.
    pub fallthrough: u64,
    /// Its class.
    pub kind: BranchKind,
    /// Whether it was taken; kinds other than [`BranchKind::Conditional`] always are.
    pub taken: bool,
    /// Where it went, if it was taken; not looked at otherwise.
    pub target: u64,
}

/// What a predictor would have made of a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prediction {
    /// A conditional branch went the other way.
    pub direction_missed: bool,
    /// An indirect branch or return went elsewhere.
    pub target_missed: bool,
    /// A taken branch that the branch target buffer did not hold with its target: the front end ran
    /// straight on until the branch was decoded (direct) or executed (indirect).
    pub btb_missed: bool,
}

impl Prediction {
    /// What the MISPRED bit of an LBR entry means: direction or target were mispredicted. A direct branch
    /// that the branch target buffer did not hold is none, since the decoder finds its target.
    #[must_use]
    pub const fn mispredicted(self) -> bool {
        self.direction_missed || self.target_missed
    }
}
