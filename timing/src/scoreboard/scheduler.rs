//! How many micro-operations wait for their operands.

/// Cycles ahead that are remembered; what leaves later counts as leaving then.
const REACH: u64 = 2048;

/// The scheduler's entries: taken at issue, left at execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scheduler {
    size: u32,
    waiting: u32,
    leaving: Vec<u16>,
    now: u64,
}

impl Scheduler {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            waiting: 0,
            leaving: vec![0; REACH as usize],
            now: 0,
        }
    }

    /// Time goes on to `cycle`.
    #[inline]
    pub(super) fn advance(&mut self, cycle: u64) {
        if self.waiting == 0 || cycle > self.now + REACH {
            if self.waiting > 0 {
                self.leaving.fill(0);
                self.waiting = 0;
            }
            self.now = self.now.max(cycle);
            return;
        }
        while self.now < cycle {
            self.now += 1;
            let leaving = &mut self.leaving[(self.now % REACH) as usize];
            self.waiting -= u32::from(*leaving);
            *leaving = 0;
        }
    }

    /// The first cycle, from now on, in which `count` entries are free.
    #[inline]
    pub(super) fn room(&self, count: u32) -> u64 {
        let mut waiting = self.waiting;
        let mut cycle = self.now;
        // More than there are have to wait until all are free.
        let most = self.size.saturating_sub(count);
        while waiting > most {
            cycle += 1;
            waiting -= u32::from(self.leaving[(cycle % REACH) as usize]);
        }
        cycle
    }

    /// A micro-operation waits until `cycle`.
    #[inline]
    pub(super) fn wait(&mut self, cycle: u64) {
        if cycle > self.now {
            let cycle = cycle.min(self.now + REACH - 1);
            self.waiting += 1;
            self.leaving[(cycle % REACH) as usize] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scheduler_has_room_when_the_next_one_leaves() {
        let mut scheduler = Scheduler::new(2);
        scheduler.wait(10);
        assert_eq!(scheduler.room(1), 0);
        scheduler.wait(7);
        assert_eq!(scheduler.room(1), 7);
        assert_eq!(scheduler.room(2), 10);
        scheduler.advance(8);
        assert_eq!(scheduler.room(1), 8);
        assert_eq!(scheduler.room(2), 10);
        scheduler.advance(1 << 30);
        assert_eq!(scheduler.room(2), 1 << 30);
    }

    #[test]
    fn what_waits_very_long_leaves_at_the_horizon() {
        let mut scheduler = Scheduler::new(1);
        scheduler.wait(1 << 40);
        assert_eq!(scheduler.room(1), REACH - 1);
    }
}
