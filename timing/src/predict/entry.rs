//! Tables of tagged entries, chosen by address and history.

use super::config::TableConfig;
use super::history::Fold;
use super::lfsr::{GOLDEN, multiplier};

/// What an address and a history choose in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// First entry of the set.
    pub(crate) set: u32,
    pub(crate) tag: u16,
}

/// How a table makes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    multiplier: u64,
    first: u32,
    set_mask: u32,
    pub(crate) ways: u32,
    tag_mask: u16,
}

impl Keys {
    /// Keys of the tables of one part, whose entries lie behind each other, and how many there are.
    pub(crate) fn of(tables: &[TableConfig]) -> (Vec<Self>, usize) {
        let mut first = 0;
        let keys = tables.iter().enumerate().map(|(index, table)| {
            let keys = Self {
                multiplier: multiplier(index),
                first,
                set_mask: table.sets - 1,
                ways: table.ways,
                tag_mask: ((1_u32 << table.tag) - 1) as u16,
            };
            // At most 2^16 sets of 16 ways in 16 tables.
            first += table.sets * table.ways;
            keys
        });
        let keys = keys.collect();
        (keys, first as usize)
    }

    /// The key of `address` under a folded history.
    #[inline]
    pub(crate) fn key(&self, address: u64, fold: u64) -> Key {
        // Every bit stands in the lower half too, so that each reaches index and tag.
        let mixed = address.wrapping_mul(GOLDEN) ^ fold;
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(self.multiplier);
        Key {
            set: self.first + ((mixed >> 48) as u32 & self.set_mask) * self.ways,
            tag: (mixed >> 32) as u16 & self.tag_mask,
        }
    }
}

/// Folds of the histories that the tables use.
pub(crate) fn folds(tables: &[TableConfig]) -> Vec<Fold> {
    tables
        .iter()
        .map(|table| Fold::new(table.history))
        .collect()
}
