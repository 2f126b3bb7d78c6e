//! The branch target buffer.

use super::config::BtbConfig;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Address of the branch, plus one: 0 is an unused entry.
    tag: u64,
    target: u64,
}

/// Last targets of branches that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetBuffer {
    /// By set; in a set the one that was used last comes first.
    entries: Vec<Entry>,
    set_mask: usize,
    ways: usize,
}

impl TargetBuffer {
    pub(crate) fn new(config: &BtbConfig) -> Self {
        Self {
            entries: vec![Entry::default(); (config.sets * config.ways) as usize],
            set_mask: config.sets as usize - 1,
            ways: config.ways as usize,
        }
    }

    /// Where the set of the branch at `address` begins.
    pub(crate) fn first(&self, address: u64) -> u32 {
        // Branches of one line are in different sets, and so are those of small functions a page apart.
        let hash = address ^ (address >> 17);
        ((hash as usize & self.set_mask) * self.ways) as u32
    }

    /// Whether the branch at `address`, whose set begins at `first`, is the one of it that was used last, and held
    /// with `target`. Then its coming changes nothing.
    #[inline(always)]
    pub(crate) fn is_latest(&self, first: u32, address: u64, target: u64) -> bool {
        let tag = address.wrapping_add(1);
        self.entries[first as usize] == Entry { tag, target }
    }

    /// The target it holds of the branch at `address`, whose set begins at `first`, and which went to `target`
    /// now.
    #[inline(never)]
    pub(crate) fn look_up_and_update(
        &mut self,
        first: u32,
        address: u64,
        target: u64,
    ) -> Option<u64> {
        let first = first as usize;
        let tag = address.wrapping_add(1);
        let entry = Entry { tag, target };
        let set = &mut self.entries[first..first + self.ways];
        let found = set.iter().position(|own| own.tag == entry.tag);
        let held = found.map(|way| set[way].target);
        let last = found.unwrap_or(self.ways - 1);
        set[..=last].rotate_right(1);
        set[0] = entry;
        held
    }
}
