//! From ticks to core clocks, and several rows as one figure.

use crate::run::{Row, Ticks};

/// Thousandths of a core clock: low, usual, high.
///
/// Without APERF and MPERF they are thousandths of a tick of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) low: u128,
    pub(crate) mid: u128,
    pub(crate) high: u128,
}

impl Range {
    /// Quartiles of one operation of the row, less the empty timing.
    pub(crate) fn of(ticks: &Ticks) -> Self {
        let scale = |reading: u32| {
            let net = u128::from(reading.saturating_sub(ticks.overhead)) * 1000;
            let (aperf, mperf) = match ticks.clock {
                Some(clock) => (clock.aperf.into(), clock.mperf.into()),
                None => (1, 1),
            };
            divide(net * aperf, mperf * u128::from(ticks.batch))
        };
        Self {
            low: scale(ticks.q1),
            mid: scale(ticks.median),
            high: scale(ticks.q3),
        }
    }

    /// Median of the medians, lowest and highest quartile. `None` of nothing.
    pub(crate) fn pool(ranges: &[Self]) -> Option<Self> {
        let mut medians: Vec<_> = ranges.iter().map(|range| range.mid).collect();
        medians.sort_unstable();
        let half = medians.len() / 2;
        let mid = match medians.len() % 2 {
            1 => *medians.get(half)?,
            _ => (medians.get(half.checked_sub(1)?)? + medians.get(half)?) / 2,
        };
        Some(Self {
            low: ranges.iter().map(|range| range.low).min()?,
            mid,
            high: ranges.iter().map(|range| range.high).max()?,
        })
    }

    /// Whole cycles, rounded. `None` beyond 32 bits.
    pub(crate) fn cycles(self) -> Option<(u32, u32, u32)> {
        let whole = |thousandths: u128| u32::try_from(divide(thousandths, 1000)).ok();
        Some((whole(self.low)?, whole(self.mid)?, whole(self.high)?))
    }
}

/// Rounded quotient.
fn divide(number: u128, by: u128) -> u128 {
    (number + by / 2) / by
}

/// The readings of one row, of every run that has it, as one.
pub(crate) fn of_rows(rows: &[&Row]) -> Option<Range> {
    let ranges: Vec<_> = rows.iter().map(|row| Range::of(&row.ticks)).collect();
    Range::pool(&ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Clock;

    fn ticks() -> Ticks {
        Ticks {
            batch: 8,
            count: 1000,
            overhead: 40,
            min: 500,
            q1: 520,
            median: 600,
            q3: 840,
            clock: None,
        }
    }

    #[test]
    fn the_empty_timing_is_subtracted_and_the_batch_divides() {
        let range = Range::of(&ticks());
        assert_eq!(range.cycles(), Some((60, 70, 100)));
    }

    #[test]
    fn core_clocks_are_ticks_times_aperf_over_mperf() {
        let clock = Some(Clock {
            aperf: 3_000_000,
            mperf: 2_000_000,
        });
        let range = Range::of(&Ticks { clock, ..ticks() });
        assert_eq!(range.cycles(), Some((90, 105, 150)));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let clock = Some(Clock {
            aperf: u64::MAX,
            mperf: u64::MAX / 16 + 1,
        });
        let range = Range::of(&Ticks {
            batch: 1,
            overhead: 0,
            q3: u32::MAX,
            clock,
            ..ticks()
        });
        assert_eq!(range.cycles(), None);
    }

    #[test]
    fn rows_pool_to_the_median_of_medians_and_the_outermost_quartiles() {
        let range = |low, mid, high| Range { low, mid, high };
        let rows = [range(3, 5, 9), range(1, 4, 6), range(4, 9, 20)];
        assert_eq!(Range::pool(&rows), Some(range(1, 5, 20)));
        assert_eq!(Range::pool(&rows[..2]), Some(range(1, 4, 9)));
        assert_eq!(Range::pool(&[]), None);
    }
}
