//! `MSR_LBR_SELECT`.

use crate::bits::register_bits;

register_bits! {
    /// `MSR_LBR_SELECT` (0x1C8). SDM volume 3, "Filtering of Last Branch Records".
    ///
    /// Bits 0 to 8 *suppress*: 1 means "do not record". Bit 9 alone enables.
    LbrSelect {
        /// Suppress transfers that end in ring 0.
        CPL_EQ_0 = 0,
        /// Suppress transfers that end in rings 1 to 3.
        CPL_NEQ_0 = 1,
        /// Suppress taken conditional branches.
        JCC = 2,
        /// Suppress near relative calls.
        NEAR_REL_CALL = 3,
        /// Suppress near indirect calls.
        NEAR_IND_CALL = 4,
        /// Suppress near returns.
        NEAR_RET = 5,
        /// Suppress near indirect jumps; on Nehalem's layout also indirect calls and returns.
        NEAR_IND_JMP = 6,
        /// Suppress near relative jumps; on Nehalem's layout also relative calls.
        NEAR_REL_JMP = 7,
        /// Suppress far branches, interrupts and exceptions.
        FAR_BRANCH = 8,
        /// Call-stack (LIFO) mode, Haswell and Goldmont and later.
        EN_CALLSTACK = 9,
    }
}
