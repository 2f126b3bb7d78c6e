//! Entries of an LBR stack outside the LBR.

use vlbr_lbr::{MAX_DEPTH, StackWords};

use super::Word;
use crate::{Owned, Owner};

/// FROM, TO and INFO with their owners. INFO is 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    values: [u64; 3],
    owners: [Owner; 3],
}

impl Entry {
    /// An entry of these words.
    #[must_use]
    pub const fn new(from: Owned, to: Owned, info: Owned) -> Self {
        Self {
            values: [from.value, to.value, info.value],
            owners: [from.owner, to.owner, info.owner],
        }
    }

    /// An entry of values and owners of FROM, TO and INFO.
    #[must_use]
    #[inline]
    pub const fn of(values: [u64; 3], owners: [Owner; 3]) -> Self {
        Self { values, owners }
    }

    /// The values of FROM, TO and INFO.
    #[must_use]
    #[inline]
    pub const fn values(&self) -> [u64; 3] {
        self.values
    }

    /// The owners of FROM, TO and INFO.
    #[must_use]
    #[inline]
    pub const fn owners(&self) -> [Owner; 3] {
        self.owners
    }

    /// A word.
    #[must_use]
    pub const fn get(&self, word: Word) -> Owned {
        Owned::new(self.values[word as usize], self.owners[word as usize])
    }

    /// Sets a word.
    pub const fn set(&mut self, word: Word, value: Owned) {
        self.values[word as usize] = value.value;
        self.owners[word as usize] = value.owner;
    }

    /// FROM.
    #[must_use]
    pub const fn from(&self) -> Owned {
        self.get(Word::From)
    }

    /// TO.
    #[must_use]
    pub const fn to(&self) -> Owned {
        self.get(Word::To)
    }

    /// INFO.
    #[must_use]
    pub const fn info(&self) -> Owned {
        self.get(Word::Info)
    }
}

/// Every entry of a stack, by the numbers of its MSRs: cleared, of nobody, until it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack(Box<Columns>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Columns {
    words: StackWords,
    owners: [[Owner; 3]; MAX_DEPTH],
}

impl Default for Stack {
    fn default() -> Self {
        Self(Box::new(Columns {
            words: [[0; MAX_DEPTH]; 3],
            owners: [[Owner::Nobody; 3]; MAX_DEPTH],
        }))
    }
}

impl Stack {
    /// Entry n, of a slot with legacy LBR; cleared, of nobody, beyond the largest depth there is.
    #[must_use]
    pub fn entry(&self, n: u32) -> Entry {
        let n = n as usize;
        match self.0.owners.get(n) {
            Some(owners) => Entry::of(self.0.words.each_ref().map(|words| words[n]), *owners),
            None => Entry::default(),
        }
    }

    /// Sets entry n, if there can be one.
    pub fn set_entry(&mut self, n: u32, entry: Entry) {
        let n = n as usize;
        if let Some(owners) = self.0.owners.get_mut(n) {
            *owners = entry.owners();
            for (words, value) in self.0.words.iter_mut().zip(entry.values()) {
                words[n] = value;
            }
        }
    }

    /// Entries 0 to `nr` - 1.
    pub fn entries(&self, nr: u32) -> impl ExactSizeIterator<Item = Entry> {
        (0..nr).map(|n| self.entry(n))
    }

    pub(super) fn words(&self) -> &StackWords {
        &self.0.words
    }

    pub(super) fn words_mut(&mut self) -> &mut StackWords {
        &mut self.0.words
    }

    pub(super) fn owners(&self) -> &[[Owner; 3]; MAX_DEPTH] {
        &self.0.owners
    }

    pub(super) fn owners_mut(&mut self) -> &mut [[Owner; 3]; MAX_DEPTH] {
        &mut self.0.owners
    }
}
