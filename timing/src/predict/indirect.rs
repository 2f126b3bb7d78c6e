//! Targets of indirect branches, by the path that leads to them.

use super::config::{IndirectConfig, MAX_TABLES};
use super::entry::{Key, Keys, scatter};
use super::history::History;
use super::lfsr::Lfsr;

/// Bound of the confidence of an entry.
const SURE: u8 = 3;
/// Failed allocations, less those that succeeded, after which no entry counts as useful.
const TICKS: i32 = 255;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    target: u64,
    tag: u16,
    /// 0: the next other target replaces it.
    sure: u8,
    useful: bool,
}

/// A tagged table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    keys: Keys,
    ways: usize,
    /// Bits of history.
    length: u32,
}

/// Tagged tables of targets; the base is the branch target buffer, which the caller asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Indirect {
    tables: Vec<Table>,
    entries: Vec<Entry>,
    /// Whether the alternate prediction is better where the provider is new, from 0 on.
    trust_alternate: i8,
    ticks: i32,
    random: Lfsr,
}

impl Indirect {
    pub(crate) fn new(config: &IndirectConfig, seed: u32) -> Self {
        let (keys, entries) = Keys::of(&config.tables, |table| table.ways);
        let tables = keys.into_iter().zip(&config.tables);
        let tables = tables.map(|(keys, table)| Table {
            keys,
            ways: table.ways as usize,
            length: table.history,
        });
        Self {
            tables: tables.collect(),
            entries: vec![Entry::default(); entries],
            trust_alternate: 0,
            ticks: 0,
            random: Lfsr::new(seed),
        }
    }

    /// The target predicted for the branch at `address`, which then went to `target`; `base`: what the
    /// branch target buffer holds.
    pub(crate) fn predict_and_update(
        &mut self,
        address: u64,
        base: Option<u64>,
        target: u64,
        path: &History,
    ) -> Option<u64> {
        let mut keys = [Key::default(); MAX_TABLES];
        let (mut provider, mut alternate) = (None, None);
        let scattered = scatter(address);
        // Indirect branches are rare: their folds are made when they are needed.
        let folds = path.folds(self.tables.iter().map(|table| table.length));
        for (number, (table, fold)) in self.tables.iter().zip(folds).enumerate() {
            let key = table.keys.key(scattered, fold);
            keys[number] = key;
            let first = key.set as usize;
            let set = &self.entries[first..first + table.ways];
            if let Some(way) = set
                .iter()
                .position(|entry| u32::from(entry.tag) == key.tag && entry.target != 0)
            {
                alternate = provider.map(|(_, at)| at);
                provider = Some((number, first + way));
            }
        }
        let other = alternate.map_or(base, |at: usize| Some(self.entries[at].target));
        let Some((table, at)) = provider else {
            if base != Some(target) {
                self.allocate(&keys, 0, target);
            }
            return base;
        };
        let entry = self.entries[at];
        let new = entry.sure == 0;
        let predicted = if new && self.trust_alternate >= 0 && other.is_some() {
            other
        } else {
            Some(entry.target)
        };
        let right = entry.target == target;
        if new && right != (other == Some(target)) {
            let step = if right { -1 } else { 1 };
            self.trust_alternate = (self.trust_alternate + step).clamp(-8, 7);
        }
        let entry = &mut self.entries[at];
        if right {
            entry.sure = (entry.sure + 1).min(SURE);
            entry.useful |= other != Some(target);
        } else if entry.sure == 0 {
            entry.target = target;
            entry.useful = false;
        } else {
            entry.sure -= 1;
        }
        if predicted != Some(target) && !(new && right) {
            self.allocate(&keys, table + 1, target);
        }
        predicted
    }

    fn allocate(&mut self, keys: &[Key; MAX_TABLES], first: usize, target: u64) {
        let skip = usize::from(self.random.next() & 3 == 0);
        let start = if first + skip < self.tables.len() {
            first + skip
        } else {
            first
        };
        for (table, key) in self.tables.iter().zip(keys).skip(start) {
            let first = key.set as usize;
            let set = &mut self.entries[first..first + table.ways];
            if let Some(entry) = set.iter_mut().find(|entry| !entry.useful) {
                *entry = Entry {
                    target,
                    tag: key.tag as u16,
                    sure: 0,
                    useful: false,
                };
                self.ticks = (self.ticks - 1).max(0);
                return;
            }
            self.ticks += 1;
        }
        if self.ticks >= TICKS {
            self.ticks = 0;
            for entry in &mut self.entries {
                entry.useful = false;
            }
        }
    }
}
