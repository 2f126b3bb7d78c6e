//! What each step does to the LBR and the counter, looked up by the hot loop.

use thiserror::Error;
use vlbr_arch::Transfer;
use vlbr_pmu::{Event, EventSelect};

use crate::code::{Code, StepId};
use crate::run::view::MAX_DEPTH;
use crate::step::Exit;

/// What a transfer does to the LBR stack under the filter in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Not recorded.
    Ignore,
    /// A record is inserted.
    Push,
    /// Call-stack mode: the youngest record is discarded.
    Pop,
}

/// Why a plan cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The code has 2^31 or more steps.
    #[error("{0} steps, at most 2^31 - 1")]
    TooManySteps(usize),
    /// The stack is deeper than any there is, or has no entries.
    #[error("LBR depth {0}, 1 to 32")]
    Depth(u8),
}

// Layout of a word. Instructions and events of a segment add up in one addition; the two top
// bits may carry into each other and out, which no field sees.
pub(crate) const EVENT_SHIFT: u32 = 32;
pub(crate) const EVENT_MASK: u64 = 0x3fff_ffff;
pub(crate) const INSTRUCTION_MASK: u64 = 0xffff_ffff;
pub(crate) const PUSH: u64 = 1 << 63;
pub(crate) const POP: u64 = 1 << 62;

/// One word a step: bits 31:0 instructions, 61:32 events, 62 pop, 63 push.
#[derive(Clone, Debug)]
pub struct Plan {
    words: Vec<u64>,
    depth: u8,
    pops: bool,
    instruction_event: bool,
    /// Steps left by an event, whose transfer comes after a sample at their last instruction.
    event_exits: Vec<bool>,
}

impl Plan {
    /// The plan of every step of `code` on a stack of `depth` entries: `verdict` tells what a
    /// transfer does, `event` what is counted (`None`: nothing).
    ///
    /// # Errors
    /// Too many steps, or a depth out of range.
    pub fn new(
        code: &Code,
        depth: u8,
        event: Option<EventSelect>,
        mut verdict: impl FnMut(&Transfer) -> Op,
    ) -> Result<Self, PlanError> {
        if code.steps().len() >= 1 << 31 {
            return Err(PlanError::TooManySteps(code.steps().len()));
        }
        if depth == 0 || usize::from(depth) > MAX_DEPTH {
            return Err(PlanError::Depth(depth));
        }
        let mut pops = false;
        let mut words = Vec::with_capacity(code.steps().len());
        let mut event_exits = Vec::with_capacity(code.steps().len());
        for (index, step) in code.steps().iter().enumerate() {
            let id = StepId(index as u32);
            let transfer = code.transfer(id);
            let events = event.map_or(0, |event| {
                event.increment(
                    step.retired,
                    code.is_user(id),
                    code.retires_branch(id),
                    transfer,
                )
            });
            let op = match transfer.map_or(Op::Ignore, &mut verdict) {
                Op::Ignore => 0,
                Op::Push => PUSH,
                Op::Pop => {
                    pops = true;
                    POP
                }
            };
            words.push(op | u64::from(events) << EVENT_SHIFT | u64::from(step.retired));
            event_exits.push(matches!(step.exit, Exit::Event { .. }));
        }
        Ok(Self {
            words,
            depth,
            pops,
            instruction_event: event.is_some_and(|e| e.event == Event::Instructions),
            event_exits,
        })
    }

    /// Number of steps planned.
    pub(crate) fn steps(&self) -> usize {
        self.words.len()
    }

    /// Entries of the stack.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Whether any step pops: call-stack mode.
    #[must_use]
    pub fn pops(&self) -> bool {
        self.pops
    }

    /// Whether the counter counts instructions, so that it can overflow inside a block.
    pub(crate) fn counts_instructions(&self) -> bool {
        self.instruction_event
    }

    pub(crate) fn word(&self, step: StepId) -> u64 {
        self.words[step.0 as usize]
    }

    pub(crate) fn exits_by_event(&self, step: StepId) -> bool {
        self.event_exits[step.0 as usize]
    }

    /// What `step` does to the LBR stack.
    #[must_use]
    pub fn op(&self, step: StepId) -> Op {
        match self.word(step) {
            w if w & PUSH != 0 => Op::Push,
            w if w & POP != 0 => Op::Pop,
            _ => Op::Ignore,
        }
    }

    /// Instructions `step` retires.
    #[must_use]
    pub fn instructions(&self, step: StepId) -> u32 {
        (self.word(step) & INSTRUCTION_MASK) as u32
    }

    /// Events `step` counts.
    #[must_use]
    pub fn events(&self, step: StepId) -> u32 {
        (self.word(step) >> EVENT_SHIFT & EVENT_MASK) as u32
    }
}
