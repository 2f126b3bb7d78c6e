//! The renamer, between front end and ports.

use super::{LOADS, RING, STACK, STORES, Scoreboard};
use crate::scoreboard::inst::{Flags, Inst, MANY, Shape};
use crate::scoreboard::program::Program;
use crate::scoreboard::slots::{Stall, lose};

impl Scoreboard {
    /// The front end delivers `inst` and the renamer takes it; the cycle of the latter.
    #[inline(always)]
    pub(super) fn deliver_and_issue<const SHAPE: u8>(
        &mut self,
        program: &Program,
        at: usize,
        inst: &Inst,
    ) -> u64 {
        let other = SHAPE == Shape::OTHER;
        let is = |shape: u8, flag: Flags| SHAPE & shape != 0 || other && inst.flags.any(flag);
        let n = self.issued;
        // What no micro-operation has used yet is 0.
        let queue = u64::from(self.pipeline.idq);
        let slot = n.wrapping_sub(queue) as usize % RING;
        self.front.hold(self.issue_ring[slot]);
        let (mut decoded, mut issued) = (u32::from(inst.decoded), u32::from(inst.issued));
        if other && (inst.decoded == MANY || inst.issued == MANY) {
            let extra = program.extras.get(inst.extra as usize);
            (decoded, issued) = extra.map_or((0, 0), |e| (e.decoded.into(), e.issued.into()));
        }
        let (parameters, pipeline) = (&self.parameters, &self.pipeline);
        let delivered = match other {
            true => self
                .front
                .deliver::<true>(inst, decoded, parameters, pipeline),
            false => self
                .front
                .deliver::<false>(inst, decoded, parameters, pipeline),
        };
        let last = n + u64::from(if other { issued.max(1) } else { issued }) - 1;
        let slot = last.wrapping_sub(self.pipeline.rob.into()) as usize % RING;
        let mut room = self.retire_ring[slot];
        if is(Shape::STORES, Flags::STORES) {
            let buffer = u64::from(self.pipeline.store_buffer);
            let slot = self.stores.wrapping_sub(buffer) as usize % STORES;
            room = room.max(self.commit_ring[slot]);
        }
        if is(Shape::LOADS, Flags::LOADS) {
            let buffer = u64::from(self.pipeline.load_buffer);
            let slot = self.loads.wrapping_sub(buffer) as usize % LOADS;
            room = room.max(self.load_ring[slot]);
        }
        room = room.max(self.calendar.room(inst.entries.into()));
        let cycle = delivered.max(room);
        if cycle > self.issue.cycle {
            let stall = if room > delivered {
                Stall::Backend
            } else if self.recovering {
                Stall::BadSpeculation
            } else {
                Stall::Frontend
            };
            self.issue_not_before(cycle, stall);
        }
        self.recovering = false;
        if self.high != 0 || other && inst.flags.any(Flags::HIGH_BYTE) {
            self.join_high_bytes(program, at);
        }
        self.issue.take();
        let start = self.issue.cycle;
        self.issue_ring[n as usize % RING] = start;
        if issued > 1 {
            for number in 1..issued as usize {
                self.issue.take();
                self.issue_ring[(n as usize + number) % RING] = self.issue.cycle;
            }
        }
        self.calendar.advance(start);
        start
    }

    /// Joins high bytes that are renamed apart where the instruction reads the whole.
    #[cold]
    fn join_high_bytes(&mut self, program: &Program, at: usize) {
        let Some(high) = program.high.get(self.first + at) else {
            return;
        };
        let (merges, high) = high.follow(self.high);
        self.high = high;
        if merges > 0 {
            // Joining a high byte has cycles of its own.
            let cycle = self.issue.cycle + u64::from(self.issue.used() > 0) + u64::from(merges);
            self.issue_not_before(cycle, Stall::Backend);
        }
    }

    /// The renamer stands still until `cycle`.
    #[inline]
    fn issue_not_before(&mut self, cycle: u64, stall: Stall) {
        if cycle > self.issue.cycle {
            let width = u64::from(self.parameters.issue);
            let lost = (cycle - self.issue.cycle) * width - u64::from(self.issue.used());
            lose(&mut self.slots, stall, lost);
            self.issue.begin(cycle);
        }
    }

    /// RSP takes the offset of the stack engine: one micro-operation.
    #[inline(never)]
    pub(super) fn synchronize_stack(&mut self) {
        let begin = self.ready[STACK].max(self.issue.cycle as i64 + 1) as u64;
        let cycle = self.calendar.dispatch_one(self.ports.any, begin);
        self.ready[STACK] = cycle as i64 + 1;
        self.stack_offset = Flags::default();
        // It takes a slot, but none of the buffers.
        self.slots.retiring += 1;
        self.issue.take();
    }
}
