//! The renamer, between front end and ports.

use super::{LOADS, RING, STACK, STORES, Scoreboard};
use crate::scoreboard::inst::{Flags, Inst, MANY};
use crate::scoreboard::kind::KINDS;
use crate::scoreboard::program::Program;
use crate::scoreboard::slots::{Stall, lose};

impl Scoreboard {
    /// The front end delivers `inst` and the renamer takes it; the cycle of the latter. `free`: no buffer is full.
    #[inline(always)]
    pub(super) fn deliver_and_issue<const KIND: usize>(
        &mut self,
        program: &Program,
        inst: &Inst,
        free: bool,
    ) -> u64 {
        let kind = KINDS[KIND];
        let n = self.issued;
        if !free {
            self.wait_for_queue();
        }
        let (decoded, issued) = match kind.single {
            true => (1, 1),
            false => counts(program, inst, kind.other),
        };
        let (parameters, pipeline) = (&self.parameters, &self.pipeline);
        let front = &mut self.front;
        let delivered = front.deliver(inst, decoded, parameters, pipeline, kind.other);
        let mut cycle = delivered;
        let mut room = 0;
        if !free {
            room = self.room(inst, issued.max(1));
            cycle = cycle.max(room);
        }
        if cycle > self.issue.cycle() {
            let stall = if room > delivered {
                Stall::Backend
            } else if self.recovering == n {
                Stall::BadSpeculation
            } else {
                Stall::Frontend
            };
            self.issue_not_before(cycle, stall);
        }
        if kind.other && (self.high != 0 || inst.flags.any(Flags::HIGH_BYTE)) {
            self.join_high_bytes(program);
        }
        self.issue.take();
        let start = self.issue.cycle();
        self.issue_ring[n as usize % RING] = start;
        if !kind.single && issued > 1 {
            for number in 1..issued as usize {
                self.issue.take();
                self.issue_ring[(n as usize + number) % RING] = self.issue.cycle();
            }
        }
        start
    }

    /// Nothing is delivered before the queue in front of the renamer has room.
    #[inline(never)]
    fn wait_for_queue(&mut self) {
        // What no micro-operation has used yet is 0.
        let queue = u64::from(self.pipeline.idq);
        let slot = self.issued.wrapping_sub(queue) as usize % RING;
        self.front.hold(self.issue_ring[slot]);
    }

    /// The first cycle in which the buffers have room for `inst`, which is `issued` micro-operations, at least one.
    #[inline(never)]
    fn room(&mut self, inst: &Inst, issued: u32) -> u64 {
        let last = self.issued + u64::from(issued) - 1;
        let slot = last.wrapping_sub(self.pipeline.rob.into()) as usize % RING;
        let mut room = self.retire_ring[slot];
        if inst.flags.any(Flags::STORES) {
            let buffer = u64::from(self.pipeline.store_buffer);
            let slot = self.stores.wrapping_sub(buffer) as usize % STORES;
            room = room.max(self.commit_ring[slot]);
        }
        if inst.flags.any(Flags::LOADS) {
            let buffer = u64::from(self.pipeline.load_buffer);
            let slot = self.loads.wrapping_sub(buffer) as usize % LOADS;
            room = room.max(self.load_ring[slot]);
        }
        let now = self.issue.cycle();
        room.max(self.calendar.room(inst.entries.into(), now))
    }

    /// Joins high bytes that are renamed apart where the instruction reads the whole.
    #[cold]
    fn join_high_bytes(&mut self, program: &Program) {
        let Some(high) = program.high.get(self.place) else {
            return;
        };
        let (merges, high) = high.follow(self.high);
        self.high = high;
        if merges > 0 {
            // Joining a high byte has cycles of its own.
            let cycle = self.issue.cycle() + u64::from(self.issue.used() > 0) + u64::from(merges);
            self.issue_not_before(cycle, Stall::Backend);
        }
    }

    /// The renamer stands still until `cycle`.
    #[inline(never)]
    fn issue_not_before(&mut self, cycle: u64, stall: Stall) {
        if cycle > self.issue.cycle() {
            let width = u64::from(self.parameters.issue);
            let lost = (cycle - self.issue.cycle()) * width - u64::from(self.issue.used());
            lose(&mut self.slots, stall, lost);
            self.issue.not_before(cycle);
            self.calendar.advance(cycle);
        }
    }

    /// RSP takes the offset of the stack engine: one micro-operation.
    #[inline(never)]
    pub(super) fn synchronize_stack(&mut self) {
        let begin = self.ready[STACK].max(self.issue.cycle() as i64 + 1) as u64;
        let cycle = self.calendar.dispatch_one(self.ports.any, begin);
        self.ready[STACK] = cycle as i64 + 1;
        self.stack_offset = Flags::default();
        // It takes a slot, but none of the buffers.
        self.slots.retiring += 1;
        self.issue.take();
    }
}

/// Fused micro-operations of an instruction as decoded and as renamed.
#[inline(always)]
fn counts(program: &Program, inst: &Inst, other: bool) -> (u32, u32) {
    if other && (inst.decoded == MANY || inst.issued == MANY) {
        let extra = program.extras.get(inst.extra as usize);
        return extra.map_or((0, 0), |e| (e.decoded.into(), e.issued.into()));
    }
    (inst.decoded.into(), inst.issued.into())
}
