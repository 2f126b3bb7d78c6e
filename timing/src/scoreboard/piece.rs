//! Instructions of a program that retire one behind the other.

use core::ops::Range;

use crate::dependence::NO_VALUE;
use crate::lower::{LOADED, SINK};
use crate::scoreboard::core::{Leave, RING};
use crate::scoreboard::inst::{Flags, Inst, MANY};
use crate::scoreboard::kind::{FUSED, KINDS, OTHER};
use crate::scoreboard::program::Program;

/// What instructions take of the buffers of a core, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Fused micro-operations.
    pub(super) issued: u32,
    pub(super) loads: u32,
    pub(super) stores: u32,
    /// Entries of the scheduler, if none of them leaves it.
    pub(super) entries: u32,
}

/// Instructions of a [`Program`] that retire one behind the other, and how they are left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(super) start: u32,
    pub(super) retired: u32,
    pub(super) leave: Leave,
    /// More has to be looked at than the code for a kind of instructions does.
    pub(super) closely: bool,
    /// The last one is a branch that is done when what it is fused with is done, just before it.
    pub(super) paired: bool,
    pub(super) demand: Demand,
}

impl Piece {
    /// Instructions that retire.
    pub(crate) fn retired(&self) -> usize {
        self.retired as usize
    }

    /// How they are left.
    pub(crate) fn leave(&self) -> Leave {
        self.leave
    }

    pub(super) fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.retired as usize
    }
}

impl Program {
    /// The piece of the instructions in `range`, which is then left by `leave`. Ranges outside the program have no
    /// instructions.
    pub(crate) fn piece(&self, range: Range<usize>, leave: Leave) -> Piece {
        let start = range.start as u32;
        let run = self.instructions.get(range).unwrap_or_default();
        Piece {
            start,
            retired: run.len() as u32,
            leave,
            closely: closely(run, leave),
            paired: paired(run),
            demand: self.demand(run),
        }
    }

    fn demand(&self, run: &[Inst]) -> Demand {
        let mut demand = Demand::default();
        let mut waiting: u32 = 0;
        for inst in run {
            let extra = self.extras.get(inst.extra as usize);
            let flag = |flag: Flags| u32::from(inst.flags.any(flag));
            let (loads, mut stores) = (flag(Flags::LOADS), flag(Flags::STORES));
            let mut issued = u32::from(inst.issued);
            let mut operations = u32::from(inst.ports != 0) + flag(Flags::READS_RSP);
            let mut more_loads = 0;
            if let Some(extra) = extra {
                if inst.issued == MANY {
                    issued = extra.issued.into();
                }
                let parts = extra.parts.iter().map(|&(_, count)| u32::from(count));
                operations = parts.fold(operations, u32::saturating_add);
                for reference in &extra.references {
                    stores += u32::from(reference.flags.any(Flags::STORES));
                    more_loads += u32::from(reference.flags.any(Flags::LOADS));
                }
            }
            let entries = waiting.saturating_add(inst.entries.into());
            demand.entries = demand.entries.max(entries);
            let dispatched = operations.saturating_add(loads + more_loads + 2 * stores);
            waiting = waiting.saturating_add(dispatched);
            demand.issued = demand.issued.saturating_add(issued);
            demand.loads = demand.loads.saturating_add(loads);
            demand.stores = demand.stores.saturating_add(stores);
        }
        demand
    }

    /// Frees what only [`Program::forget_unread`] reads.
    pub(crate) fn forget_needs(&mut self) {
        self.needs = Vec::new();
    }

    /// Forgets what the instructions from number `start` on put into values that others of them overwrite before
    /// any reads it. They have to retire together then.
    pub(crate) fn forget_unread(&mut self, start: usize) {
        // Registers but RSP, which the stack engine reads too, and flags.
        const FOLLOWED: u128 = ((1 << 59) - 2) & !(1 << 5);
        let bit = |value: u8| 1_u128.checked_shl(value.into()).unwrap_or_default();
        let mut overwritten = 0_u128;
        let behind = self.instructions.iter_mut().zip(&mut self.needs);
        for (inst, need) in behind.skip(start).rev() {
            let extra = self.extras.get(inst.extra as usize);
            if !need.fused {
                let outputs = inst.outputs.values();
                let written = outputs.fold(0, |bits, value| bits | bit(value));
                if !need.other {
                    let read = |value| overwritten & bit(value) == 0;
                    need.outputs = inst.outputs.keep(SINK as u8, read);
                    inst.kind = need.number();
                }
                overwritten |= written & FOLLOWED;
            }
            let mut reads = inst
                .inputs
                .values()
                .fold(0, |bits, value| bits | bit(value));
            reads |= bit(inst.address.base) | bit(inst.address.index);
            if let Some(extra) = extra {
                for input in &extra.inputs {
                    reads |= bit(input.value);
                }
                for &pointer in &extra.pointers {
                    reads |= bit(pointer);
                }
                for reference in &extra.references {
                    reads |= bit(reference.address.base) | bit(reference.address.index);
                }
            }
            overwritten &= !reads;
        }
    }
}

/// Whether the last one of `run` is a branch that is fused with the instruction before it, reads nothing but what that
/// computes, and so is done when that is.
fn paired(run: &[Inst]) -> bool {
    let [.., first, branch] = run else {
        return false;
    };
    let plain = usize::from(branch.kind) == FUSED && usize::from(first.kind) != OTHER;
    let latency = i64::from(first.latency);
    // Cycles from the beginning of the operation until the branch has what it reads.
    let mut done = Some(i64::from(branch.latency));
    for (value, cycles) in branch.inputs.links() {
        if value != NO_VALUE as u8 {
            let computed = first.outputs.links().find(|&(output, _)| output == value);
            let ready = computed.map(|(_, behind)| latency + behind + cycles);
            done = done.and_then(|done| Some(done.max(ready?)));
        }
    }
    // What it loads is waited for by the operation, not by retirement alone.
    let waits = !first.flags.any(Flags::LOADS)
        || first
            .inputs
            .links()
            .any(|(value, before)| value == LOADED as u8 && latency + before >= 0);
    plain
        && waits
        && !first.flags.any(Flags::STORES)
        && first.ports != 0
        && branch.whole == 0
        && done == Some(first.whole.into())
}

/// Whether more has to be looked at of `run` than the code for a kind of instructions does.
fn closely(run: &[Inst], leave: Leave) -> bool {
    let Some((last, before)) = run.split_last() else {
        return false;
    };
    let fused = |inst: &Inst| inst.flags.any(Flags::FUSED);
    // A transfer that the code of its instruction does not expect.
    let odd = leave == Leave::Taken && !KINDS[usize::from(last.kind)].branch;
    // When each of them retired is asked by its micro-operations.
    let uncounted = |inst: &Inst| inst.issued == MANY || inst.issued == 0 && !fused(inst);
    let issued: usize = run.iter().map(|inst| usize::from(inst.issued)).sum();
    odd || run
        .iter()
        .any(|inst| uncounted(inst) || inst.flags.any(Flags::HIGH_BYTE))
        || before.iter().any(fused)
        || issued >= RING
}
