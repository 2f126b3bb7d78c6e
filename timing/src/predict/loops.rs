//! The loop part: branches that go one way a fixed number of times, then once the other.

use super::entry::{LANES, Matches};
use super::lfsr::Lfsr;

/// Ways of a set: as many as are looked through at once.
const WAYS: usize = LANES;
/// A trip count beyond this is not followed.
const MAX_TRIPS: u16 = 1 << 12;
/// Loops seen with the same count before the part predicts.
const SURE: u8 = 3;
/// Age of an entry that predicted well.
const MAX_AGE: u8 = 7;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Occurrences of the last whole loop, the exit included; 0: none was whole yet.
    trips: u16,
    /// Occurrences of the running loop.
    now: u16,
    /// Loops in a row with `trips`.
    sure: u8,
    /// 0: may be replaced.
    age: u8,
    /// Direction of all occurrences but the last.
    body: bool,
}

/// The loop part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loops {
    /// By set; 0: unused. Empty if there is no loop part.
    tags: Vec<[u16; WAYS]>,
    entries: Vec<Entry>,
    /// Whether it was right more often than the tables where they differ, from 0 on.
    trust: i8,
}

/// Where a branch stands in the loop part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    set: u16,
    tag: u16,
}

/// What the loop part says of a branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    slot: usize,
    pub(crate) taken: bool,
    /// The count is sure.
    sure: bool,
}

impl Loops {
    /// `entries`: a power of two from 4 on; 0: it never says anything.
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            tags: vec![[0; WAYS]; entries as usize / WAYS],
            entries: vec![Entry::default(); entries as usize],
            trust: -1,
        }
    }

    /// That of a branch, the address of which is scattered.
    pub(crate) fn place(&self, scattered: u64) -> Place {
        // A power of two, or none.
        let mask = self.tags.len().wrapping_sub(1) as u16;
        Place {
            set: (scattered >> 48) as u16 & mask,
            // A tag of 0 would be that of an unused entry.
            tag: (scattered >> 32) as u16 | 1,
        }
    }

    /// What it says of a branch, if it knows it.
    #[inline(always)]
    pub(crate) fn guess(&self, place: Place) -> Option<Guess> {
        let set = usize::from(place.set);
        let way = Matches::of(self.tags.get(set)?, place.tag.into()).first()?;
        Some(self.guess_of(set * WAYS + way))
    }

    fn guess_of(&self, slot: usize) -> Guess {
        let entry = &self.entries[slot];
        let last = entry.trips != 0 && entry.now + 1 == entry.trips;
        Guess {
            slot,
            taken: entry.body != last,
            sure: entry.sure >= SURE,
        }
    }

    /// Whether to follow it.
    #[inline]
    pub(crate) fn follows(&self, guess: &Guess) -> bool {
        guess.sure && self.trust >= 0
    }

    /// Learns that a branch that it does not know, and that the tables mispredicted, went as `taken` says.
    pub(crate) fn missed(&mut self, place: Place, taken: bool, random: &mut Lfsr) {
        // A loop is seen first when its exit is mispredicted.
        if !self.tags.is_empty() && random.next() & 1 == 0 {
            self.allocate(place, taken);
        }
    }

    /// Learns that the branch of `guess` went as `taken` says, where the tables said `tables`.
    pub(crate) fn learn(&mut self, guess: &Guess, tables: bool, taken: bool) {
        let entry = &mut self.entries[guess.slot];
        if guess.sure {
            if guess.taken != taken {
                self.forget(guess.slot);
                if tables == taken {
                    self.trust = (self.trust - 1).max(-64);
                }
                return;
            }
            if tables != taken {
                self.trust = (self.trust + 1).min(63);
                entry.age = (entry.age + 1).min(MAX_AGE);
            }
        }
        entry.now += 1;
        if taken == entry.body {
            if entry.now >= MAX_TRIPS || (entry.trips != 0 && entry.now >= entry.trips) {
                // Longer than the last time, or too long to be followed.
                entry.trips = 0;
                entry.sure = 0;
                if entry.now >= MAX_TRIPS {
                    self.forget(guess.slot);
                }
            }
            return;
        }
        if entry.now == entry.trips {
            entry.sure = (entry.sure + 1).min(SURE);
        } else if entry.trips == 0 && entry.now > 2 {
            entry.trips = entry.now;
            entry.sure = 0;
        } else {
            // Two counts that differ, or a branch that turns at once.
            self.forget(guess.slot);
            return;
        }
        entry.now = 0;
    }

    fn forget(&mut self, slot: usize) {
        self.tags[slot / WAYS][slot % WAYS] = 0;
        self.entries[slot] = Entry::default();
    }

    fn allocate(&mut self, place: Place, taken: bool) {
        let (set, tag) = (usize::from(place.set), place.tag);
        let first = set * WAYS;
        let ways = &mut self.entries[first..first + WAYS];
        match ways.iter().position(|entry| entry.age == 0) {
            Some(way) => {
                self.tags[set][way] = tag;
                ways[way] = Entry {
                    age: MAX_AGE,
                    body: !taken,
                    ..Entry::default()
                };
            }
            None => {
                for entry in ways {
                    entry.age -= 1;
                }
            }
        }
    }
}
