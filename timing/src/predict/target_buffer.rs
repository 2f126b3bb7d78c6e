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

    /// The target it holds of the branch at `address`, which went to `target` now.
    #[inline(always)]
    pub(crate) fn look_up_and_update(&mut self, address: u64, target: u64) -> Option<u64> {
        // Branches of one line are in different sets, and so are those of small functions a page apart.
        let hash = address ^ (address >> 17);
        let first = (hash as usize & self.set_mask) * self.ways;
        let tag = address.wrapping_add(1);
        let youngest = &mut self.entries[first];
        if youngest.tag == tag {
            return Some(std::mem::replace(&mut youngest.target, target));
        }
        self.look_further(first, Entry { tag, target })
    }

    /// What it holds of the branch of `entry`, which is not the youngest of the set that begins at `first`.
    #[inline(never)]
    fn look_further(&mut self, first: usize, entry: Entry) -> Option<u64> {
        let set = &mut self.entries[first..first + self.ways];
        let found = set.iter().position(|own| own.tag == entry.tag);
        let held = found.map(|way| set[way].target);
        let last = found.unwrap_or(self.ways - 1);
        set[..=last].rotate_right(1);
        set[0] = entry;
        held
    }
}
