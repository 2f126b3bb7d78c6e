//! Tables of tagged entries, chosen by address and history.

use super::config::TableConfig;
use super::lfsr::{GOLDEN, multiplier};

/// Tags that are looked through at once.
pub(crate) const LANES: usize = 4;
const LOWEST: u64 = 0x0001_0001_0001_0001;
const HIGHEST: u64 = LOWEST << 15;

/// What an address and a history choose in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// First entry of the set.
    pub(crate) set: u32,
    pub(crate) tag: u32,
}

/// How a table makes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    multiplier: u64,
    first: u32,
    set_mask: u32,
    width: u32,
    tag_mask: u32,
}

impl Keys {
    /// Keys of the tables of one part, whose sets lie behind each other, and where they end. `width`: that of
    /// the sets of a table.
    pub(crate) fn of(
        tables: &[TableConfig],
        width: impl Fn(&TableConfig) -> u32,
    ) -> (Vec<Self>, usize) {
        let mut first = 0;
        let keys = tables.iter().enumerate().map(|(index, table)| {
            let keys = Self {
                multiplier: multiplier(index),
                first,
                set_mask: table.sets - 1,
                width: width(table),
                tag_mask: (1 << table.tag) - 1,
            };
            // At most 2^16 sets of 16 ways in 16 tables.
            first += table.sets * keys.width;
            keys
        });
        let keys = keys.collect();
        (keys, first as usize)
    }

    /// Distance of its sets.
    #[inline(always)]
    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    /// The key of an address, as [`scatter`] has it, under a folded history.
    #[inline]
    pub(crate) fn key(&self, scattered: u64, fold: u64) -> Key {
        self.key_in(scattered, fold, self.width)
    }

    /// [`Keys::key`] in a table whose sets are known to be so wide.
    #[inline(always)]
    pub(crate) fn key_in(&self, scattered: u64, fold: u64, width: u32) -> Key {
        // Every bit stands in the lower half too, so that each reaches index and tag.
        let mixed = scattered ^ fold;
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(self.multiplier);
        Key {
            set: self.first + ((mixed >> 48) as u32 & self.set_mask) * width,
            tag: (mixed >> 32) as u32 & self.tag_mask,
        }
    }
}

/// An address, the low bits of which are scattered over the high ones.
#[inline(always)]
pub(crate) fn scatter(address: u64) -> u64 {
    address.wrapping_mul(GOLDEN)
}

/// A mask for [`find`] of the first `ways` lanes.
pub(crate) fn lanes(ways: usize) -> u64 {
    match ways {
        0 => 0,
        1..LANES => HIGHEST >> (16 * (LANES - ways)),
        _ => HIGHEST,
    }
}

/// Which of some tags are the one that is looked for: the highest bits of their lanes, of which only the
/// lowest is certain. The other bits mean nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Matches(u64);

impl Matches {
    /// Of `tags` those that are `tag`, which has 16 bits.
    #[inline(always)]
    pub(crate) fn of(&[a, b, c, d]: &[u16; LANES], tag: u32) -> Self {
        // At once: which of them it is no processor foresees. Of the lanes that are zero the lowest is found
        // for certain, since a borrow only goes upwards.
        let tags = u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
        let differ = tags ^ LOWEST.wrapping_mul(tag.into());
        Self(differ.wrapping_sub(LOWEST) & !differ)
    }

    /// Whether there are none in any of `all`.
    #[inline(always)]
    pub(crate) fn are_none<const N: usize>(all: &[Self; N]) -> bool {
        all.iter().fold(0, |any, matches| any | matches.0) & HIGHEST == 0
    }

    /// The first.
    #[inline(always)]
    pub(crate) fn first(self) -> Option<usize> {
        self.first_in(HIGHEST)
    }

    /// The first among `lanes`.
    #[inline(always)]
    fn first_in(self, lanes: u64) -> Option<usize> {
        let found = self.0 & lanes;
        (found != 0).then(|| found.trailing_zeros() as usize / 16 % LANES)
    }
}

/// The first of `tags` that is `tag`, among `lanes`.
#[inline(always)]
pub(crate) fn find(tags: &[u16; LANES], tag: u32, lanes: u64) -> Option<usize> {
    Matches::of(tags, tag).first_in(lanes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LANES, find, lanes};

    proptest! {
        #[test]
        fn four_tags_at_once_are_looked_through_as_one_by_one(
            tags in prop::array::uniform4(prop_oneof![0..4_u16, any::<u16>()]),
            tag in prop_oneof![0..4_u16, any::<u16>()],
            ways in 0..=LANES,
        ) {
            let one_by_one = tags[..ways].iter().position(|&own| own == tag);
            prop_assert_eq!(find(&tags, tag.into(), lanes(ways)), one_by_one);
        }
    }
}
