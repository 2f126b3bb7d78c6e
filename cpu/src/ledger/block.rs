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

    /// The registers, entry by entry.
    pub fn msrs(self) -> impl Iterator<Item = Msr> {
        let (from, to, info) = self.bases;
        (0..self.count).flat_map(move |position| {
            let n = self.entry(position);
            [Some(from), Some(to), info]
                .into_iter()
                .flatten()
                .map(move |base| base.plus(n))
        })
    }
}
