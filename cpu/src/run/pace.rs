//! From sample to sample: a fixed period, or one that follows a frequency.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// How many events the sampled counter is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Always as many, at least 1.
    Period(u64),
    /// As many as give a frequency.
    Frequency(Frequency),
}

impl Pace {
    /// Events of the interval that runs.
    #[must_use]
    pub const fn period(&self) -> u64 {
        match self {
            Self::Period(period) => *period,
            Self::Frequency(frequency) => frequency.period,
        }
    }

    /// The interval ends `time` ns after the start of the thread: [`Pace::period`] is now that of the
    /// next one.
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
/// interval has shown, an eighth of the way at a time, as Linux `perf_adjust_period` does.
///
/// Linux loads the counter before it learns, compares an interval with the period of the next one,
/// and learns at its ticks as well, which repairs what that overshoots. Here an interval is compared
/// with its own period, and the next one has the new period; there are no ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    hertz: u64,
    period: u64,
    /// When the interval began.
    last: u64,
    start: u64,
}

impl Frequency {
    /// `hertz` samples a second, at least 1.
    #[must_use]
    pub const fn new(hertz: u64) -> Self {
        Self {
            hertz: if hertz == 0 { 1 } else { hertz },
            period: 1,
            last: 0,
            start: 0,
        }
    }

    /// Samples a second.
    #[must_use]
    pub const fn hertz(&self) -> u64 {
        self.hertz
    }

    fn overflow(&mut self, time: u64) {
        let passed = time.saturating_sub(self.last);
        self.last = time;
        if passed == 0 {
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
        let mut time = 0;
        let mut periods = Vec::new();
        for _ in 0..200 {
            time += (frequency.period * 1000).div_ceil(3);
            frequency.overflow(time);
            periods.push(frequency.period);
        }
        assert_eq!(periods[0], 1 + 375, "1 event in 334 ns");
        assert!(periods.is_sorted(), "it does not overshoot: {periods:?}");
        let end = periods[199];
        assert!((2990..=3010).contains(&end), "{end}");
    }

    #[test]
    fn a_rarer_event_makes_the_period_shorter() {
        let mut frequency = Frequency {
            period: 3000,
            ..Frequency::new(1000)
        };
        frequency.overflow(10_000_000);
        assert_eq!(frequency.period, 3000 - 338);
    }

    #[test]
    fn no_time_teaches_nothing() {
        let mut frequency = Frequency::new(100);
        frequency.overflow(0);
        assert_eq!(frequency.period, 1);
    }

    #[test]
    fn no_number_overflows() {
        let mut frequency = Frequency {
            period: u64::MAX,
            ..Frequency::new(1)
        };
        frequency.overflow(1);
        assert!(frequency.period >= 1);
        frequency.hertz = u64::MAX;
        frequency.overflow(2);
        assert!(frequency.period >= 1);
    }
}
