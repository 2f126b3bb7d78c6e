//! What the latest stores wrote and loads found, by the 8 bytes of memory they are about.

use super::LOW;

/// What a store wrote, or a load found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    address: u64,
    pub(super) value: u64,
    /// Number of the store from 1 on, 0 for a load, times 256, and the number of bytes.
    store: u64,
}

/// Where a load has its bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scoreboard) enum Source {
    /// The cache.
    Cache,
    /// A store, by number.
    Store(u64),
    /// A store of only some of the bytes, which has to leave the store buffer.
    Blocked(u64),
}

impl Source {
    /// The store; 0 for the cache.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Cache => 0,
            Self::Store(number) | Self::Blocked(number) => number,
        }
    }
}

impl Cell {
    /// What store `number` wrote, or a load found if that is 0.
    #[inline]
    pub(super) fn new(address: u64, size: u8, value: u64, number: u64) -> Self {
        Self {
            address,
            value,
            store: number << 8 | u64::from(size),
        }
    }

    #[inline]
    fn size(&self) -> u8 {
        self.store as u8
    }

    /// Number of the store, 0 for a load.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.store >> 8
    }

    /// Whether it is about these bytes and no others.
    #[inline]
    pub(super) fn is(&self, address: u64, size: u8) -> bool {
        self.address == address && self.size() == size
    }

    /// Where a load of the same bytes has them from.
    #[inline]
    pub(super) fn source(&self) -> Source {
        match self.number() {
            0 => Source::Cache,
            number => Source::Store(number),
        }
    }

    /// What a load of `size` bytes at `address` has from this store.
    #[inline]
    fn serves(&self, address: u64, size: u8) -> Source {
        let number = self.number();
        let own = u64::from(self.size());
        if number == 0 {
            return Source::Cache;
        }
        let from = address.wrapping_sub(self.address);
        if from < own && from.wrapping_add(u64::from(size)) <= own {
            return Source::Store(number);
        }
        let before = self.address.wrapping_sub(address) < u64::from(size);
        match from < own || before {
            true => Source::Blocked(number),
            false => Source::Cache,
        }
    }

    /// The same, and the value if it is known: that of a part of a store of no more than 8 bytes.
    #[inline]
    fn find(&self, address: u64, size: u8) -> (Source, Option<u64>) {
        let source = self.serves(address, size);
        let known = matches!(source, Source::Store(_)) && self.size() <= 8;
        let from = address.wrapping_sub(self.address);
        let part = self.value >> ((from << 3) & 63) & LOW[usize::from(size & 15)];
        (source, known.then_some(part))
    }

    /// Which of the 8 bytes of `place` it is about, one bit each.
    fn bytes(&self, place: u64) -> u64 {
        bytes(place, self.address, self.size())
    }
}

/// Which of the 8 bytes of `place` are among `size` bytes at `address`, some of which lie there, one bit each.
#[inline]
fn bytes(place: u64, address: u64, size: u8) -> u64 {
    let all = match size {
        0 => 0,
        size => u64::MAX >> ((64 - u32::from(size)) & 63),
    };
    let from = address.wrapping_sub(place << 3) as i64;
    let shifted = match from < 0 {
        true => all >> (from.unsigned_abs() & 63),
        false => all << (from & 63),
    };
    shifted & 0xff
}

/// Whether `size` bytes at `address`, which begin in `place`, end there. Nobody knows of 0 bytes.
#[inline]
pub(super) fn is_within(place: u64, address: u64, size: u8) -> bool {
    address.wrapping_add(size.wrapping_sub(1).into()) >> 3 == place
}

/// The places that `size` bytes at `address` are in.
pub(super) fn places(address: u64, size: u8) -> impl Iterator<Item = u64> {
    let count = match size {
        0 => 0,
        size => ((address & 7) + u64::from(size)).div_ceil(8),
    };
    (0..count).map(move |number| (address >> 3).wrapping_add(number) & (NOWHERE >> 3))
}

/// Sets of cells that are remembered, by their place in memory.
pub(super) const SETS: usize = 128;
/// Cells of a set. Those of loads are forgotten first, then those of the oldest stores.
const WAYS: usize = 4;
/// No place.
const NOWHERE: u64 = u64::MAX;
/// What the keys of cells behind the first of their place have and no place does.
const BEHIND: u64 = 1 << 63;

/// The set of a place.
#[inline]
pub(super) fn set_of(place: u64) -> usize {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize % SETS
}

/// Cells by the 8 bytes they are about: their place, which is an address shifted right.
///
/// The first cell of a place is that of its latest store, or of the latest load if there is no store. Behind a store lie
/// those before it of which it left some bytes, and loads of what it did not write, in other ways under a key of their
/// own: that of the place, with the bytes that nothing has overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct CellSet {
    keys: [u64; WAYS],
    cells: [Cell; WAYS],
}

/// The key of cells behind the first of `place`, without their bytes. (Of places that are 2^56 bytes apart, or twice
/// that, they are the same.)
fn behind(place: u64) -> u64 {
    BEHIND | place << 8
}

impl CellSet {
    pub(super) const EMPTY: Self = Self {
        keys: [NOWHERE; WAYS],
        cells: [Cell {
            address: 0,
            value: 0,
            store: 0,
        }; WAYS],
    };

    /// The way that has the first cell of `place`, or [`WAYS`].
    #[inline]
    pub(super) fn way(&self, place: u64) -> usize {
        let mut way = WAYS;
        for (number, &at) in self.keys.iter().enumerate() {
            way = if at == place { number } else { way };
        }
        way
    }

    /// The cell in `way`; none in [`WAYS`].
    #[inline]
    pub(super) fn cell(&self, way: usize) -> Option<&Cell> {
        self.cells.get(way)
    }

    /// Keeps what a store wrote.
    #[inline]
    pub(super) fn store(&mut self, place: u64, cell: Cell) {
        let way = self.way(place);
        let Some(first) = self.cells.get_mut(way) else {
            return self.replace(self.oldest(), place, cell);
        };
        let before = *first;
        *first = cell;
        if !before.is(cell.address, cell.size()) && before.number() > 0 {
            self.put_behind(place, before, cell);
        }
    }

    /// Keeps what is left of `before`, the first cell of `place` until now, and of those behind it: `cell` wrote other
    /// bytes than that.
    #[inline(never)]
    fn put_behind(&mut self, place: u64, before: Cell, cell: Cell) {
        let written = cell.bytes(place);
        let behind = behind(place);
        let mut free = WAYS;
        for (way, key) in self.keys.iter_mut().enumerate() {
            let had = *key ^ behind;
            if had > 0xff || had & written == 0 {
                continue;
            }
            // A load that one byte is overwritten of says nothing any more.
            *key &= !written;
            if *key == behind || self.cells[way].number() == 0 {
                *key = NOWHERE;
                self.cells[way].store = 0;
                free = way;
            }
        }
        let left = before.bytes(place) & !written;
        if left != 0 {
            let way = match free {
                WAYS => self.oldest(),
                free => free,
            };
            self.replace(way, behind | left, before);
        }
    }

    /// Keeps what a load found in `place`, whose first cell is in `way` if that is not [`WAYS`].
    #[inline]
    pub(super) fn load(&mut self, way: usize, place: u64, cell: Cell) {
        match self.cells.get_mut(way) {
            // Of loads the latest is kept: what more would tell is not worth its time.
            Some(first) if first.number() == 0 => *first = cell,
            Some(_) => self.load_behind(way, place, cell),
            None => self.replace(self.oldest(), place, cell),
        }
    }

    /// Keeps what a load found beside the latest store of `place`, which is in `way`.
    #[inline(never)]
    fn load_behind(&mut self, way: usize, place: u64, cell: Cell) {
        let to = self.oldest();
        // Nothing lies behind the oldest store.
        let key = match to == way {
            true => place,
            false => behind(place) | cell.bytes(place),
        };
        self.replace(to, key, cell);
    }

    /// What a load of `size` bytes at `address` finds in `place`, of which `first` is the first cell: where it has its
    /// bytes from, and their value if that is known.
    #[inline(never)]
    pub(super) fn find(
        &self,
        first: &Cell,
        place: u64,
        address: u64,
        size: u8,
    ) -> (Source, Option<u64>) {
        let found = first.find(address, size);
        if found.0 != Source::Cache {
            return found;
        }
        let bytes = bytes(place, address, size);
        let behind = behind(place);
        let mut latest: Option<&Cell> = None;
        for (cell, &key) in self.cells.iter().zip(&self.keys) {
            let has = key ^ behind;
            if has > 0xff || has & bytes == 0 {
                continue;
            }
            let tells = cell.number() > 0 || cell.is(address, size);
            if tells && latest.is_none_or(|latest| latest.number() <= cell.number()) {
                latest = Some(cell);
            }
        }
        match latest {
            Some(cell) if cell.is(address, size) => (cell.source(), Some(cell.value)),
            Some(cell) => cell.find(address, size),
            None => (Source::Cache, None),
        }
    }

    /// Where a load of several places has the bytes of `place` from.
    pub(super) fn source(&self, place: u64, address: u64, size: u8) -> Source {
        let Some(first) = self.cell(self.way(place)) else {
            return Source::Cache;
        };
        self.find(first, place, address, size).0
    }

    #[inline]
    fn replace(&mut self, way: usize, key: u64, cell: Cell) {
        self.keys[way % WAYS] = key;
        self.cells[way % WAYS] = cell;
    }

    /// The way whose store is the oldest, if none is empty or a load's.
    #[inline]
    fn oldest(&self) -> usize {
        let store = |way: usize| self.cells[way].store;
        let older = |a: usize, b: usize| if store(b) < store(a) { b } else { a };
        older(older(0, 1), older(2, 3))
    }
}
