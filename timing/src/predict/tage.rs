//! A direction predictor of the TAGE class.

use super::bimodal::Bimodal;
use super::branch::{Branch, BranchKind};
use super::config::{HistoryKind, TageConfig};
use super::corrector::Corrector;
use super::entry::{Keys, find, folds};
use super::history::{Fold, History, Push};
use super::lfsr::{GOLDEN, Lfsr};
use super::loops::Loops;

/// Bounds of a counter of three bits: negative is not taken.
const COUNTER: (i8, i8) = (-4, 3);
/// Bound of a useful counter.
const USEFUL: u8 = 3;
/// Failed allocations, less those that succeeded, after which every useful counter is halved.
const TICKS: i32 = 1023;
/// Most entries allocated at one misprediction.
const ALLOCATED: u32 = 2;

/// An entry but for its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    counter: i8,
    useful: u8,
}

impl Entry {
    fn taken(self) -> bool {
        self.counter >= 0
    }

    fn is_weak(self) -> bool {
        matches!(self.counter, -1 | 0)
    }
}

/// A direction predictor of the TAGE class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tage {
    base: Bimodal,
    keys: Vec<Keys>,
    /// Tags and the rest of the entries: those of a set lie together, to be looked through at once.
    tags: Vec<u16>,
    entries: Vec<Entry>,
    /// If that is the history: directions, and two bits of the targets of other branches.
    outcomes: Option<History>,
    folds: Vec<Fold>,
    loops: Option<Loops>,
    corrector: Option<Corrector>,
    /// Whether the alternate prediction is better where the provider is new, from 0 on.
    trust_alternate: i8,
    ticks: i32,
    random: Lfsr,
}

/// Where a prediction comes from.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    base: usize,
    /// Table and entry of the longest history that matches, and of the next one.
    provider: Option<(usize, usize)>,
    alternate: Option<usize>,
}

impl Tage {
    pub(crate) fn new(config: &TageConfig, seed: u32) -> Self {
        let (keys, entries) = Keys::of(&config.tables);
        Self {
            base: Bimodal::new(config.base),
            keys,
            tags: vec![0; entries],
            entries: vec![Entry::default(); entries],
            outcomes: (config.history == HistoryKind::Outcome).then(History::new),
            folds: folds(&config.tables),
            loops: (config.loops != 0).then(|| Loops::new(config.loops)),
            corrector: (config.corrector != 0).then(|| Corrector::new(config.corrector)),
            trust_alternate: 0,
            ticks: 0,
            random: Lfsr::new(seed),
        }
    }

    fn look_up(&self, address: u64) -> Lookup {
        let mut lookup = Lookup {
            base: self.base.slot(address),
            provider: None,
            alternate: None,
        };
        for (table, (keys, fold)) in self.keys.iter().zip(&self.folds).enumerate() {
            let key = keys.key(address, fold.value());
            let first = key.set as usize;
            let set = &self.tags[first..first + keys.ways as usize];
            if let Some(way) = find(set, key.tag) {
                lookup.alternate = lookup.provider.map(|(_, entry)| entry);
                lookup.provider = Some((table, first + way));
            }
        }
        lookup
    }

    fn direction(&self, entry: Option<usize>, base: usize) -> bool {
        entry.map_or_else(|| self.base.predict(base), |at| self.entries[at].taken())
    }

    /// The prediction for a conditional branch that then went as `taken` says. The history is told
    /// separately.
    pub(crate) fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        let lookup = self.look_up(address);
        let alternate = self.direction(lookup.alternate, lookup.base);
        let (tables, weak) = match lookup.provider {
            None => (alternate, self.base.is_weak(lookup.base)),
            Some((_, at)) => {
                let entry = self.entries[at];
                let new = entry.is_weak() && entry.useful == 0;
                if new && self.trust_alternate >= 0 {
                    (alternate, true)
                } else {
                    (entry.taken(), entry.is_weak())
                }
            }
        };
        let mut predicted = tables;
        if let Some(corrector) = &mut self.corrector {
            predicted = corrector.predict_and_update(address, tables, weak, taken);
        }
        if let Some(loops) = &mut self.loops {
            let guess = loops.guess(address);
            let before = predicted;
            if let Some(guess) = guess.filter(|guess| loops.follows(guess)) {
                predicted = guess.taken;
            }
            loops.update(address, guess, before, taken, &mut self.random);
        }
        self.update(address, &lookup, alternate, tables, taken);
        predicted
    }

    fn update(
        &mut self,
        address: u64,
        lookup: &Lookup,
        alternate: bool,
        tables: bool,
        taken: bool,
    ) {
        let mut allocate = tables != taken;
        match lookup.provider {
            None => self.base.update(lookup.base, taken),
            Some((table, at)) => {
                let entry = self.entries[at];
                let provided = entry.taken();
                if entry.is_weak() && entry.useful == 0 {
                    // Its counter only needs time.
                    allocate &= provided != taken;
                    if provided != alternate {
                        let step = if alternate == taken { 1 } else { -1 };
                        self.trust_alternate = (self.trust_alternate + step).clamp(-8, 7);
                    }
                    match lookup.alternate {
                        Some(other) => step(&mut self.entries[other].counter, taken),
                        None => self.base.update(lookup.base, taken),
                    }
                }
                let entry = &mut self.entries[at];
                if provided != alternate {
                    if provided == taken {
                        entry.useful = (entry.useful + 1).min(USEFUL);
                    } else {
                        entry.useful = entry.useful.saturating_sub(1);
                    }
                }
                step(&mut entry.counter, taken);
                allocate &= table + 1 < self.keys.len();
            }
        }
        if allocate {
            let first = lookup.provider.map_or(0, |(table, _)| table + 1);
            self.allocate(address, first, taken);
        }
    }

    /// Entries for a branch that was mispredicted, in tables from `first` on.
    fn allocate(&mut self, address: u64, first: usize, taken: bool) {
        let random = self.random.next();
        // Now and then a longer history than the next one is tried at once.
        let skip = usize::from(random & 3 == 0) + usize::from(random & 15 == 0);
        let mut table = if first + skip < self.keys.len() {
            first + skip
        } else {
            first
        };
        let mut allocated = 0;
        while table < self.keys.len() && allocated < ALLOCATED {
            let keys = &self.keys[table];
            let key = keys.key(address, self.folds[table].value());
            let (first, ways) = (key.set as usize, keys.ways as usize);
            let set = &mut self.entries[first..first + ways];
            if let Some(way) = set.iter().position(|entry| entry.useful == 0) {
                self.tags[first + way] = key.tag;
                set[way] = Entry {
                    counter: if taken { 0 } else { -1 },
                    useful: 0,
                };
                allocated += 1;
                self.ticks = (self.ticks - 1).max(0);
                // The next one would mostly learn the same.
                table += 2;
            } else {
                self.ticks += 1;
                table += 1;
            }
        }
        if self.ticks >= TICKS {
            self.ticks = 0;
            for entry in &mut self.entries {
                entry.useful >>= 1;
            }
        }
    }

    /// Tells of a branch, after it was predicted. `path`: what it adds to the path, before it does.
    #[inline]
    pub(crate) fn note(&mut self, branch: &Branch, taken: bool, path: Option<(&History, Push)>) {
        let Some(outcomes) = &mut self.outcomes else {
            if let Some((path, push)) = path {
                path.advance(push, &mut self.folds);
            }
            return;
        };
        let push = if branch.kind == BranchKind::Conditional {
            Push {
                count: 1,
                value: u16::from(taken),
            }
        } else {
            let mixed = (branch.address ^ branch.target.rotate_left(24)).wrapping_mul(GOLDEN);
            Push {
                count: 2,
                value: (mixed >> 62) as u16,
            }
        };
        outcomes.advance(push, &mut self.folds);
        outcomes.push(push);
    }
}

fn step(counter: &mut i8, taken: bool) {
    *counter = if taken {
        (*counter + 1).min(COUNTER.1)
    } else {
        (*counter - 1).max(COUNTER.0)
    };
}
