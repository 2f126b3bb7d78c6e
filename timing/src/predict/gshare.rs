//! Counters chosen by address and global history.

use super::bimodal::Bimodal;

/// Counters of two bits, chosen by the address exclusive or the directions of the last branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gshare {
    counters: Bimodal,
    mask: u64,
    history: u64,
}

impl Gshare {
    /// `entries`: a power of two; `history`: directions, fewer than 64.
    pub(crate) fn new(entries: u32, history: u32) -> Self {
        Self {
            counters: Bimodal::new(entries),
            mask: (1 << history) - 1,
            history: 0,
        }
    }

    /// The prediction for a conditional branch that then went as `taken` says.
    pub(crate) fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        let slot = self.counters.slot(address ^ self.history);
        let (predicted, _) = self.counters.predict_and_update(slot, taken);
        self.history = (self.history << 1 | u64::from(taken)) & self.mask;
        predicted
    }
}
