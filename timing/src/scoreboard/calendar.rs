//! The cycles ahead: which execution ports are taken, and when the scheduler's entries leave it.

use crate::ports::PortSet;

/// Cycles ahead that are remembered. What is ready later finds its port free, and leaves the scheduler at the
/// end of them.
const REACH: u64 = 2048;
const MASK: u64 = REACH - 1;
/// Cycles after which the use of ports is forgotten by half.
const AGE: u64 = 64;

/// Units that take one operation for many cycles, by their bit among the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Divider {
    /// Of integers.
    Integer = 1 << PortSet::MAX,
    /// Of floating-point numbers; square roots too.
    Float = 2 << PortSet::MAX,
}

/// One cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cycle {
    /// Ports and dividers that are taken, one bit each.
    busy: u16,
    /// Entries that leave the scheduler.
    leaving: u16,
}

/// Reservations by cycle. Operations come in program order but execute when their operands are ready, so an
/// older one may leave a port free in earlier cycles, which a younger one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    cycles: Vec<Cycle>,
    /// Nothing is reserved before it.
    now: u64,
    /// Entries of the scheduler, and how many are taken.
    size: u32,
    waiting: u32,
    /// Operations of each port of late.
    used: [u32; PortSet::MAX],
    aged: u64,
    /// A run of cycles, from and up to, in which the port is taken: what finds it full looks behind it.
    full: [(u64, u64); PortSet::MAX],
}

impl Calendar {
    /// Nothing is reserved, and `size` entries of the scheduler are free.
    pub(super) fn new(size: u32) -> Self {
        Self {
            cycles: vec![Cycle::default(); REACH as usize],
            now: 0,
            size,
            waiting: 0,
            used: [0; PortSet::MAX],
            aged: 0,
            full: [(0, 0); PortSet::MAX],
        }
    }

    #[inline]
    fn at(&mut self, cycle: u64) -> &mut Cycle {
        &mut self.cycles[(cycle & MASK) as usize]
    }

    /// Time goes on to `cycle`.
    #[inline]
    pub(super) fn advance(&mut self, cycle: u64) {
        if cycle >= self.now + REACH {
            self.cycles.fill(Cycle::default());
            self.waiting = 0;
            self.now = cycle;
        }
        while self.now < cycle {
            let passed = self.now;
            self.at(passed).busy = 0;
            self.now += 1;
            let now = self.now;
            let leaving = core::mem::take(&mut self.at(now).leaving);
            self.waiting -= u32::from(leaving);
        }
        if self.now >= self.aged + AGE {
            self.aged = self.now;
            for used in &mut self.used {
                *used /= 2;
            }
        }
    }

    /// The first cycle, from now on, in which the scheduler has `count` entries free.
    #[inline]
    pub(super) fn room(&mut self, count: u32) -> u64 {
        let mut waiting = self.waiting;
        let mut cycle = self.now;
        // More than there are have to wait until all are free.
        let most = self.size.saturating_sub(count);
        while waiting > most {
            cycle += 1;
            waiting -= u32::from(self.at(cycle).leaving);
        }
        cycle
    }

    /// Reserves one cycle of any of `ports`, at `from` or as soon after as one is free; until then the operation
    /// is in the scheduler.
    #[inline]
    pub(super) fn dispatch(&mut self, ports: PortSet, from: u64) -> u64 {
        let bits = ports.bits();
        let mut cycle = from.max(self.now);
        let single = bits & bits.wrapping_sub(1) == 0;
        let first = bits.trailing_zeros() as usize;
        if single
            && let Some(&(start, end)) = self.full.get(first)
            && start <= cycle
            && cycle < end
        {
            cycle = end;
        }
        let end = self.now + REACH;
        while cycle < end {
            let free = bits & !self.at(cycle).busy;
            if free == 0 {
                cycle += 1;
                continue;
            }
            let port = if single { first } else { self.least(free) };
            self.at(cycle).busy |= 1 << port;
            if let Some(used) = self.used.get_mut(port) {
                *used += 1;
            }
            if let Some((start, end)) = self.full.get_mut(port) {
                if cycle == *end {
                    *end += 1;
                } else if cycle < *start || cycle > *end {
                    (*start, *end) = (cycle, cycle + 1);
                }
            }
            break;
        }
        self.wait(cycle);
        cycle
    }

    /// The port among `free` that was used least of late; of equals the highest.
    #[inline]
    fn least(&self, free: u16) -> usize {
        let (mut best, mut least) = (0, u32::MAX);
        let mut left = free;
        while left != 0 {
            let port = left.trailing_zeros() as usize;
            left &= left - 1;
            let used = self.used.get(port).copied().unwrap_or_default();
            if used <= least {
                (best, least) = (port, used);
            }
        }
        best
    }

    /// An operation is in the scheduler until `cycle`.
    #[inline]
    fn wait(&mut self, cycle: u64) {
        if cycle > self.now {
            let cycle = cycle.min(self.now + REACH - 1);
            self.waiting += 1;
            self.at(cycle).leaving += 1;
        }
    }

    /// Reserves a divider for `cycles` in a row, at `from` or as soon after as it is free.
    pub(super) fn divide(&mut self, unit: Divider, from: u64, cycles: u64) -> u64 {
        let unit = unit as u16;
        let mut start = from.max(self.now);
        let mut end = start;
        let last = self.now + REACH;
        while end < start + cycles {
            if end >= last {
                return start;
            }
            let busy = self.at(end).busy & unit != 0;
            end += 1;
            if busy {
                start = end;
            }
        }
        for cycle in start..end {
            self.at(cycle).busy |= unit;
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_cycle_of_any_port_is_taken() {
        let mut calendar = Calendar::new(97);
        let two = PortSet::of(&[0, 5]);
        let taken: Vec<_> = (0..5).map(|_| calendar.dispatch(two, 10)).collect();
        assert_eq!(taken, [10, 10, 11, 11, 12]);
        assert_eq!(calendar.dispatch(two, 10), 12);
        assert_eq!(calendar.dispatch(PortSet::of(&[0]), 10), 13);
    }

    #[test]
    fn a_younger_operation_goes_before_an_older_one_that_waits() {
        let mut calendar = Calendar::new(97);
        let one = PortSet::of(&[1]);
        assert_eq!(calendar.dispatch(one, 100), 100);
        assert_eq!(calendar.dispatch(one, 7), 7);
        let mut divide = |from, cycles| calendar.divide(Divider::Float, from, cycles);
        assert_eq!(divide(100, 20), 100);
        assert_eq!(divide(50, 20), 50);
        // 70 to 99 are free, but not for 40.
        assert_eq!(divide(60, 40), 120);
        assert_eq!(divide(60, 30), 70);
        assert_eq!(calendar.divide(Divider::Integer, 60, 30), 60);
    }

    #[test]
    fn a_port_that_is_full_for_long_is_taken_behind_that() {
        let mut calendar = Calendar::new(97);
        let one = PortSet::of(&[3]);
        for cycle in 0..200 {
            assert_eq!(calendar.dispatch(one, 0), cycle);
        }
        assert_eq!(calendar.dispatch(one, 300), 300);
        assert_eq!(calendar.dispatch(one, 0), 200);
        assert_eq!(calendar.dispatch(one, 299), 299);
        assert_eq!(calendar.dispatch(one, 299), 301);
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let mut calendar = Calendar::new(97);
        let one = PortSet::of(&[2]);
        calendar.dispatch(one, 5);
        calendar.advance(1 << 40);
        assert_eq!(calendar.dispatch(one, (1 << 40) + 5), (1 << 40) + 5);
        // Beyond its reach nothing is reserved.
        let far = (1 << 40) + 5000;
        assert_eq!(calendar.dispatch(one, far), far);
        assert_eq!(calendar.dispatch(one, far), far);
        assert_eq!(calendar.divide(Divider::Integer, far, 10), far);
    }

    #[test]
    fn a_full_scheduler_has_room_when_the_next_one_leaves() {
        let mut calendar = Calendar::new(2);
        calendar.wait(10);
        assert_eq!(calendar.room(1), 0);
        calendar.wait(7);
        assert_eq!(calendar.room(1), 7);
        assert_eq!(calendar.room(2), 10);
        calendar.advance(8);
        assert_eq!(calendar.room(1), 8);
        assert_eq!(calendar.room(2), 10);
        calendar.advance(1 << 30);
        assert_eq!(calendar.room(2), 1 << 30);
        calendar.wait(1 << 40);
        calendar.wait(1 << 40);
        assert_eq!(calendar.room(1), (1 << 30) + REACH - 1);
    }
}
