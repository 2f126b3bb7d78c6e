//! From a thread's clock to the times that people and files see.

use std::fmt;
use std::num::NonZeroU32;

use vlbr_arch::Cycles;

/// How fast the clocks of a processor run: core clocks against the TSC and against time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Core clocks a microsecond.
    pub core_mhz: NonZeroU32,
    /// Clocks of the TSC, which reference cycles count, a microsecond.
    pub tsc_mhz: NonZeroU32,
}

impl Default for Rates {
    /// One core clock and one clock of the TSC a nanosecond: a processor model has parts of many
    /// frequencies.
    fn default() -> Self {
        const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
        Self {
            core_mhz: THOUSAND,
            tsc_mhz: THOUSAND,
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} core clocks and {} clocks of the TSC a microsecond",
            self.core_mhz, self.tsc_mhz
        )
    }
}

impl Rates {
    /// Nanoseconds of `cycles` core clocks, rounded down.
    #[must_use]
    pub fn nanoseconds(self, cycles: Cycles) -> u64 {
        self.scaled(cycles, 1000)
    }

    /// What the TSC has counted after `cycles` core clocks.
    #[must_use]
    pub fn reference(self, cycles: Cycles) -> u64 {
        self.scaled(cycles, self.tsc_mhz.get())
    }

    #[inline]
    fn scaled(self, cycles: Cycles, by: u32) -> u64 {
        let core = self.core_mhz.get();
        if by == core {
            return cycles.value();
        }
        let product = u128::from(cycles.value()) * u128::from(by);
        u64::try_from(product / u128::from(core)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_scale_points_in_time() {
        let rates = Rates {
            core_mhz: NonZeroU32::new(3000).unwrap(),
            tsc_mhz: NonZeroU32::new(2000).unwrap(),
        };
        assert_eq!(rates.nanoseconds(Cycles::new(10)), 3);
        assert_eq!(rates.reference(Cycles::new(10)), 6);
        assert_eq!(rates.reference(Cycles::new(u64::MAX)), u64::MAX / 3 * 2);
        assert_eq!(Rates::default().reference(Cycles::new(7)), 7);
    }
}
