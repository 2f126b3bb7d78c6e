//! A direction predictor of the TAGE class.

use super::bimodal::Bimodal;
use super::branch::{Branch, BranchKind};
use super::config::{HistoryKind, TableConfig, TageConfig};
use super::corrector::Corrector;
use super::entry::{Keys, LANES, Matches, find, lanes, scatter};
use super::history::{Fold, History, Push};
use super::lfsr::Lfsr;
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

/// A tagged table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    keys: Keys,
    fold: Fold,
    ways: usize,
    /// Its number from 1 on.
    number: usize,
    /// Lanes of the last row of a set that are ways.
    lanes: u64,
}

/// A direction predictor of the TAGE class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tage {
    base: Bimodal,
    tables: Vec<Table>,
    /// Tags in rows, to be looked through at once; a set begins with a row.
    tags: Vec<[u16; LANES]>,
    /// The rest of the entries, as many as there are lanes.
    entries: Vec<Entry>,
    /// No set has more than a row.
    narrow: bool,
    /// The history is the path, and every fold of it [`Fold::is_plain`].
    plain: bool,
    /// If that is the history: directions, and two bits of the targets of other branches.
    outcomes: Option<History>,
    loops: Loops,
    corrector: Option<Box<Corrector>>,
    /// Whether the alternate prediction is better where the provider is new, from 0 on.
    trust_alternate: i8,
    ticks: i32,
    random: Lfsr,
}

/// No entry.
const NOWHERE: usize = usize::MAX;

/// Where a prediction comes from.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    /// Entries of the longest history that matches, and of the next one; [`NOWHERE`] without.
    provider: usize,
    alternate: usize,
    /// Tables with no longer history than the provider.
    behind: usize,
}

/// No table knows the branch.
const NOTHING: Lookup = Lookup {
    provider: NOWHERE,
    alternate: NOWHERE,
    behind: 0,
};

/// What the tables make of a branch.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    taken: bool,
    /// What the provider says, if there is one.
    provided: bool,
    /// One more outcome would turn it.
    weak: bool,
}

impl Tage {
    pub(crate) fn new(config: &TageConfig, seed: u32) -> Self {
        let (keys, rows) = Keys::of(&config.tables, TableConfig::rows);
        let tables = keys.into_iter().zip(&config.tables).zip(1..);
        let tables = tables.map(|((keys, table), number)| Table {
            keys,
            fold: Fold::new(table.history),
            ways: table.ways as usize,
            number,
            lanes: lanes(table.ways as usize - LANES * (table.rows() as usize - 1)),
        });
        let tables: Vec<Table> = tables.collect();
        Self {
            base: Bimodal::new(config.base),
            tags: vec![[0; LANES]; rows],
            entries: vec![Entry::default(); LANES * rows],
            narrow: config.tables.iter().all(|table| table.rows() == 1),
            plain: config.history == HistoryKind::Path
                && tables.iter().all(|table| table.fold.is_plain()),
            tables,
            outcomes: (config.history == HistoryKind::Outcome).then(History::new),
            loops: Loops::new(config.loops),
            corrector: (config.corrector != 0).then(|| Corrector::new(config.corrector).into()),
            trust_alternate: 0,
            ticks: 0,
            random: Lfsr::new(seed),
        }
    }

    /// Where the prediction for a branch comes from, if sets have no more than a row. The tables are asked
    /// at once: most know nothing of a branch, and which of them do no processor foresees.
    #[inline(always)]
    fn look_up_in<const N: usize>(&self, tables: &[Table; N], scattered: u64) -> Lookup {
        let mut rows = [0; N];
        let mut matches = [Matches::default(); N];
        for number in 0..N {
            let table = &tables[number];
            let key = table.keys.key_in(scattered, table.fold.value(), 1);
            rows[number] = key.set as usize;
            matches[number] = Matches::of(&self.tags[rows[number]], key.tag, table.lanes);
        }
        let mut lookup = NOTHING;
        if Matches::are_none(&matches) {
            return lookup;
        }
        for ((row, matches), number) in rows.into_iter().zip(matches).zip(1..) {
            if let Some(way) = matches.first() {
                lookup = Lookup {
                    provider: LANES * row + way,
                    alternate: lookup.provider,
                    behind: number,
                };
            }
        }
        lookup
    }

    /// Where the prediction for a branch comes from. `NARROW`: sets have no more than a row.
    #[inline(always)]
    fn look_up<const NARROW: bool>(&self, scattered: u64) -> Lookup {
        let tags = self.tags.as_slice();
        let mut lookup = NOTHING;
        let mut tables = self.tables.iter();
        loop {
            // A loop of its own: most tables know nothing of a branch.
            let (at, behind) = loop {
                let Some(table) = tables.next() else {
                    return lookup;
                };
                let width = if NARROW { 1 } else { table.keys.width() };
                let key = table.keys.key_in(scattered, table.fold.value(), width);
                let row = key.set as usize;
                let found = if NARROW {
                    let way = find(&tags[row], key.tag, table.lanes);
                    way.map(|way| LANES * row + way)
                } else {
                    let mut ways = LANES * row..LANES * row + table.ways;
                    ways.find(|at| tags[at / LANES][at % LANES] == key.tag)
                };
                if let Some(at) = found {
                    break (at, table.number);
                }
            };
            lookup = Lookup {
                provider: at,
                alternate: lookup.provider,
                behind,
            };
        }
    }

    #[inline(never)]
    fn look_up_otherwise(&self, scattered: u64) -> Lookup {
        if self.narrow {
            self.look_up::<true>(scattered)
        } else {
            self.look_up::<false>(scattered)
        }
    }

    /// The prediction for a conditional branch that then went as `taken` says. The history is told
    /// separately.
    #[inline(always)]
    pub(crate) fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        let scattered = scatter(address);
        // The built-in cores have three tables or four.
        let lookup = if !self.narrow {
            self.look_up_otherwise(scattered)
        } else if let Ok(tables) = self.tables.as_slice().try_into() {
            self.look_up_in::<3>(tables, scattered)
        } else if let Ok(tables) = self.tables.as_slice().try_into() {
            self.look_up_in::<4>(tables, scattered)
        } else {
            self.look_up_otherwise(scattered)
        };
        let slot = self.base.slot(address);
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
        if let Some(corrector) = &mut self.corrector {
            predicted = corrector.predict_and_update(address, tables.taken, tables.weak, taken);
        }
        let mut missed = predicted != taken;
        if let Some(guess) = self.loops.guess(scattered) {
            let before = predicted;
            if self.loops.follows(&guess) {
                predicted = guess.taken;
            }
            self.loops.learn(&guess, before, taken);
            missed = false;
        }
        if missed || tables.taken != taken {
            self.learn_miss(scattered, lookup.behind, tables, missed, taken);
        }
        predicted
    }

    /// `missed`: the loop part does not know the branch, and the others were wrong.
    #[cold]
    fn learn_miss(
        &mut self,
        scattered: u64,
        behind: usize,
        tables: Verdict,
        missed: bool,
        taken: bool,
    ) {
        if missed {
            self.loops.missed(scattered, taken, &mut self.random);
        }
        // If the provider was right, its counter only needs time.
        let may = behind == 0 || (behind < self.tables.len() && tables.provided != taken);
        if may && tables.taken != taken {
            self.allocate(scattered, behind, taken);
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
        let entry = &mut self.entries[lookup.provider];
        if provided != alternate {
            if provided == taken {
                entry.useful = (entry.useful + 1).min(USEFUL);
            } else {
                entry.useful = entry.useful.saturating_sub(1);
            }
        }
        step(&mut entry.counter, taken);
        verdict
    }

    /// Entries for a branch that was mispredicted, in tables from `first` on.
    fn allocate(&mut self, scattered: u64, first: usize, taken: bool) {
        let random = self.random.next();
        // Now and then a longer history than the next one is tried at once.
        let skip = usize::from(random & 3 == 0) + usize::from(random & 15 == 0);
        let mut number = if first + skip < self.tables.len() {
            first + skip
        } else {
            first
        };
        let mut allocated = 0;
        while number < self.tables.len() && allocated < ALLOCATED {
            let table = &self.tables[number];
            let key = table.keys.key(scattered, table.fold.value());
            let first = LANES * key.set as usize;
            let set = &mut self.entries[first..first + table.ways];
            if let Some(way) = set.iter().position(|entry| entry.useful == 0) {
                let at = first + way;
                self.tags[at / LANES][at % LANES] = key.tag;
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

    /// Tells of a branch, after it was predicted. `path`: what it adds to the path, before it does.
    #[inline(always)]
    pub(crate) fn note(&mut self, branch: &Branch, taken: bool, path: Option<(&History, Push)>) {
        let tables = self.tables.as_mut_slice();
        let Some(outcomes) = &mut self.outcomes else {
            if let Some((path, push)) = path {
                match (self.plain, tables) {
                    // As many as the built-in cores have.
                    (true, [a, b, c]) => path.advance_plain(push, folds([a, b, c])),
                    (true, [a, b, c, d]) => path.advance_plain(push, folds([a, b, c, d])),
                    (_, tables) => advance_otherwise(path, push, tables),
                }
            }
            return;
        };
        note_outcome(outcomes, tables, branch, taken);
    }
}

#[inline(always)]
fn folds<'a>(
    tables: impl IntoIterator<Item = &'a mut Table>,
) -> impl Iterator<Item = &'a mut Fold> {
    tables.into_iter().map(|table| &mut table.fold)
}

#[inline(never)]
fn advance_otherwise(path: &History, push: Push, tables: &mut [Table]) {
    path.advance(push, folds(tables));
}

/// Adds a branch to a history of outcomes.
#[inline(never)]
fn note_outcome(outcomes: &mut History, tables: &mut [Table], branch: &Branch, taken: bool) {
    if branch.kind == BranchKind::Conditional {
        let push = Push::<1>(u16::from(taken));
        outcomes.advance(push, folds(tables));
        outcomes.push(push);
    } else {
        let mixed = scatter(branch.address ^ branch.target.rotate_left(24));
        let push = Push::<2>((mixed >> 62) as u16);
        outcomes.advance(push, folds(tables));
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
