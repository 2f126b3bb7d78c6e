//! `IA32_LBR_CTL`.

use crate::bits::register_bits;

register_bits! {
    /// `IA32_LBR_CTL` (0x14CE). SDM volume 3, "Last Branch Records", architectural LBR.
    ///
    /// Polarity is the opposite of [`crate::LbrSelect`]: 1 means "record".
    LbrCtl {
        /// Record branches.
        LBR_EN = 0,
        /// Record when CPL = 0.
        OS = 1,
        /// Record when CPL is not 0.
        USR = 2,
        /// Call-stack (LIFO) mode.
        CALL_STACK = 3,
        /// Record taken conditional branches.
        JCC = 16,
        /// Record near relative jumps.
        NEAR_REL_JMP = 17,
        /// Record near indirect jumps.
        NEAR_IND_JMP = 18,
        /// Record near relative calls.
        NEAR_REL_CALL = 19,
        /// Record near indirect calls.
        NEAR_IND_CALL = 20,
        /// Record near returns.
        NEAR_RET = 21,
        /// Record everything else: far transfers, interrupts, exceptions, TSX aborts.
        OTHER_BRANCH = 22,
    }
}

impl LbrCtl {
    /// The seven branch-type bits, 22:16.
    pub const ALL_TYPES: Self = Self::from_bits(0x7f_0000);
}
