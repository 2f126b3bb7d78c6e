//! What becomes of an instruction behind the renamer.

use core::ptr;

use super::{LOADED, LOADS, MOST_STORES, NEVER, RING, Scoreboard, memory};
use crate::lower::STEP;
use crate::scoreboard::calendar::Divider;
use crate::scoreboard::inst::{Extra, Flags, INPUTS, Inst, MANY, OUTPUTS};
use crate::scoreboard::kind::{FUSED, KINDS, OTHER};
use crate::scoreboard::program::Program;

/// Calls `through` with the number of a kind as a constant.
macro_rules! by_kind {
    ($self:ident, $kind:expr, $arguments:tt, $($number:literal)*) => {
        match usize::from($kind) {
            $($number => $self.through::<$number> $arguments,)*
            _ => $self.rare $arguments,
        }
    };
}

impl Scoreboard {
    /// Runs one instruction; when it was executed. `last` is the branch of its piece that is taken, or null.
    #[inline(always)]
    pub(super) fn instruction(
        &mut self,
        program: &Program,
        inst: &Inst,
        last: *const Inst,
        free: bool,
    ) -> u64 {
        const { assert!(OTHER == 18) };
        by_kind!(self, inst.kind, (program, inst, last, free), 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)
    }

    /// Runs an instruction that has more to it than most.
    #[inline(never)]
    pub(super) fn rare(
        &mut self,
        program: &Program,
        inst: &Inst,
        last: *const Inst,
        free: bool,
    ) -> u64 {
        if inst.flags.any(Flags::FUSED) {
            return self.execute::<FUSED>(program, inst, self.issue.cycle(), last);
        }
        self.through::<OTHER>(program, inst, last, free)
    }

    /// Runs an instruction through front end and back end.
    #[inline(always)]
    fn through<const KIND: usize>(
        &mut self,
        program: &Program,
        inst: &Inst,
        last: *const Inst,
        free: bool,
    ) -> u64 {
        let mut start = self.issue.cycle();
        if !KINDS[KIND].fused {
            start = self.deliver_and_issue::<KIND>(program, inst, free);
            if KINDS[KIND].stack && inst.flags.any(self.stack_offset) {
                self.synchronize_stack();
            }
        }
        self.execute::<KIND>(program, inst, start, last)
    }

    /// What the back end makes of an instruction that is renamed at `start`; when it was executed.
    #[inline(always)]
    fn execute<const KIND: usize>(
        &mut self,
        program: &Program,
        inst: &Inst,
        start: u64,
        last: *const Inst,
    ) -> u64 {
        let kind = KINDS[KIND];
        let other = kind.other;
        let loads = kind.loads || other && inst.flags.any(Flags::LOADS);
        let stores = kind.stores || other && inst.flags.any(Flags::STORES);
        let operates = kind.operates || other && inst.ports != 0;
        let writes = kind.writes || other && inst.flags.any(Flags::WRITES);
        let (ends, before_end) = match kind.branch {
            true => {
                let at = ptr::from_ref(inst);
                (at == last, at == last || at.wrapping_add(1) == last)
            }
            false => (false, false),
        };
        let extra = match other {
            true => program.extras.get(inst.extra as usize),
            false => None,
        };
        // Loads. Addresses are of before the operation.
        let mut address = 0;
        if loads || stores || kind.address || other {
            address = self.contents.address(inst.address);
        }
        let mut loaded = 0;
        let mut done = start;
        if loads {
            let data;
            (data, loaded) = self.load(inst.address, inst.flags, inst.load, address, start);
            self.ready[LOADED] = data as i64;
            done = done.max(data);
        }
        if let Some(extra) = extra {
            (done, loaded) = self.more_references(extra, start, (done, loaded));
        }
        // The operation.
        let mut begin = (start + u64::from(operates)) as i64;
        for number in 0..INPUTS.min(kind.inputs) {
            let (value, cycles) = inst.inputs.get(number);
            begin = begin.max(self.ready[usize::from(value)] + cycles);
        }
        let mut begin = begin as u64;
        if let Some(extra) = extra {
            begin = self.begin(inst, extra, begin);
        }
        if other && inst.flags.any(Flags::SERIALIZES) {
            // All before it is done, and nothing behind it has been fetched.
            begin = begin.max(self.retire.cycle());
        }
        if operates {
            let earliest = begin;
            // What is fused with the branch goes with it.
            let mut ports = inst.ports;
            if before_end {
                ports = self.ports_of_taken(inst);
            }
            begin = self.calendar.dispatch(ports, earliest);
            if other {
                done = done.max(begin + 1);
            }
            if let Some(extra) = extra {
                done = done.max(self.more_operations(inst, extra, earliest));
            }
        }
        let end = begin as i64 + i64::from(inst.latency);
        let mut ended = end;
        if !kind.fused {
            for number in 0..OUTPUTS.min(kind.outputs) {
                let (value, cycles) = inst.outputs.get(number);
                self.ready[usize::from(value)] = end + cycles;
                ended = ended.max(end + cycles);
            }
        }
        // Outputs that are left out count too.
        done = done.max(begin + u64::from(inst.whole));
        if other {
            done = done.max(ended.max(0) as u64);
        }
        if let Some(extra) = extra {
            for link in &extra.outputs {
                let at = end + i64::from(link.cycles);
                self.ready[usize::from(link.value)] = at;
                done = done.max(at.max(0) as u64);
            }
            if extra.floor > 0 {
                self.serial = begin + u64::from(extra.floor);
                done = done.max(self.serial);
            }
        }
        let mut value = 0;
        if kind.plain {
            self.contents.fill(&inst.effect, loaded);
        } else if writes {
            let address = (kind.address || other).then_some(address);
            let loaded = (kind.loads || other).then_some(loaded);
            let effect = &inst.effect;
            value = self.contents.run(effect, address, loaded, kind.moves_stack);
        }
        // Stores: address and data.
        let mut data = 0;
        if stores {
            let ready;
            (data, ready) = self.dispatch_store(inst.address, inst.flags, start);
            done = done.max(ready);
        }
        if let Some(extra) = extra {
            done = done.max(self.dispatch_more_stores(extra, start));
            done = done.max(self.move_on(&extra.pointers, start));
        }
        let issued = match (kind.fused, kind.single) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => issued(inst, extra),
        };
        match kind.fused || other {
            true => self.retire_one::<false>(issued, done, ends),
            false => self.retire_one::<true>(issued, done, ends),
        }
        if loads {
            self.load_ring[self.loads as usize % LOADS] = self.retire.cycle();
            self.loads += 1;
        }
        if stores {
            self.store(address, inst.address.size, value, data);
        }
        if let Some(extra) = extra {
            for number in 0..memory::stores(extra).count().min(MOST_STORES) {
                let (place, size, data) = self.later[number];
                self.store(place, size, value, data);
            }
        }
        if writes {
            let written = u32::from(inst.effect.written) << 1;
            if kind.plain {
                self.loaded |= written;
            } else {
                self.loaded &= !written;
                if loads && !operates {
                    self.loaded |= 1 << inst.fills & !1;
                }
            }
            if kind.moves_stack {
                // What reads RSP has taken the offset by now.
                self.stack_offset = inst.flags.offset_behind(self.stack_offset);
            }
        }
        if other {
            self.recovering = NEVER;
            if inst.flags.any(Flags::SERIALIZES) {
                self.drain(self.retire.cycle());
            }
        }
        done
    }

    /// Ports of an instruction that a taken branch ends, or one before that.
    #[inline(never)]
    fn ports_of_taken(&self, inst: &Inst) -> u16 {
        match inst.flags.any(Flags::CONDITIONAL) {
            true => self.ports.taken,
            false => inst.ports,
        }
    }

    /// When an operation can begin whose inputs in `inst` are ready at `begin`.
    #[cold]
    fn begin(&mut self, inst: &Inst, extra: &Extra, begin: u64) -> u64 {
        let mut begin = begin;
        for link in &extra.inputs {
            let ready = self.ready[usize::from(link.value)];
            begin = begin.max((ready + i64::from(link.cycles)).max(0) as u64);
        }
        if extra.divider > 0 {
            let unit = match inst.flags.any(Flags::FLOAT) {
                true => Divider::Float,
                false => Divider::Integer,
            };
            begin = self.calendar.divide(unit, begin, extra.divider.into());
        }
        if extra.floor > 0 {
            begin = begin.max(self.serial);
        }
        begin
    }

    /// Dispatches the operations behind the first one, which could begin at `begin`; when the last one is done.
    #[cold]
    fn more_operations(&mut self, inst: &Inst, extra: &Extra, begin: u64) -> u64 {
        // The operations of microcode follow one another.
        let spread = match extra.issued {
            0..=4 => 0,
            _ => u64::from(inst.latency.max(1).unsigned_abs() - 1),
        };
        let all = u64::from(extra.issued.max(1));
        let mut last = 0;
        let mut number = 1;
        for &(ports, count) in &extra.parts {
            for _ in 0..count {
                let behind = begin + number.min(all) * spread / all;
                last = last.max(self.calendar.dispatch_one(ports, behind) + 1);
                number += 1;
            }
        }
        last
    }

    /// Moves pointers on, which waits for nothing else that their instruction does; when that is done.
    #[cold]
    fn move_on(&mut self, pointers: &[u8], start: u64) -> u64 {
        let mut done = start;
        for &pointer in pointers {
            let ready = &mut self.ready[usize::from(pointer)];
            *ready = (start as i64 + 1).max(*ready) + i64::from(STEP);
            done = done.max(*ready as u64);
        }
        done
    }

    /// In order, so many a cycle, at most one taken branch. `ALONE`: it is known to be at least one micro-operation.
    #[inline(always)]
    pub(super) fn retire_one<const ALONE: bool>(&mut self, issued: usize, done: u64, taken: bool) {
        let mut least = done;
        if taken {
            least = least.max(self.taken + 1);
        }
        self.retire.not_before(least);
        if ALONE || issued > 0 {
            self.retire.take();
            self.retire_ring[self.issued as usize % RING] = self.retire.cycle();
        }
        if issued > 1 {
            for number in 1..issued {
                self.retire.take();
                self.retire_ring[(self.issued as usize + number) % RING] = self.retire.cycle();
            }
        }
        self.issued += issued as u64;
        if taken {
            self.taken = self.retire.cycle();
        }
    }
}

/// Fused micro-operations of an instruction as it is renamed.
#[inline(always)]
fn issued(inst: &Inst, extra: Option<&Extra>) -> usize {
    match (inst.issued, extra) {
        (MANY, Some(extra)) => extra.issued.into(),
        (issued, _) => issued.into(),
    }
}
