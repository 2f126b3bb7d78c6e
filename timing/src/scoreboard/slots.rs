//! Where the slots of the renamer went: the first level of top-down analysis.

/// Issue slots by what became of them. They add up to the width of the renamer times the cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Used by micro-operations that retired.
    pub retiring: u64,
    /// Empty between a mispredicted branch and the first micro-operation of the right path.
    pub bad_speculation: u64,
    /// Empty because the front end had delivered nothing.
    pub frontend: u64,
    /// Empty because a buffer behind the renamer was full, or because everything was issued and had
    /// yet to retire.
    pub backend: u64,
}

impl Slots {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.retiring + self.bad_speculation + self.frontend + self.backend
    }
}

/// Why the renamer stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    Frontend,
    BadSpeculation,
    Backend,
}

impl Slots {
    pub(super) fn lose(&mut self, stall: Stall, slots: u64) {
        match stall {
            Stall::Frontend => self.frontend += slots,
            Stall::BadSpeculation => self.bad_speculation += slots,
            Stall::Backend => self.backend += slots,
        }
    }
}
