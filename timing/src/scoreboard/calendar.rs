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

/// One cycle: ports and dividers that are taken, one bit each, and in the upper half how many entries leave the
/// scheduler.
type Cycle = u32;

/// An entry that leaves the scheduler.
const LEAVES: Cycle = 1 << 16;

/// Ports, and some that there are not, which no operation takes.
const LANES: usize = 16;
/// As many as a byte can name, so that none has to be checked.
const NAMES: usize = 256;
const _: () = assert!(PortSet::MAX < LANES);
/// A port that there is not.
const NO_PORT: u8 = LANES as u8 - 1;
/// What a port has been used for one more operation; below it stands [`NO_PORT`] less its number.
const ONCE: u32 = 1 << 4;
/// Ports that are told apart in one go.
const FEW: usize = 4;

/// The ports of a set of few ports, the rest of them [`NO_PORT`]; of other sets that alone.
const PORTS: [[u8; FEW]; 1 << PortSet::MAX] = {
    let mut all = [[NO_PORT; FEW]; 1 << PortSet::MAX];
    let mut set = 0;
    while set < all.len() {
        let (mut port, mut count) = (0, 0);
        while port < PortSet::MAX && (set as u32).count_ones() as usize <= FEW {
            if set >> port & 1 != 0 {
                all[set][count] = port as u8;
                count += 1;
            }
            port += 1;
        }
        set += 1;
    }
    all
};

/// Reservations by cycle. Operations come in program order but execute when their operands are ready, so an
/// older one may leave a port free in earlier cycles, which a younger one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Calendar {
    cycles: Box<[Cycle; REACH as usize]>,
    /// Nothing is reserved from it on: [`REACH`] behind what is swept.
    end: u64,
    /// Nothing is reserved before it.
    now: u64,
    /// What was reserved before it is forgotten.
    swept: u64,
    /// Entries of the scheduler, and how many are taken; of those that left it since `swept` too.
    size: u32,
    waiting: u32,
    /// Operations of each port of late times 16, and 15 less its number: the least is the port that was used
    /// least, of equals the highest.
    used: [u32; NAMES],
    /// A run of cycles, from and up to, in which the port is taken: what finds it full looks behind it.
    full: [(u64, u64); PortSet::MAX],
}

impl Calendar {
    /// Nothing is reserved, and `size` entries of the scheduler are free.
    pub(super) fn new(size: u32) -> Self {
        Self {
            cycles: Box::new([0; REACH as usize]),
            now: 0,
            swept: 0,
            end: REACH,
            size,
            waiting: 0,
            used: core::array::from_fn(|port| match port {
                0..PortSet::MAX => (LANES - 1 - port) as u32,
                _ => u32::MAX,
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
        let (from, to) = (self.swept, self.now);
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
            for _ in from / AGE..to / AGE {
                self.age();
            }
        }
        self.end = self.swept + REACH;
    }

    /// All reservations are of the past at `cycle`.
    #[cold]
    fn forget(&mut self, cycle: u64) {
        self.cycles.fill(0);
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

    /// Whether the scheduler has `count` entries free now.
    #[inline(always)]
    pub(super) fn has_room(&self, count: u32) -> bool {
        self.waiting.saturating_add(count) <= self.size
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
            waiting -= *self.at(cycle) / LEAVES;
        }
        cycle
    }

    /// Reserves one cycle of any of `ports`, one bit each, at `from`, which is still to come, or as soon after as one
    /// is free; until then the operation is in the scheduler. As a rule there are up to `MOST` of them: 1, 2 or 4.
    #[inline(always)]
    pub(super) fn dispatch<const MOST: usize>(&mut self, ports: u16, from: u64) -> u64 {
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
        let port = self.least::<MOST>(free);
        *self.at(cycle) = word + (LEAVES + (1 << port));
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
        *self.at(last) += LEAVES;
        self.waiting += 1;
        cycle
    }

    /// The first cycle behind `from`, in which all of `ports` are taken, that has one of them free.
    #[inline(never)]
    fn search(&mut self, ports: u16, from: u64) -> u64 {
        let end = self.end;
        let taken = |cycles: &[Cycle; REACH as usize], cycle: u64| {
            let busy = cycles[(cycle & MASK) as usize] as u16;
            ports & !busy == 0
        };
        // Most often the next one has room.
        let next = from + 1;
        if next < end && !taken(&self.cycles, next) {
            return next;
        }
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
        while cycle < end && taken(&self.cycles, cycle) {
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

    /// The port among `free` that was used least of late, of equals the highest; it is used once more.
    #[inline(always)]
    fn least<const MOST: usize>(&mut self, free: u16) -> u32 {
        // Which of them are free is looked up apart from how much they were used, which the operation before has
        // changed; no processor foresees either, so there is no branch.
        let [a, b, c, d] = PORTS[usize::from(free) % PORTS.len()];
        let of = |port: u8| self.used[usize::from(port)];
        let best = match MOST {
            _ if a == NO_PORT => self.least_of_many(free),
            1 if b == NO_PORT => of(a),
            2 if c == NO_PORT => of(a).min(of(b)),
            _ => of(a).min(of(b)).min(of(c).min(of(d))),
        };
        let port = NO_PORT - (best & 15) as u8;
        self.used[usize::from(port)] = best + ONCE;
        port.into()
    }

    /// The same of more than [`FEW`].
    #[inline(never)]
    fn least_of_many(&self, free: u16) -> u32 {
        let mut left = free;
        let mut best = u32::MAX;
        while left != 0 {
            best = best.min(self.used[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
        best
    }

    /// Reserves a divider for `cycles` in a row, at `from` or as soon after as it is free.
    pub(super) fn divide(&mut self, unit: Divider, from: u64, cycles: u64) -> u64 {
        let unit = unit as Cycle;
        let mut start = from.max(self.now);
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
        let taken: Vec<_> = (0..5).map(|_| calendar.dispatch::<4>(two, 10)).collect();
        assert_eq!(taken, [10, 10, 11, 11, 12]);
        assert_eq!(calendar.dispatch::<4>(two, 10), 12);
        assert_eq!(calendar.dispatch::<4>(1, 10), 13);
    }

    proptest! {
        #[test]
        fn the_port_that_was_used_least_is_taken(
            used in prop::array::uniform12(0..2000_u32),
            free in 1..1_u16 << PortSet::MAX,
            most in prop::sample::select(vec![1, 2, 4]),
        ) {
            let mut calendar = Calendar::new(97);
            for (port, used) in used.into_iter().enumerate() {
                calendar.used[port] += used * ONCE;
            }
            let ports = (0..PortSet::MAX).filter(|port| free >> port & 1 != 0);
            // Of equals the highest.
            let expected = ports.min_by_key(|&port| (used[port], PortSet::MAX - port));
            let before = calendar.used;
            let port = match most {
                1 => calendar.least::<1>(free),
                2 => calendar.least::<2>(free),
                _ => calendar.least::<4>(free),
            } as usize;
            prop_assert_eq!(Some(port), expected);
            prop_assert_eq!(calendar.used[port], before[port] + ONCE);
        }
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
        let wait = |calendar: &mut Calendar, cycle| calendar.dispatch::<4>(0xfff, cycle);
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
