//! The registers of several LBR entries.

use vlbr_arch::Msr;

const fn below(n: u32, nr: u32) -> u32 {
    if n < nr { n } else { n % nr }
}

/// FROM, TO and, if there is one, INFO of `count` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryBlock {
    /// FROM, TO and INFO of entry 0.
    pub bases: (Msr, Msr, Option<Msr>),
    /// Entries of the part.
    pub nr: u32,
    /// The first entry.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whether the next one has the number below, where `nr` - 1 follows 0, or the number above.
    pub down: bool,
}

impl EntryBlock {
    /// Number of the entry at a position.
    #[must_use]
    pub const fn entry(&self, position: u32) -> u32 {
        let nr = if self.nr == 0 { 1 } else { self.nr };
        // Divisions cost more than the accesses: they are needed beyond the ring only.
        let first = below(self.first, nr);
        let position = below(position, nr);
        if !self.down {
            below(first + position, nr)
        } else if first >= position {
            first - position
        } else {
            first + nr - position
        }
    }

    /// Numbers of the entries, in order.
    #[inline]
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        let last = self.nr.saturating_sub(1);
        let mut next = self.entry(0);
        (0..self.count).map(move |_| {
            let n = next;
            next = match self.down {
                true if n == 0 => last,
                true => n - 1,
                false if n >= last => 0,
                false => n + 1,
            };
            n
        })
    }

    /// The registers, entry by entry.
    pub fn msrs(self) -> impl Iterator<Item = Msr> {
        let (from, to, info) = self.bases;
        self.numbers().flat_map(move |n| {
            [Some(from), Some(to), info]
                .into_iter()
                .flatten()
                .map(move |base| base.plus(n))
        })
    }
}
