//! The tagged tables of a direction predictor.

use super::config::{HistoryKind, TableConfig, TageConfig};
use super::entry::{Keys, LANES, Matches, find, lanes};
use super::history::{Fold, History, Push};

/// A tagged table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) keys: Keys,
    pub(super) fold: Fold,
    pub(super) ways: usize,
    /// Its number from 1 on.
    number: usize,
    /// Lanes of the last row of a set that are ways.
    lanes: u64,
}

/// No entry.
pub(super) const NOWHERE: usize = usize::MAX;

/// Where a prediction comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    /// Entries of the longest history that matches, and of the next one; [`NOWHERE`] without.
    pub(super) provider: usize,
    pub(super) alternate: usize,
    /// Tables with no longer history than the provider.
    pub(super) behind: usize,
}

/// No table knows the branch.
const NOTHING: Lookup = Lookup {
    provider: NOWHERE,
    alternate: NOWHERE,
    behind: 0,
};

/// The tables of a predictor, of which the code for a core knows how many there are and what they are like.
pub(crate) trait Tables {
    /// They are as [`is_plain`] says, and the predictor has no other part than the loop part.
    const PLAIN: bool;

    fn all(&self) -> &[Table];

    fn all_mut(&mut self) -> &mut [Table];

    /// Where the prediction for a branch comes from.
    fn look_up(&self, tags: &[[u16; LANES]], scattered: u64) -> Lookup;

    /// Brings the folds to what they are after `push`, which comes next.
    fn advance(&mut self, path: &History, push: Push);
}

/// The tables of `config`, and how many rows they have together.
pub(super) fn tables(config: &TageConfig) -> (Vec<Table>, usize) {
    let (keys, rows) = Keys::of(&config.tables, TableConfig::rows);
    let tables = keys.into_iter().zip(&config.tables).zip(1..);
    let tables = tables.map(|((keys, table), number)| Table {
        keys,
        fold: Fold::new(table.history),
        ways: table.ways as usize,
        number,
        lanes: lanes(table.ways as usize - LANES * (table.rows() as usize - 1)),
    });
    (tables.collect(), rows)
}

/// Sets are rows, the history is the path, every fold of it [`Fold::is_plain`], and nothing but loops is learned
/// beside the tables.
pub(super) fn is_plain(config: &TageConfig) -> bool {
    config.history == HistoryKind::Path
        && config.corrector == 0
        && config.tables.iter().all(|table| {
            table.ways as usize == LANES && table.rows() == 1 && Fold::new(table.history).is_plain()
        })
}

/// As many as the built-in cores have.
impl<const N: usize> Tables for [Table; N] {
    const PLAIN: bool = true;

    fn all(&self) -> &[Table] {
        self
    }

    fn all_mut(&mut self) -> &mut [Table] {
        self
    }

    /// The tables are asked at once: most know nothing of a branch, and which of them do no processor foresees.
    #[inline(always)]
    fn look_up(&self, tags: &[[u16; LANES]], scattered: u64) -> Lookup {
        let mut rows = [0; N];
        let mut matches = [Matches::default(); N];
        for number in 0..N {
            let table = &self[number];
            let key = table.keys.key_in(scattered, table.fold.value(), 1);
            rows[number] = key.set as usize;
            matches[number] = Matches::of(&tags[rows[number]], key.tag);
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

    #[inline(always)]
    fn advance(&mut self, path: &History, push: Push) {
        path.advance_plain(push, self.iter_mut().map(|table| &mut table.fold));
    }
}

/// Any others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Others {
    tables: Vec<Table>,
    /// No set has more than a row.
    narrow: bool,
}

impl Others {
    pub(super) fn new(tables: Vec<Table>) -> Self {
        Self {
            narrow: tables.iter().all(|table| table.keys.width() == 1),
            tables,
        }
    }

    /// [`Tables::look_up`]; `NARROW`: sets have no more than a row.
    #[inline(always)]
    fn look_up<const NARROW: bool>(&self, tags: &[[u16; LANES]], scattered: u64) -> Lookup {
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
                    ways.find(|at| u32::from(tags[at / LANES][at % LANES]) == key.tag)
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
}

impl Tables for Others {
    const PLAIN: bool = false;

    fn all(&self) -> &[Table] {
        &self.tables
    }

    fn all_mut(&mut self) -> &mut [Table] {
        &mut self.tables
    }

    #[inline(never)]
    fn look_up(&self, tags: &[[u16; LANES]], scattered: u64) -> Lookup {
        if self.narrow {
            self.look_up::<true>(tags, scattered)
        } else {
            self.look_up::<false>(tags, scattered)
        }
    }

    #[inline(never)]
    fn advance(&mut self, path: &History, push: Push) {
        path.advance(push, self.tables.iter_mut().map(|table| &mut table.fold));
    }
}
