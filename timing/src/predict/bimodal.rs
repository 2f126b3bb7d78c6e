//! Counters chosen by the address.

/// Counters of two bits, chosen by the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bimodal {
    /// From 0 (surely not taken) to 3 (surely taken).
    counters: Vec<u8>,
    /// Bits of an index.
    bits: u32,
}

impl Bimodal {
    /// `entries`: a power of two.
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            // Weakly not taken: a branch that was never taken has no entry anywhere else either.
            counters: vec![1; entries as usize],
            bits: entries.trailing_zeros(),
        }
    }

    /// The counter of a key.
    #[inline]
    pub(crate) fn slot(&self, key: u64) -> usize {
        (key ^ (key >> self.bits)) as usize & (self.counters.len() - 1)
    }

    #[inline]
    pub(crate) fn predict(&self, slot: usize) -> bool {
        self.counters[slot] >= 2
    }

    #[inline]
    pub(crate) fn update(&mut self, slot: usize, taken: bool) {
        self.predict_and_update(slot, taken);
    }

    /// The prediction for a branch that then went as `taken` says, and whether one more outcome would have
    /// turned it.
    #[inline]
    pub(crate) fn predict_and_update(&mut self, slot: usize, taken: bool) -> (bool, bool) {
        let counter = &mut self.counters[slot];
        let before = *counter;
        // Most are sure, and are right.
        if before == 3 * u8::from(taken) {
            return (taken, false);
        }
        *counter = if taken { before + 1 } else { before - 1 };
        (before >= 2, matches!(before, 1 | 2))
    }
}
