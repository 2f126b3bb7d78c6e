//! Counters and what each is set to count.

use core::fmt;

use crate::{Increments, SourceSet};

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// General-purpose counter n, `IA32_PMCn`.
    Gp(u8),
    /// Fixed counter i, `IA32_FIXED_CTRi`.
    Fixed(u8),
}

impl Counter {
    /// Bit of the counter in `IA32_PERF_GLOBAL_CTRL` and its companions, below 64 for every
    /// counter that exists.
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::Gp(n) => n as u32,
            Self::Fixed(i) => 32 + i as u32,
        }
    }

    /// The counter of a bit, none for the bits above those of counters.
    #[must_use]
    pub const fn of_bit(bit: u32) -> Option<Self> {
        match bit {
            0..32 => Some(Self::Gp(bit as u8)),
            32..48 => Some(Self::Fixed(bit as u8 - 32)),
            _ => None,
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gp(n) => write!(f, "PMC{n}"),
            Self::Fixed(i) => write!(f, "fixed counter {i}"),
        }
    }
}

/// A set of [`Counter`]s, with the bits of `IA32_PERF_GLOBAL_CTRL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterSet(pub u64);

impl CounterSet {
    /// No counter.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `counter` is a member.
    #[must_use]
    pub const fn contains(self, counter: Counter) -> bool {
        self.0 >> counter.bit() & 1 != 0
    }

    /// The members, general-purpose ones first.
    pub fn iter(self) -> impl Iterator<Item = Counter> {
        (0..48)
            .filter(move |bit| self.0 >> bit & 1 != 0)
            .filter_map(Counter::of_bit)
    }
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Occurrences of these.
    pub sources: SourceSet,
    /// At CPL 0.
    pub kernel: bool,
    /// At CPL 1 to 3.
    pub user: bool,
    /// Inside transactions only.
    pub in_tx: bool,
    /// Of the core's other logical processors as well.
    pub any_thread: bool,
}

impl Selector {
    /// How many events of the selector `increments` holds.
    #[must_use]
    pub fn amount(&self, increments: &Increments) -> u64 {
        if self.in_tx && !increments.in_tx {
            return 0;
        }
        let mut sum = 0u64;
        for (on, user) in [(self.kernel, false), (self.user, true)] {
            if on {
                sum = sum.saturating_add(increments.sum(self.sources, user));
            }
        }
        sum
    }
}
