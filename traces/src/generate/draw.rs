//! What is drawn at random, the same on every machine.

use crate::synthetic::Rng;

/// A number from 0 up to 1.
pub(super) fn unit(rng: &mut Rng) -> f64 {
    (rng.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number of exponential distribution.
pub(super) fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * logarithm(1.0 - unit(rng))
}

/// The natural logarithm of a positive number, made of operations that IEEE 754 defines to the last
/// bit: that of the system's library differs from one to the next, and with it the trace would.
fn logarithm(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // ln m = 2 artanh((m - 1) / (m + 1)), for m from 1 to 2: 11 terms leave an error below 1e-11.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let mut sum = 0.0;
    for term in (0..11).rev() {
        sum = sum * square + 1.0 / f64::from(2 * term + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * ratio * sum
}

/// How often something is done in a row: this many times or once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trips {
    least: u32,
    /// Probability of one more, in 2^32nds.
    more: u32,
}

impl Trips {
    /// `average` times, at least once.
    pub(super) fn new(average: f64) -> Self {
        let average = average.clamp(1.0, 1e9);
        Self {
            least: average as u32,
            more: (average.fract() * 4_294_967_295.0) as u32,
        }
    }

    pub(super) fn draw(self, rng: &mut Rng) -> u32 {
        self.least + u32::from((rng.next() >> 32) < u64::from(self.more))
    }
}

/// How likely a branch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probability(u64);

impl Probability {
    pub(super) fn new(probability: f64) -> Self {
        Self((probability.clamp(0.0, 1.0) * 4_294_967_296.0) as u64)
    }

    pub(super) fn draw(self, rng: &mut Rng) -> bool {
        (rng.next() >> 32) < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for x in [1e-300, 1e-9, 0.1, 0.5, 0.999, 1.0, 1.5, 2.0, 12345.6] {
            assert!((logarithm(x) - x.ln()).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn averages_are_those_asked_for() {
        let mut rng = Rng::new(1);
        let n = 200_000;
        let mean = (0..n).map(|_| exponential(&mut rng, 30.0)).sum::<f64>() / f64::from(n);
        assert!((mean - 30.0).abs() < 0.3, "{mean}");
        let trips = Trips::new(2.25);
        let sum: u32 = (0..n).map(|_| trips.draw(&mut rng)).sum();
        assert!((f64::from(sum) / f64::from(n as u32) - 2.25).abs() < 0.01);
        assert_eq!(Trips::new(0.0).draw(&mut rng), 1);
        let taken = (0..n)
            .filter(|_| Probability::new(0.02).draw(&mut rng))
            .count();
        assert!((3600..4400).contains(&taken), "{taken}");
        assert!((0..1000).all(|_| Probability::new(1.0).draw(&mut rng)));
        assert!(!(0..1000).any(|_| Probability::new(0.0).draw(&mut rng)));
    }
}
