//! An entry of an LBR stack outside the LBR.

use super::Word;
use crate::{Owned, Owner};

/// FROM, TO and INFO with their owners. INFO is 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    words: [Owned; 3],
}

impl Entry {
    /// An entry of these words.
    #[must_use]
    pub const fn new(from: Owned, to: Owned, info: Owned) -> Self {
        Self {
            words: [from, to, info],
        }
    }

    /// An entry of values and owners of FROM, TO and INFO.
    #[must_use]
    pub const fn of(values: [u64; 3], owners: [Owner; 3]) -> Self {
        Self::new(
            Owned::new(values[0], owners[0]),
            Owned::new(values[1], owners[1]),
            Owned::new(values[2], owners[2]),
        )
    }

    /// The values of FROM, TO and INFO.
    #[must_use]
    pub const fn values(&self) -> [u64; 3] {
        let [from, to, info] = &self.words;
        [from.value, to.value, info.value]
    }

    /// The owners of FROM, TO and INFO.
    #[must_use]
    pub const fn owners(&self) -> [Owner; 3] {
        let [from, to, info] = &self.words;
        [from.owner, to.owner, info.owner]
    }

    /// A word.
    #[must_use]
    pub const fn get(&self, word: Word) -> Owned {
        self.words[word as usize]
    }

    /// Sets a word.
    pub const fn set(&mut self, word: Word, value: Owned) {
        self.words[word as usize] = value;
    }

    /// FROM.
    #[must_use]
    pub const fn from(&self) -> Owned {
        self.words[0]
    }

    /// TO.
    #[must_use]
    pub const fn to(&self) -> Owned {
        self.words[1]
    }

    /// INFO.
    #[must_use]
    pub const fn info(&self) -> Owned {
        self.words[2]
    }
}
