//! The cycles ahead: which execution ports are taken, and when the scheduler's entries leave it.

use core::hint::select_unpredictable;

use crate::ports::PortSet;

/// Cycles ahead that are remembered. What is ready later finds its port free, and leaves the scheduler at the
/// end of them.
const REACH: u64 = 2048;
const MASK: u64 = REACH - 1;
/// Cycles that have passed are forgotten this many at a time, or when the scheduler looks full.
const SWEEP: u64 = 16;

/// Units that take one operation for many cycles, by their bit among the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Divider {
    /// Of integers.
    Integer = 1 << PortSet::MAX,
    /// Of floating-point numbers; square roots too.
    Float = 2 << PortSet::MAX,
}

/// One cycle: ports and dividers that are taken, one bit each, and in the upper half how many entries leave the
/// scheduler.
type Cycle = u32;

/// Cycles in which a free port is looked for two by two.
const NEAR: usize = 8;

/// All ports.
const EVERY: u16 = u16::MAX;

/// An entry that leaves the scheduler.
const LEAVES: Cycle = 1 << 16;

/// Reservations by cycle. Operations come in program order but execute when their operands are ready, so an
/// older one may leave a port free in earlier cycles, which a younger one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Calendar {
    cycles: Box<[Cycle; REACH as usize]>,
    /// Nothing is reserved from it on: [`REACH`] behind what is swept.
    end: u64,
    /// What was reserved before it is forgotten, and nothing is any more.
    swept: u64,
    /// Entries of the scheduler, and how many are taken; of those that left it since `swept` too.
    size: u32,
    waiting: u32,
    /// Ports that were not taken in this turn, and not in the turn before. One ends where an operation finds none.
    rested: u16,
    rested_before: u16,
    /// A run of cycles, from and up to, in which the port is taken: what finds it full for long looks behind it.
    full: [(u64, u64); PortSet::MAX],
}

impl Calendar {
    /// Nothing is reserved, and `size` entries of the scheduler are free.
    pub(super) fn new(size: u32) -> Self {
        Self {
            cycles: Box::new([0; REACH as usize]),
            swept: 0,
            end: REACH,
            size,
            waiting: 0,
            rested: EVERY,
            rested_before: EVERY,
            full: [(0, 0); PortSet::MAX],
        }
    }

    #[inline]
    fn at(&mut self, cycle: u64) -> &mut Cycle {
        &mut self.cycles[(cycle & MASK) as usize]
    }

    /// Time goes on to `cycle`, which is not before what it had reached. It need not be said for each instruction: what
    /// asks for the time says it.
    #[inline(always)]
    pub(super) fn advance(&mut self, cycle: u64) {
        if cycle >= self.swept + SWEEP {
            self.sweep(cycle);
        }
    }

    /// Forgets the cycles that have passed.
    #[inline(never)]
    fn sweep(&mut self, now: u64) {
        if now >= self.swept + REACH {
            self.forget(now);
        }
        let (from, to) = (self.swept, now);
        if from < to {
            let (first, last) = ((from & MASK) as usize, (to & MASK) as usize);
            // What leaves in a cycle that was swept up to has left.
            let passed = match first < last {
                true => pass(&mut self.cycles[first..last]),
                false => pass(&mut self.cycles[first..]) + pass(&mut self.cycles[..last]),
            };
            let leaving = self.cycles[last] / LEAVES;
            self.cycles[last] %= LEAVES;
            self.waiting -= passed + leaving;
            self.swept = to;
        }
        self.end = self.swept + REACH;
    }

    /// All reservations are of the past at `cycle`.
    #[cold]
    fn forget(&mut self, cycle: u64) {
        self.cycles.fill(0);
        self.waiting = 0;
        self.swept = cycle;
    }

    /// Whether the scheduler has `count` entries free now.
    #[inline(always)]
    pub(super) fn has_room(&self, count: u32) -> bool {
        self.waiting.saturating_add(count) <= self.size
    }

    /// The first cycle, from `now` on, in which the scheduler has `count` entries free.
    #[inline(always)]
    pub(super) fn room(&mut self, count: u32, now: u64) -> u64 {
        match self.waiting + count > self.size {
            // More than there are have to wait until all are free.
            true => self.later_room(self.size.saturating_sub(count), now),
            false => now,
        }
    }

    /// The first cycle from `now` on in which at most `most` entries are taken.
    #[inline(never)]
    fn later_room(&mut self, most: u32, now: u64) -> u64 {
        self.sweep(now);
        let mut waiting = self.waiting;
        let mut cycle = now;
        while waiting > most {
            cycle += 1;
            waiting -= *self.at(cycle) / LEAVES;
        }
        cycle
    }

    /// Reserves one cycle of any of `ports`, one bit each, at `from`, which is still to come, or as soon after as one
    /// is free; until then the operation is in the scheduler.
    #[inline(always)]
    pub(super) fn dispatch(&mut self, ports: u16, from: u64) -> u64 {
        let mut cycle = from;
        let mut word = *self.at(cycle);
        let mut free = ports & !(word as u16);
        if free == 0 {
            cycle = self.search(ports, cycle);
            word = *self.at(cycle);
            free = ports & !(word as u16);
        }
        if cycle >= self.end {
            return self.beyond(cycle);
        }
        let port = self.choose(free);
        *self.at(cycle) = word + (LEAVES + Cycle::from(port));
        self.waiting += 1;
        cycle
    }

    /// The same, as code that does not run often.
    #[inline(never)]
    pub(super) fn dispatch_one(&mut self, ports: u16, from: u64) -> u64 {
        self.dispatch(ports, from)
    }

    /// Nothing is reserved so far ahead as `cycle`, which is the answer.
    #[cold]
    #[inline(never)]
    fn beyond(&mut self, cycle: u64) -> u64 {
        let last = self.end - 1;
        *self.at(last) += LEAVES;
        self.waiting += 1;
        cycle
    }

    /// The first cycle behind `from`, in which all of `ports` are taken, that has one of them free.
    #[inline(never)]
    fn search(&mut self, ports: u16, from: u64) -> u64 {
        let mut cycle = from + 1;
        let at = (cycle & MASK) as usize;
        if from + NEAR as u64 >= self.end {
            return self.search_far(ports, from, cycle);
        }
        let Some(near) = self.cycles[at..].first_chunk::<NEAR>() else {
            return self.search_far(ports, from, cycle);
        };
        // Most often one of the next has room. Two are looked at as one number.
        let both = u64::from(ports) * (1 << 32 | 1);
        for [first, second] in near.as_chunks().0 {
            let free = both & !(u64::from(*first) | u64::from(*second) << 32);
            if free != 0 {
                return cycle + u64::from(free.trailing_zeros() / 32);
            }
            cycle += 2;
        }
        self.search_far(ports, from, cycle)
    }

    /// The same, if that is not before `cycle`; of a port alone it is remembered.
    #[inline(never)]
    fn search_far(&mut self, ports: u16, from: u64, cycle: u64) -> u64 {
        let end = self.end;
        if from >= end {
            return from;
        }
        let single = ports.is_power_of_two();
        let mut full = (from, cycle);
        let port = ports.trailing_zeros() as usize;
        let known = match single {
            true => self.full.get(port),
            false => None,
        };
        if let Some(&(start, behind)) = known
            && start <= cycle
            && from <= behind
        {
            full = (start.min(from), behind.max(cycle));
        }
        let busy = |cycle: u64| self.cycles[(cycle & MASK) as usize] as u16;
        while full.1 < end && ports & !busy(full.1) == 0 {
            full.1 += 1;
        }
        let cycle = full.1;
        if single && let Some(known) = self.full.get_mut(port) {
            // The cycle that was found is taken from now on.
            full.1 = (cycle + 1).min(end);
            *known = full;
        }
        cycle
    }

    /// One of the ports that are `free`, as its bit: of those that were not taken in this turn or the one before the
    /// lowest, or of those not taken in this one, or of all, which begins another turn. So ports that others need
    /// are left to them, as by the least used, for less. No processor foresees which it is, so there is no branch.
    #[inline(always)]
    fn choose(&mut self, free: u16) -> u16 {
        let rested = free & self.rested;
        let longer = rested & self.rested_before;
        let over = rested == 0;
        let among = select_unpredictable(over, free, rested);
        let among = select_unpredictable(longer == 0, among, longer);
        let port = among & among.wrapping_neg();
        self.rested_before = select_unpredictable(over, self.rested, self.rested_before);
        // It is among them.
        self.rested = select_unpredictable(over, EVERY, self.rested) ^ port;
        port
    }

    /// Reserves a divider for `cycles` in a row, at `from` or as soon after as it is free.
    pub(super) fn divide(&mut self, unit: Divider, from: u64, cycles: u64) -> u64 {
        let unit = unit as Cycle;
        let mut start = from.max(self.swept);
        let mut end = start;
        let last = self.end;
        while end < start + cycles {
            if end >= last {
                return start;
            }
            let busy = *self.at(end) & unit != 0;
            end += 1;
            if busy {
                start = end;
            }
        }
        for cycle in start..end {
            *self.at(cycle) |= unit;
        }
        start
    }
}

/// Forgets `cycles`, which have passed; how many entries left the scheduler in them.
#[inline(always)]
fn pass(cycles: &mut [Cycle]) -> u32 {
    let mut left = 0;
    for cycle in cycles {
        left += *cycle / LEAVES;
        *cycle = 0;
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_free_cycle_of_any_port_is_taken() {
        let mut calendar = Calendar::new(97);
        let two = PortSet::of(&[0, 5]).bits();
        let taken: Vec<_> = (0..5).map(|_| calendar.dispatch(two, 10)).collect();
        assert_eq!(taken, [10, 10, 11, 11, 12]);
        assert_eq!(calendar.dispatch(two, 10), 12);
        assert_eq!(calendar.dispatch(1, 10), 13);
    }

    proptest! {
        #[test]
        fn ports_are_taken_in_turn(
            sets in prop::collection::vec(1..1_u16 << PortSet::MAX, 1..50),
        ) {
            let mut calendar = Calendar::new(97);
            // When each port was taken last, by turns.
            let mut taken = [None; PortSet::MAX];
            let mut turn = 2;
            for free in sets {
                let ports = || (0..PortSet::MAX).filter(|port| free >> port & 1 != 0);
                let rest = |port: usize| taken[port].map_or(2, |at: u32| (turn - at).min(2));
                let longest = ports().map(rest).max().unwrap_or_default();
                let expected = ports().find(|&port| rest(port) == longest);
                let port = calendar.choose(free);
                prop_assert_eq!(expected.map(|port| 1 << port), Some(port));
                turn += u32::from(longest == 0);
                if let Some(port) = expected {
                    taken[port] = Some(turn);
                }
            }
        }
    }

    #[test]
    fn a_younger_operation_goes_before_an_older_one_that_waits() {
        let mut calendar = Calendar::new(97);
        let one = 1 << 1;
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
        let one = 1 << 3;
        for cycle in 0..200 {
            assert_eq!(calendar.dispatch(one, 0), cycle);
        }
        assert_eq!(calendar.dispatch(one, 300), 300);
        assert_eq!(calendar.dispatch(one, 0), 200);
        assert_eq!(calendar.dispatch(one, 299), 299);
        assert_eq!(calendar.dispatch(one, 299), 301);
    }

    proptest! {
        /// Whatever is remembered of full ports, an operation begins in the first cycle that has one of its ports free.
        #[test]
        fn an_operation_begins_in_the_first_cycle_with_room(
            operations in prop::collection::vec(
                (prop_oneof![3 => (0..4_u32).prop_map(|port| 1 << port), 1 => 1..16_u16], 0..60_u64, 0..30_u32),
                1..400,
            ),
        ) {
            let mut calendar = Calendar::new(97);
            let mut now = 0;
            for (ports, ahead, pause) in operations {
                // Time stands still for most, and sometimes goes on by more than a sweep.
                now += if pause == 0 { SWEEP } else { u64::from(pause == 1) * 9 };
                calendar.advance(now);
                let from = now + ahead;
                let has_room = |cycle: &u64| ports & !(calendar.cycles[(cycle & MASK) as usize] as u16) != 0;
                let first = (from..calendar.end).find(has_room);
                prop_assert_eq!(Some(calendar.dispatch(ports, from)), first);
            }
        }
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let mut calendar = Calendar::new(97);
        let one = 1 << 2;
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
        let wait = |calendar: &mut Calendar, cycle| calendar.dispatch(0xfff, cycle);
        wait(&mut calendar, 10);
        assert_eq!(calendar.room(1, 0), 0);
        wait(&mut calendar, 7);
        assert_eq!(calendar.room(1, 0), 7);
        assert_eq!(calendar.room(2, 0), 10);
        assert_eq!(calendar.room(1, 8), 8);
        assert_eq!(calendar.room(2, 8), 10);
        assert_eq!(calendar.room(2, 1 << 30), 1 << 30);
        wait(&mut calendar, 1 << 40);
        wait(&mut calendar, 1 << 40);
        assert_eq!(calendar.room(1, 1 << 30), (1 << 30) + REACH - 1);
    }
}
