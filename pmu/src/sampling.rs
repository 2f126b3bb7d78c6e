//! Sampling: a counter that overflows every so many events.

use std::num::NonZeroU64;

/// A counter loaded with the negated period, reloaded at each overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sampler {
    period: NonZeroU64,
    /// Events until the next overflow, 1 to `period`.
    remaining: u64,
}

impl Sampler {
    /// A counter that overflows at the `period`-th event and every `period` events after.
    #[must_use]
    pub const fn new(period: NonZeroU64) -> Self {
        Self {
            period,
            remaining: period.get(),
        }
    }

    /// The period, in events.
    #[must_use]
    pub const fn period(&self) -> u64 {
        self.period.get()
    }

    /// Events until the next overflow: the horizon a producer may retire without asking.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Counts `events` and tells how many overflows they made.
    pub fn advance(&mut self, events: u64) -> u64 {
        if events < self.remaining {
            self.remaining -= events;
            return 0;
        }
        let past = events - self.remaining;
        self.remaining = self.period.get() - past % self.period.get();
        1 + past / self.period.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn overflows_are_whole_periods(period in 1u64..50, parts in prop::collection::vec(0u64..120, 0..40)) {
            let mut sampler = Sampler::new(NonZeroU64::new(period).unwrap());
            let (mut total, mut overflows) = (0, 0);
            for part in parts {
                total += part;
                overflows += sampler.advance(part);
                prop_assert_eq!(overflows, total / period);
                prop_assert_eq!(sampler.remaining(), period - total % period);
            }
        }
    }
}
