//! From sample to sample: a fixed period, or one that follows a frequency.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Longest time between two samples from which Linux learns at an overflow: two ticks at 250 Hz,
/// the tick of the usual configurations.
const LEARNED: u64 = 2 * SECOND / 250;

/// How many events the sampled counter is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Always as many, at least 1.
    Period(u64),
    /// As many as give a frequency.
    Frequency(Frequency),
}

impl Pace {
    /// Events the counter is loaded with at the next overflow.
    #[must_use]
    pub const fn period(&self) -> u64 {
        match self {
            Self::Period(period) => *period,
            Self::Frequency(frequency) => frequency.period,
        }
    }

    /// A sample was taken `time` ns after the start of the thread, and the counter has been
    /// loaded again.
    pub fn sampled(&mut self, time: u64) {
        if let Self::Frequency(frequency) = self {
            frequency.overflow(time);
        }
    }

    /// Time of the thread when a run begins.
    pub(crate) const fn start(&self) -> u64 {
        match self {
            Self::Period(_) => 0,
            Self::Frequency(frequency) => frequency.start,
        }
    }

    /// The next run begins when the thread has run for `time` ns.
    pub fn set_start(&mut self, time: u64) {
        if let Self::Frequency(frequency) = self {
            frequency.start = time;
        }
    }
}

/// The period of an event with `perf_event_attr.freq`. It starts at 1 and follows what each
/// interval has shown, an eighth of the way at a time.
///
/// Linux `perf_adjust_period`, `__perf_event_account_interrupt`; the new period is loaded one
/// overflow later, because the counter is loaded before the handler looks at the time. Left out:
/// the tick's look at events that overflow less often than twice a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    hertz: u64,
    period: u64,
    /// When the last sample was taken.
    last: Option<u64>,
    start: u64,
}

impl Frequency {
    /// `hertz` samples a second, at least 1.
    #[must_use]
    pub const fn new(hertz: u64) -> Self {
        Self {
            hertz: if hertz == 0 { 1 } else { hertz },
            period: 1,
            last: None,
            start: 0,
        }
    }

    /// Samples a second.
    #[must_use]
    pub const fn hertz(&self) -> u64 {
        self.hertz
    }

    fn overflow(&mut self, time: u64) {
        let Some(last) = self.last.replace(time) else {
            return;
        };
        let passed = time.saturating_sub(last);
        if passed == 0 || passed >= LEARNED {
            return;
        }
        let wanted = u128::from(self.period) * u128::from(SECOND)
            / (u128::from(passed) * u128::from(self.hertz));
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let now = i64::try_from(self.period).unwrap_or(i64::MAX);
        let step = wanted.saturating_sub(now);
        let rounded = step.saturating_add(if step >= 0 { 7 } else { -7 }) / 8;
        self.period = now.saturating_add(rounded).max(1).unsigned_abs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_event_reaches_the_frequency() {
        // 3 events a microsecond, 1000 samples a second: 3000 events.
        let mut frequency = Frequency::new(1000);
        let mut time = 1;
        let mut periods = Vec::new();
        for _ in 0..200 {
            frequency.overflow(time);
            periods.push(frequency.period);
            time += (frequency.period * 1000).div_ceil(3);
        }
        assert_eq!(periods[0], 1, "the first has no interval behind it");
        assert_eq!(periods[1], 1 + (2994 - 1 + 7) / 8, "1 event in 334 ns");
        let end = periods[199];
        assert!((2990..=3010).contains(&end), "{end}");
    }

    #[test]
    fn long_intervals_and_none_teach_nothing() {
        let mut frequency = Frequency::new(100);
        frequency.overflow(LEARNED);
        assert_eq!(frequency.period, 1);
        frequency.overflow(LEARNED);
        assert_eq!(frequency.period, 1);
        frequency.overflow(LEARNED + 10);
        assert!(frequency.period > 1);
    }

    #[test]
    fn no_number_overflows() {
        let mut frequency = Frequency {
            hertz: 1,
            period: u64::MAX,
            last: Some(0),
            start: 0,
        };
        frequency.overflow(1);
        assert!(frequency.period >= 1);
        frequency.hertz = u64::MAX;
        frequency.overflow(2);
        assert!(frequency.period >= 1);
    }
}
