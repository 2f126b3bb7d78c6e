//! Which execution port is busy in which cycle.

use crate::ports::PortSet;

/// Ports, and the dividers behind them.
const UNITS: usize = PortSet::MAX + 2;

/// Units that take one operation for many cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Divider {
    /// Of integers.
    Integer = PortSet::MAX as isize,
    /// Of floating-point numbers; square roots too.
    Float,
}
/// Words of 64 cycles that are remembered.
const WORDS: usize = 16;
const MASK: u64 = WORDS as u64 - 1;
/// Cycles behind the oldest one that can be reserved. What is ready later finds its port free.
const REACH: u64 = (WORDS as u64 - 1) * 64;

/// Reservations of ports by cycle. Operations come in program order but execute when their
/// operands are ready, so an older one may leave a port free in earlier cycles, which a younger one
/// takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    busy: [[u64; UNITS]; WORDS],
    /// First cycle that is remembered, a multiple of 64.
    base: u64,
    /// Operations of each port of late.
    used: [u32; PortSet::MAX],
}

impl Calendar {
    pub(super) fn new() -> Self {
        Self {
            busy: [[0; UNITS]; WORDS],
            base: 0,
            used: [0; PortSet::MAX],
        }
    }

    /// Nothing will be reserved before `cycle` any more.
    #[inline]
    pub(super) fn advance(&mut self, cycle: u64) {
        while self.base + 64 <= cycle {
            if cycle - self.base > REACH {
                self.busy = [[0; UNITS]; WORDS];
                self.base = cycle & !63;
                return;
            }
            self.busy[(self.base >> 6 & MASK) as usize] = [0; UNITS];
            self.base += 64;
            for used in &mut self.used {
                *used /= 2;
            }
        }
    }

    /// Reserves one cycle of any of `ports`, at `from` or as soon after as one is free.
    #[inline]
    pub(super) fn reserve(&mut self, ports: PortSet, from: u64) -> u64 {
        let mut cycle = from;
        while cycle < self.base + REACH {
            let word = &mut self.busy[(cycle >> 6 & MASK) as usize];
            let mut all = u64::MAX;
            let mut left = ports.bits();
            while left != 0 {
                all &= word[left.trailing_zeros() as usize];
                left &= left - 1;
            }
            let free = !all >> (cycle & 63);
            if free == 0 {
                cycle = (cycle | 63) + 1;
                continue;
            }
            cycle += u64::from(free.trailing_zeros());
            let bit = 1 << (cycle & 63);
            let (mut best, mut least) = (0, u32::MAX);
            let mut left = ports.bits();
            while left != 0 {
                let port = left.trailing_zeros() as usize;
                left &= left - 1;
                if word[port] & bit == 0 && self.used[port] <= least {
                    (best, least) = (port, self.used[port]);
                }
            }
            word[best] |= bit;
            self.used[best] += 1;
            return cycle;
        }
        cycle
    }

    /// Reserves a divider for `cycles` in a row, at `from` or as soon after as it is free.
    pub(super) fn divide(&mut self, unit: Divider, from: u64, cycles: u64) -> u64 {
        let (mut start, mut end) = (from, from);
        while end < start + cycles {
            if end >= self.base + REACH {
                return start;
            }
            let word = self.busy[(end >> 6 & MASK) as usize][unit as usize];
            if word >> (end & 63) & 1 == 0 {
                end += 1;
            } else {
                let free = !word >> (end & 63);
                end = match free {
                    0 => (end | 63) + 1,
                    _ => end + u64::from(free.trailing_zeros()),
                };
                start = end;
            }
        }
        for cycle in start..end {
            self.busy[(cycle >> 6 & MASK) as usize][unit as usize] |= 1 << (cycle & 63);
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_cycle_of_any_port_is_taken() {
        let mut calendar = Calendar::new();
        let two = PortSet::of(&[0, 5]);
        let taken: Vec<_> = (0..5).map(|_| calendar.reserve(two, 10)).collect();
        assert_eq!(taken, [10, 10, 11, 11, 12]);
        assert_eq!(calendar.reserve(PortSet::of(&[0]), 10), 12);
    }

    #[test]
    fn a_younger_operation_goes_before_an_older_one_that_waits() {
        let mut calendar = Calendar::new();
        let one = PortSet::of(&[1]);
        assert_eq!(calendar.reserve(one, 100), 100);
        assert_eq!(calendar.reserve(one, 7), 7);
        assert_eq!(calendar.divide(Divider::Float, 100, 20), 100);
        assert_eq!(calendar.divide(Divider::Float, 50, 20), 50);
        // 70 to 99 are free, but not for 40.
        assert_eq!(calendar.divide(Divider::Float, 60, 40), 120);
        assert_eq!(calendar.divide(Divider::Float, 60, 30), 70);
    }

    #[test]
    fn runs_cross_words() {
        let mut calendar = Calendar::new();
        assert_eq!(calendar.divide(Divider::Float, 60, 10), 60);
        assert_eq!(calendar.divide(Divider::Float, 60, 10), 70);
        let one = PortSet::of(&[3]);
        for cycle in 0..200 {
            assert_eq!(calendar.reserve(one, 0), cycle);
        }
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let mut calendar = Calendar::new();
        let one = PortSet::of(&[2]);
        calendar.reserve(one, 5);
        calendar.advance(1 << 40);
        assert_eq!(calendar.reserve(one, (1 << 40) + 5), (1 << 40) + 5);
        // Beyond its reach nothing is reserved.
        let far = (1 << 40) + 5000;
        assert_eq!(calendar.reserve(one, far), far);
        assert_eq!(calendar.divide(Divider::Float, far, 10), far);
    }
}
