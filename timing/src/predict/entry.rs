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

/// The first of `tags` that is `tag`.
#[inline(always)]
pub(crate) fn find(tags: &[u16], tag: u16) -> Option<usize> {
    const LOWEST: u64 = 0x0001_0001_0001_0001;
    let &[a, b, c, d] = tags else {
        return tags.iter().position(|&own| own == tag);
    };
    // Four at once: which of them it is no processor foresees. Of the lanes that are zero the lowest is found
    // for certain, since a borrow only goes upwards.
    let lanes = u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
    let differ = lanes ^ (LOWEST * u64::from(tag));
    let zero = differ.wrapping_sub(LOWEST) & !differ & (LOWEST << 15);
    (zero != 0).then(|| zero.trailing_zeros() as usize / 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::find;

    proptest! {
        #[test]
        fn four_tags_at_once_are_looked_through_as_one_by_one(
            tags in prop::array::uniform4(prop_oneof![0..4_u16, any::<u16>()]),
            tag in prop_oneof![0..4_u16, any::<u16>()],
        ) {
            let one_by_one = tags.iter().position(|&own| own == tag);
            prop_assert_eq!(find(&tags, tag), one_by_one);
        }
    }
}
