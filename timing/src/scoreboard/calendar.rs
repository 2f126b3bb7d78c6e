//! The cycles ahead: which execution ports are taken, and when the scheduler's entries leave it.

use crate::ports::PortSet;

/// Cycles ahead that are remembered. What is ready later finds its port free, and leaves the scheduler at the
/// end of them.
const REACH: u64 = 2048;
const MASK: u64 = REACH - 1;
/// Cycles that have passed are forgotten this many at a time, or when the scheduler looks full.
const SWEEP: u64 = 16;
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

/// Bits of ports.
const PORTS: u16 = (1 << PortSet::MAX) - 1;
/// More than any port is used.
const NEVER: u32 = u32::MAX;
/// Ports, and as many that are never taken as are looked at in one go.
const LANES: usize = 16;

/// Reservations by cycle. Operations come in program order but execute when their operands are ready, so an
/// older one may leave a port free in earlier cycles, which a younger one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    cycles: Box<[Cycle; REACH as usize]>,
    /// Nothing is reserved before it.
    now: u64,
    /// What was reserved before it is forgotten.
    swept: u64,
    /// Nothing is reserved from it on: [`REACH`] behind that.
    end: u64,
    /// Entries of the scheduler, and how many are taken; of those that left it since `swept` too.
    size: u32,
    waiting: u32,
    /// Operations of each port of late times 16, and 15 less its number: the least is the port that was used
    /// least, of equals the highest.
    used: [u32; LANES],
    /// A run of cycles, from and up to, in which the port is taken: what finds it full looks behind it.
    full: [(u64, u64); PortSet::MAX],
}

impl Calendar {
    /// Nothing is reserved, and `size` entries of the scheduler are free.
    pub(super) fn new(size: u32) -> Self {
        Self {
            cycles: Box::new([Cycle::default(); REACH as usize]),
            now: 0,
            swept: 0,
            end: REACH,
            size,
            waiting: 0,
            used: core::array::from_fn(|port| match port {
                0..PortSet::MAX => (LANES - 1 - port) as u32,
                _ => NEVER,
            }),
            full: [(0, 0); PortSet::MAX],
        }
    }

    #[inline]
    fn at(&mut self, cycle: u64) -> &mut Cycle {
        &mut self.cycles[(cycle & MASK) as usize]
    }

    /// Time goes on to `cycle`, which is not before what it had reached.
    #[inline(always)]
    pub(super) fn advance(&mut self, cycle: u64) {
        self.now = cycle;
        if cycle >= self.swept + SWEEP {
            self.sweep();
        }
    }

    /// Forgets the cycles that have passed.
    #[inline(never)]
    fn sweep(&mut self) {
        if self.now >= self.swept + REACH {
            self.forget(self.now);
        }
        while self.swept < self.now {
            let passed = self.swept;
            self.at(passed).busy = 0;
            self.swept += 1;
            let now = self.swept;
            let leaving = core::mem::take(&mut self.at(now).leaving);
            self.waiting -= u32::from(leaving);
            if now.is_multiple_of(AGE) {
                self.age();
            }
        }
        self.end = self.swept + REACH;
    }

    /// All reservations are of the past at `cycle`.
    #[cold]
    fn forget(&mut self, cycle: u64) {
        self.cycles.fill(Cycle::default());
        self.waiting = 0;
        self.age();
        self.swept = cycle;
    }

    /// Half of what the ports were used is forgotten.
    #[cold]
    #[inline(never)]
    fn age(&mut self) {
        for used in &mut self.used[..PortSet::MAX] {
            *used = *used >> 5 << 4 | *used & 15;
        }
    }

    /// The first cycle, from now on, in which the scheduler has `count` entries free.
    #[inline(always)]
    pub(super) fn room(&mut self, count: u32) -> u64 {
        match self.waiting + count > self.size {
            // More than there are have to wait until all are free.
            true => self.later_room(self.size.saturating_sub(count)),
            false => self.now,
        }
    }

    /// The first cycle in which at most `most` entries are taken.
    #[inline(never)]
    fn later_room(&mut self, most: u32) -> u64 {
        self.sweep();
        let mut waiting = self.waiting;
        let mut cycle = self.now;
        while waiting > most {
            cycle += 1;
            waiting -= u32::from(self.at(cycle).leaving);
        }
        cycle
    }

    /// Reserves one cycle of any of `ports`, one bit each, at `from`, which is still to come, or as soon after as one
    /// is free; until then the operation is in the scheduler. As a rule there are up to `MOST` of them.
    #[inline(always)]
    pub(super) fn dispatch<const MOST: u32>(&mut self, ports: u16, from: u64) -> u64 {
        let mut cycle = from;
        let mut free = ports & !self.at(cycle).busy;
        if free == 0 {
            cycle = self.search(ports, cycle);
            free = ports & !self.at(cycle).busy;
        }
        if cycle >= self.end {
            return self.beyond(cycle);
        }
        let port = self.least::<MOST>(free & PORTS);
        self.used[port] += 1 << 4;
        let at = self.at(cycle);
        at.busy |= 1 << port;
        at.leaving += 1;
        self.waiting += 1;
        cycle
    }

    /// The same, as code that does not run often.
    #[inline(never)]
    pub(super) fn dispatch_one(&mut self, ports: u16, from: u64) -> u64 {
        self.dispatch::<4>(ports, from)
    }

    /// Nothing is reserved so far ahead as `cycle`, which is the answer.
    #[cold]
    #[inline(never)]
    fn beyond(&mut self, cycle: u64) -> u64 {
        let last = self.end - 1;
        self.at(last).leaving += 1;
        self.waiting += 1;
        cycle
    }

    /// The first cycle behind `from`, in which all of `ports` are taken, that has one of them free.
    #[inline(never)]
    fn search(&mut self, ports: u16, from: u64) -> u64 {
        let end = self.end;
        let single = ports.is_power_of_two();
        let port = ports.trailing_zeros() as usize;
        let mut cycle = from;
        if single
            && let Some(&(start, behind)) = self.full.get(port)
            && start <= cycle
            && cycle < behind
        {
            cycle = behind;
        }
        while cycle < end && ports & !self.at(cycle).busy == 0 {
            cycle += 1;
        }
        if single && let Some(full) = self.full.get_mut(port) {
            // The cycle that was found is taken from now on.
            let behind = (cycle + 1).min(end);
            *full = match *full {
                (start, old) if start <= from && from <= old => (start, behind),
                _ => (from, behind),
            };
        }
        cycle
    }

    /// The port among `free` that was used least of late; of equals the highest.
    #[inline(always)]
    fn least<const MOST: u32>(&self, free: u16) -> usize {
        // All at once and without a branch: no processor foresees how many are free. Lanes behind the ports
        // stand for those that are not there.
        let mut left = u32::from(free | !PORTS);
        let mut best = NEVER;
        for _ in 0..MOST {
            best = best.min(self.used[left.trailing_zeros() as usize % LANES]);
            left &= left.wrapping_sub(1);
        }
        left &= u32::from(PORTS);
        while left != 0 {
            best = best.min(self.used[left.trailing_zeros() as usize % LANES]);
            left &= left - 1;
        }
        LANES - 1 - (best & 15) as usize
    }

    /// Reserves a divider for `cycles` in a row, at `from` or as soon after as it is free.
    pub(super) fn divide(&mut self, unit: Divider, from: u64, cycles: u64) -> u64 {
        let unit = unit as u16;
        let mut start = from.max(self.now);
        let mut end = start;
        let last = self.end;
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
        let two = PortSet::of(&[0, 5]).bits();
        let taken: Vec<_> = (0..5).map(|_| calendar.dispatch::<4>(two, 10)).collect();
        assert_eq!(taken, [10, 10, 11, 11, 12]);
        assert_eq!(calendar.dispatch::<4>(two, 10), 12);
        assert_eq!(calendar.dispatch::<4>(1, 10), 13);
    }

    #[test]
    fn a_younger_operation_goes_before_an_older_one_that_waits() {
        let mut calendar = Calendar::new(97);
        let one = 1 << 1;
        assert_eq!(calendar.dispatch::<4>(one, 100), 100);
        assert_eq!(calendar.dispatch::<4>(one, 7), 7);
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
        let one = 1 << 3;
        for cycle in 0..200 {
            assert_eq!(calendar.dispatch::<4>(one, 0), cycle);
        }
        assert_eq!(calendar.dispatch::<4>(one, 300), 300);
        assert_eq!(calendar.dispatch::<4>(one, 0), 200);
        assert_eq!(calendar.dispatch::<4>(one, 299), 299);
        assert_eq!(calendar.dispatch::<4>(one, 299), 301);
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let mut calendar = Calendar::new(97);
        let one = 1 << 2;
        calendar.dispatch::<4>(one, 5);
        calendar.advance(1 << 40);
        assert_eq!(calendar.dispatch::<4>(one, (1 << 40) + 5), (1 << 40) + 5);
        // Beyond its reach nothing is reserved.
        let far = (1 << 40) + 5000;
        assert_eq!(calendar.dispatch::<4>(one, far), far);
        assert_eq!(calendar.dispatch::<4>(one, far), far);
        assert_eq!(calendar.divide(Divider::Integer, far, 10), far);
    }

    #[test]
    fn a_full_scheduler_has_room_when_the_next_one_leaves() {
        let mut calendar = Calendar::new(2);
        let wait = |calendar: &mut Calendar, cycle| calendar.dispatch::<4>(PORTS, cycle);
        wait(&mut calendar, 10);
        assert_eq!(calendar.room(1), 0);
        wait(&mut calendar, 7);
        assert_eq!(calendar.room(1), 7);
        assert_eq!(calendar.room(2), 10);
        calendar.advance(8);
        assert_eq!(calendar.room(1), 8);
        assert_eq!(calendar.room(2), 10);
        calendar.advance(1 << 30);
        assert_eq!(calendar.room(2), 1 << 30);
        wait(&mut calendar, 1 << 40);
        wait(&mut calendar, 1 << 40);
        assert_eq!(calendar.room(1), (1 << 30) + REACH - 1);
    }
}
