//! Counters chosen by the address.

/// Counters of two bits, chosen by the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bimodal {
    /// From 0 (surely not taken) to 3 (surely taken).
    counters: Vec<u8>,
}

impl Bimodal {
    /// `entries`: a power of two.
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            // Weakly not taken: a branch that was never taken has no entry anywhere else either.
            counters: vec![1; entries as usize],
        }
    }

    /// The counter of a key.
    #[inline]
    pub(crate) fn slot(&self, key: u64) -> usize {
        let bits = self.counters.len().trailing_zeros();
        (key ^ (key >> bits)) as usize & (self.counters.len() - 1)
    }

    #[inline]
    pub(crate) fn predict(&self, slot: usize) -> bool {
        self.counters[slot] >= 2
    }

    /// Whether one more outcome would turn the prediction.
    #[inline]
    pub(crate) fn is_weak(&self, slot: usize) -> bool {
        matches!(self.counters[slot], 1 | 2)
    }

    #[inline]
    pub(crate) fn update(&mut self, slot: usize, taken: bool) {
        let counter = &mut self.counters[slot];
        *counter = if taken {
            (*counter + 1).min(3)
        } else {
            counter.saturating_sub(1)
        };
    }
}
