//! Sums of durations.

use serde::Serialize;

/// Durations: how many, and how long. In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum_ns: u64,
    /// The shortest.
    pub least_ns: u64,
    /// The longest.
    pub most_ns: u64,
}

impl Durations {
    pub(super) fn add(&mut self, ns: u64) {
        self.least_ns = match self.count {
            0 => ns,
            _ => self.least_ns.min(ns),
        };
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.most_ns = self.most_ns.max(ns);
    }

    /// These and others.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            return;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.least_ns = self.least_ns.min(other.least_ns);
        self.most_ns = self.most_ns.max(other.most_ns);
    }

    /// On average, in microseconds; at least 1.
    pub(super) fn mean_us(&self) -> Option<u64> {
        (self.count != 0).then(|| rounded_us(self.sum_ns / self.count))
    }
}

/// Microseconds, at least 1.
pub(super) const fn rounded_us(ns: u64) -> u64 {
    let us = (ns + 500) / 1000;
    if us == 0 { 1 } else { us }
}

/// So many of a million.
pub(super) fn per_million(part: u64, whole: u64) -> u32 {
    if whole == 0 {
        return 0;
    }
    let share = u128::from(part.min(whole)) * 1_000_000 / u128::from(whole);
    u32::try_from(share).unwrap_or(1_000_000)
}
