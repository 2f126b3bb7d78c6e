//! A direction predictor of the TAGE class.

use super::bimodal::Bimodal;
use super::branch::BranchKind;
use super::config::{HistoryKind, TageConfig};
use super::corrector::Corrector;
use super::direction::Learner;
use super::entry::{LANES, scatter};
use super::history::{History, Push};
use super::known::Known;
use super::lfsr::Lfsr;
use super::loops::{Loops, Place};
use super::tables::{Lookup, Table, Tables};

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
pub(crate) struct Tage<T> {
    tables: T,
    base: Bimodal,
    /// Tags in rows, to be looked through at once; a set begins with a row.
    tags: Vec<[u16; LANES]>,
    /// The rest of the entries, as many as there are lanes.
    entries: Vec<Entry>,
    /// If that is the history: directions, and two bits of the targets of other branches.
    outcomes: Option<History>,
    loops: Loops,
    corrector: Option<Box<Corrector>>,
    /// Whether the alternate prediction is better where the provider is new, from 0 on.
    trust_alternate: i8,
    ticks: i32,
    random: Lfsr,
}

/// What the tables make of a branch.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    taken: bool,
    /// What the provider says, if there is one.
    provided: bool,
    /// One more outcome would turn it.
    weak: bool,
}

impl<T: Tables> Tage<T> {
    /// `tables`: those of `config`, which have so many `rows`.
    pub(super) fn new(config: &TageConfig, seed: u32, tables: T, rows: usize) -> Self {
        Self {
            base: Bimodal::new(config.base),
            tables,
            tags: vec![[0; LANES]; rows],
            entries: vec![Entry::default(); LANES * rows],
            outcomes: (config.history == HistoryKind::Outcome).then(History::new),
            loops: Loops::new(config.loops),
            corrector: (config.corrector != 0).then(|| Corrector::new(config.corrector).into()),
            trust_alternate: 0,
            ticks: 0,
            random: Lfsr::new(seed),
        }
    }

    /// Where a branch stands in the base, and where in the loop part, by its address, as it is and scattered.
    pub(super) fn places(&self, address: u64, scattered: u64) -> (u32, Place) {
        let slot = self.base.slot(address) as u32;
        (slot, self.loops.place(scattered))
    }

    /// What the tables say of a conditional branch; they learn that it went as `taken` says.
    #[inline(always)]
    fn ask(&mut self, branch: &Known, taken: bool) -> bool {
        let lookup = self.tables.look_up(&self.tags, branch.other);
        let slot = branch.slot as usize;
        let tables = match self.entries.get(lookup.provider) {
            None => {
                let (predicted, weak) = self.base.predict_and_update(slot, taken);
                Verdict {
                    taken: predicted,
                    provided: predicted,
                    weak,
                }
            }
            Some(&entry) => self.learn(entry, &lookup, slot, taken),
        };
        let mut predicted = tables.taken;
        if !T::PLAIN
            && let Some(corrector) = &mut self.corrector
        {
            let address = branch.address;
            predicted = corrector.predict_and_update(address, tables.taken, tables.weak, taken);
        }
        let mut missed = predicted != taken;
        if let Some(guess) = self.loops.guess(branch.place) {
            let before = predicted;
            if self.loops.follows(&guess) {
                predicted = guess.taken;
            }
            self.loops.learn(&guess, before, taken);
            missed = false;
        }
        if missed || tables.taken != taken {
            self.learn_miss(branch, lookup.behind, tables, missed, taken);
        }
        predicted
    }

    /// `missed`: the loop part does not know the branch, and the others were wrong.
    #[cold]
    fn learn_miss(
        &mut self,
        branch: &Known,
        behind: usize,
        tables: Verdict,
        missed: bool,
        taken: bool,
    ) {
        if missed {
            self.loops.missed(branch.place, taken, &mut self.random);
        }
        // If the provider was right, its counter only needs time.
        let may = behind == 0 || (behind < self.tables.all().len() && tables.provided != taken);
        if may && tables.taken != taken {
            self.allocate(branch.other, behind, taken);
        }
    }

    /// What the tables say of a branch of which `entry` is the provider; they learn that it went as `taken`
    /// says.
    #[inline(always)]
    fn learn(&mut self, entry: Entry, lookup: &Lookup, slot: usize, taken: bool) -> Verdict {
        let provided = entry.taken();
        let alternate = match self.entries.get(lookup.alternate) {
            Some(other) => other.taken(),
            None => self.base.predict(slot),
        };
        let mut verdict = Verdict {
            taken: provided,
            provided,
            weak: entry.is_weak(),
        };
        if verdict.weak && entry.useful == 0 {
            // It is new.
            if self.trust_alternate >= 0 {
                verdict.taken = alternate;
            }
            if provided != alternate {
                let step = if alternate == taken { 1 } else { -1 };
                self.trust_alternate = (self.trust_alternate + step).clamp(-8, 7);
            }
            match self.entries.get_mut(lookup.alternate) {
                Some(other) => step(&mut other.counter, taken),
                None => self.base.update(slot, taken),
            }
        }
        let mut entry = entry;
        if provided != alternate {
            if provided == taken {
                entry.useful = (entry.useful + 1).min(USEFUL);
            } else {
                entry.useful = entry.useful.saturating_sub(1);
            }
        }
        step(&mut entry.counter, taken);
        self.entries[lookup.provider] = entry;
        verdict
    }

    /// Entries for a branch that was mispredicted, in tables from `first` on.
    fn allocate(&mut self, scattered: u64, first: usize, taken: bool) {
        let tables = self.tables.all();
        let random = self.random.next();
        // Now and then a longer history than the next one is tried at once.
        let skip = usize::from(random & 3 == 0) + usize::from(random & 15 == 0);
        let mut number = if first + skip < tables.len() {
            first + skip
        } else {
            first
        };
        let mut allocated = 0;
        while number < tables.len() && allocated < ALLOCATED {
            let table = &tables[number];
            let key = table.keys.key(scattered, table.fold.value());
            let first = LANES * key.set as usize;
            let set = &mut self.entries[first..first + table.ways];
            if let Some(way) = set.iter().position(|entry| entry.useful == 0) {
                let at = first + way;
                self.tags[at / LANES][at % LANES] = key.tag as u16;
                set[way] = Entry {
                    counter: if taken { 0 } else { -1 },
                    useful: 0,
                };
                allocated += 1;
                self.ticks = (self.ticks - 1).max(0);
                // The next one would mostly learn the same.
                number += 2;
            } else {
                self.ticks += 1;
                number += 1;
            }
        }
        if self.ticks >= TICKS {
            self.ticks = 0;
            for entry in &mut self.entries {
                entry.useful >>= 1;
            }
        }
    }
}

impl<T: Tables> Learner for Tage<T> {
    #[inline(always)]
    fn predict_and_update(&mut self, branch: &Known) -> bool {
        self.ask(branch, branch.taken)
    }

    #[inline(always)]
    fn note(&mut self, branch: &Known, taken: bool, path: Option<&History>) {
        if !T::PLAIN
            && let Some(outcomes) = &mut self.outcomes
        {
            note_outcome(outcomes, self.tables.all_mut(), branch, taken);
        } else if let Some(path) = path {
            self.tables.advance(path, branch.push);
        }
    }
}

/// Adds a branch to a history of outcomes.
#[inline(never)]
fn note_outcome(outcomes: &mut History, tables: &mut [Table], branch: &Known, taken: bool) {
    let folds = tables.iter_mut().map(|table| &mut table.fold);
    if branch.kind == BranchKind::Conditional {
        let push = Push::<1>(u16::from(taken));
        outcomes.advance(push, folds);
        outcomes.push(push);
    } else {
        let mixed = scatter(branch.address ^ branch.target.rotate_left(24));
        let push = Push::<2>((mixed >> 62) as u16);
        outcomes.advance(push, folds);
        outcomes.push(push);
    }
}

/// Goes on towards what a branch did.
#[inline(always)]
fn step(counter: &mut i8, taken: bool) {
    // Most are there.
    if *counter != if taken { COUNTER.1 } else { COUNTER.0 } {
        *counter += if taken { 1 } else { -1 };
    }
}
