//! Time as the LBR cycle counter measures it.

/// A point in time in core clock cycles, counted from an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cycles(u64);

impl Cycles {
    /// The point `cycles` after the origin.
    #[must_use]
    pub const fn new(cycles: u64) -> Self {
        Self(cycles)
    }

    /// Cycles since the origin.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Cycles from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
