//! From a sampling period to what a counter is loaded with.

use vlbr_arch::PerfCapabilities;

use crate::{Counter, Profile};

/// A period that a counter cannot count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{counter} counts periods from 1 to {longest}, not {period}")]
pub struct PeriodError {
    /// The counter.
    pub counter: Counter,
    /// The period.
    pub period: u64,
    /// The longest that it can.
    pub longest: u64,
}

impl Profile {
    /// What WRMSR gives `counter` so that its event number `period` overflows it: `period` below
    /// the counter's width, as a value of that width for full-width registers. General-purpose
    /// counters without full-width writes are written with 32 bits, sign-extended, and count at
    /// most 2^31.
    ///
    /// # Errors
    /// 0, or more than the counter can count.
    pub fn preset(&self, counter: Counter, period: u64) -> Result<u64, PeriodError> {
        let wide = self
            .perf_capabilities()
            .contains(PerfCapabilities::FW_WRITE);
        let (longest, width) = match counter {
            Counter::Gp(_) if !wide => (1 << 31, 32),
            Counter::Gp(_) => (u64::MAX >> (64 - self.gp_width()), self.gp_width()),
            Counter::Fixed(_) => (u64::MAX >> (64 - self.fixed_width()), self.fixed_width()),
        };
        if period == 0 || period > longest {
            return Err(PeriodError {
                counter,
                period,
                longest,
            });
        }
        Ok(period.wrapping_neg() & u64::MAX >> (64 - width))
    }
}
