//! Where the slots of the renamer went.

use vlbr_cpu::Slots;

/// Why the renamer stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// The front end had delivered nothing.
    Frontend,
    /// The same, because it was sent elsewhere by a mispredicted branch.
    BadSpeculation,
    /// A buffer behind the renamer was full.
    Backend,
}

/// Loses `count` slots.
pub(super) fn lose(slots: &mut Slots, stall: Stall, count: u64) {
    match stall {
        Stall::Frontend => slots.frontend += count,
        Stall::BadSpeculation => slots.bad_speculation += count,
        Stall::Backend => slots.backend += count,
    }
}
