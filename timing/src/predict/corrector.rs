//! The statistical corrector: turns predictions that are often wrong though their counters agree.

use super::lfsr::GOLDEN;

/// Histories of its tables, in bits; 0: only address and prediction.
const LENGTHS: [u32; 5] = [0, 4, 10, 17, 27];
/// How many there are.
pub(crate) const CORRECTOR_TABLES: u64 = LENGTHS.len() as u64;
/// Bounds of a counter.
const COUNTER: (i8, i8) = (-32, 31);
/// What the prediction of the tables weighs, weak and strong.
const WEIGHT: (i32, i32) = (6, 18);
/// Bounds of the threshold.
const THRESHOLD: (i32, i32) = (6, 128);

/// Counters that are added up with the prediction of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Corrector {
    /// The tables behind each other.
    counters: Vec<i8>,
    entries: usize,
    threshold: i32,
    /// Which way the threshold tends.
    drift: i8,
    /// Directions of the last branches, the youngest lowest.
    recent: u64,
}

impl Corrector {
    /// `entries` of each table: a power of two.
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            counters: vec![0; entries as usize * LENGTHS.len()],
            entries: entries as usize,
            threshold: 24,
            drift: 0,
            recent: 0,
        }
    }

    /// The corrected prediction for a branch of which the tables said `tables`.
    pub(crate) fn predict_and_update(
        &mut self,
        address: u64,
        tables: bool,
        weak: bool,
        taken: bool,
    ) -> bool {
        let weight = if weak { WEIGHT.0 } else { WEIGHT.1 };
        let mut sum = if tables { weight } else { -weight };
        let mut slots = [0; LENGTHS.len()];
        for (table, (slot, length)) in slots.iter_mut().zip(LENGTHS).enumerate() {
            let past = self.recent & ((1 << length) - 1);
            let key = (address << 1 | u64::from(tables)).wrapping_mul(GOLDEN)
                ^ past.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
            *slot = table * self.entries + ((key ^ (key >> 29)) >> 16) as usize % self.entries;
            sum += 2 * i32::from(self.counters[*slot]) + 1;
        }
        let corrected = sum >= 0;
        let sure = sum.abs() >= self.threshold;
        let predicted = if sure { corrected } else { tables };
        if corrected != taken || !sure {
            for slot in slots {
                let counter = &mut self.counters[slot];
                *counter = if taken {
                    (*counter + 1).min(COUNTER.1)
                } else {
                    (*counter - 1).max(COUNTER.0)
                };
            }
        }
        if corrected != tables {
            // Too bold or too shy.
            self.drift += if corrected == taken { -1 } else { 1 };
            if self.drift.abs() == 32 {
                self.threshold = (self.threshold + i32::from(self.drift.signum()))
                    .clamp(THRESHOLD.0, THRESHOLD.1);
                self.drift = 0;
            }
        }
        self.recent = self.recent << 1 | u64::from(taken);
        predicted
    }
}
