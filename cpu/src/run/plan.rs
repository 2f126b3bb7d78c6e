//! What each step does to the LBR and the counters, looked up by the hot loop.

use std::sync::Arc;

use thiserror::Error;
use vlbr_arch::Transfer;
use vlbr_pmu::{Selector, Source, SourceSet};

use crate::code::{Code, StepId};
use crate::feed::{Clock, Feed, Inserts};
use crate::run::columns::{Columns, MAX_COLUMNS};
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

/// What steps take.
#[derive(Clone, Debug)]
pub struct Costs {
    /// By step, in parts of a cycle. They are added up as the last of the other counters.
    pub steps: Arc<[u32]>,
    /// Whether times of records are asked for. Those of a call-stack mode are not known.
    pub records: bool,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Counting {
    /// What the counter counts that is sampled.
    pub sampled: Option<Selector>,
    /// What the other counters count, at most [`crate::run::MAX_COLUMNS`].
    pub others: Vec<Selector>,
    /// Whether clocks pass.
    pub clock: Clock,
    /// Whether every branch is to count as mispredicted, or none; `None`: as the trace says.
    pub mispredicted: Option<bool>,
    /// What steps take, if their time is asked for.
    pub costs: Option<Costs>,
    /// LBR_INSERTS counts records that call-stack mode removes as well.
    pub pops_are_inserts: bool,
}

impl Counting {
    /// One counter, which is sampled.
    #[must_use]
    pub fn sampled(selector: Selector) -> Self {
        Self {
            sampled: Some(selector),
            ..Self::default()
        }
    }

    /// Everything the counters count.
    #[must_use]
    pub fn sources(&self) -> SourceSet {
        let all = self.sampled.iter().chain(&self.others);
        all.fold(SourceSet::EMPTY, |set, one| set.with(one.sources))
    }

    /// LBR_INSERTS of a step that does `op`.
    #[must_use]
    pub fn inserts(&self, op: Op) -> Inserts {
        Inserts(match op {
            Op::Push => 1,
            Op::Pop => self.pops_are_inserts.into(),
            Op::Ignore => 0,
        })
    }
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
    /// More counters than any part has, or than the loop can add up at once.
    #[error("{0} counters beside the sampled one are too many to add up at once")]
    Counters(usize),
}

// Top bits of a step's first word: what it does to the stack. They may carry into each other and
// out, which no field sees.
pub(crate) const PUSH: u64 = 1 << 63;
pub(crate) const POP: u64 = 1 << 62;

/// Where in a step the sampled event occurs.
#[derive(Clone, Debug)]
enum Place {
    /// At each instruction.
    Each,
    /// At the last instruction.
    Last,
    /// With the record of the step's transfer.
    Record,
    /// Elsewhere, by step: where its places begin in the list, which has one for each event.
    Listed { starts: Vec<usize>, list: Vec<u16> },
}

/// One word a step: what it does to the stack, in bits 62 and 63, and what it adds to the counters
/// (see `columns`), with more words if that is too much for one.
#[derive(Clone, Debug)]
pub struct Plan {
    words: Vec<u64>,
    depth: u8,
    pops: bool,
    place: Place,
    columns: Columns,
    costs: Option<Costs>,
    /// Steps left by an event, whose transfer comes after a sample at their last instruction.
    event_exits: Vec<bool>,
}

impl Plan {
    /// The plan of every step of `code` on a stack of `depth` entries: `verdict` tells what a
    /// transfer does.
    ///
    /// # Errors
    /// Too many steps or counters, or a depth out of range.
    pub fn new(
        code: &Code,
        depth: u8,
        counting: &Counting,
        mut verdict: impl FnMut(&Transfer) -> Op,
    ) -> Result<Self, PlanError> {
        let steps = code.steps().len();
        if steps >= 1 << 31 {
            return Err(PlanError::TooManySteps(steps));
        }
        if depth == 0 || usize::from(depth) > MAX_DEPTH {
            return Err(PlanError::Depth(depth));
        }
        let others = &counting.others;
        let timed = usize::from(counting.costs.is_some());
        if others.len() + timed > MAX_COLUMNS {
            return Err(PlanError::Counters(others.len()));
        }
        let feed = Feed::new(code, counting.sources(), counting.clock);
        let mut place = place(counting.sampled);
        let mut pops = false;
        let mut words = Vec::with_capacity(steps);
        let mut event_exits = Vec::with_capacity(steps);
        let mut columns = vec![Vec::with_capacity(steps); 2 + others.len() + timed];
        for (index, step) in code.steps().iter().enumerate() {
            let id = StepId(index as u32);
            let op = code.transfer(id).map_or(Op::Ignore, &mut verdict);
            let inserts = counting.inserts(op);
            let mispredicted = counting.mispredicted;
            let mispredicted = mispredicted.unwrap_or(step.exit.is_mispredicted());
            let increments = feed.step_as(id, inserts, mispredicted);
            let amount = |selector: &Selector| selector.amount(&increments) as u32;
            let events = counting.sampled.as_ref().map_or(0, amount);
            columns[0].push(step.retired.into());
            columns[1].push(events);
            for (column, selector) in columns[2..].iter_mut().zip(others) {
                column.push(amount(selector));
            }
            if let Some(costs) = &counting.costs {
                columns[2 + others.len()].push(costs.steps.get(index).copied().unwrap_or(0));
            }
            if let (Place::Listed { starts, list }, Some(selector)) =
                (&mut place, &counting.sampled)
            {
                starts.push(list.len());
                if events > 0 {
                    list.extend(feed.places(id, selector, inserts));
                }
            }
            let bit = match op {
                Op::Ignore => 0,
                Op::Push => PUSH,
                Op::Pop => POP,
            };
            pops |= op == Op::Pop;
            words.push(bit);
            event_exits.push(matches!(step.exit, Exit::Event { .. }));
        }
        let columns =
            Columns::new(&columns, &mut words).map_err(|_| PlanError::Counters(others.len()))?;
        Ok(Self {
            words,
            depth,
            pops,
            place,
            columns,
            costs: counting.costs.clone(),
            event_exits,
        })
    }

    /// What `step` takes, in parts of a cycle; 0 without costs.
    #[must_use]
    pub fn cost(&self, step: StepId) -> u32 {
        let costs = self.costs.as_ref();
        costs
            .and_then(|costs| costs.steps.get(step.0 as usize).copied())
            .unwrap_or(0)
    }

    /// Whether times of records are asked for.
    pub(super) fn times_records(&self) -> bool {
        !self.pops && self.costs.as_ref().is_some_and(|costs| costs.records)
    }

    /// Which of the other counters adds up time.
    #[must_use]
    pub fn time_column(&self) -> Option<usize> {
        self.costs.as_ref().map(|_| self.columns.len() - 1)
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

    /// Behind how many of the `retired` instructions of `step` its event number `event`, from 1
    /// on, occurs.
    pub(crate) fn position(&self, step: StepId, event: u64, retired: u16) -> u16 {
        match &self.place {
            Place::Each => event as u16,
            Place::Last | Place::Record => retired,
            Place::Listed { starts, list } => {
                let at = starts[step.0 as usize] + event as usize - 1;
                list.get(at).copied().unwrap_or(retired)
            }
        }
    }

    /// Whether an overflow at the end of `step` is seen before the step is left: an event leaves
    /// it, and what overflows is not that event's record.
    pub(crate) fn before_exit(&self, step: StepId) -> bool {
        self.event_exits[step.0 as usize] && !matches!(self.place, Place::Record)
    }

    pub(super) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(crate) fn word(&self, step: StepId) -> u64 {
        self.words[step.0 as usize]
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
        self.columns.instructions.of_first(self.word(step)) as u32
    }

    /// Events `step` counts.
    #[must_use]
    pub fn events(&self, step: StepId) -> u32 {
        self.columns.events.of_first(self.word(step)) as u32
    }
}

fn place(sampled: Option<Selector>) -> Place {
    let Some(selector) = sampled else {
        return Place::Last;
    };
    let sources = selector.sources;
    let each = [
        Source::Instructions,
        Source::CoreCycles,
        Source::ReferenceCycles,
    ];
    if each.map(SourceSet::of).contains(&sources) {
        Place::Each
    } else if sources.is_subset_of(SourceSet::MISPREDICTIONS) {
        Place::Last
    } else if sources == SourceSet::of(Source::LbrInserts) {
        Place::Record
    } else {
        Place::Listed {
            starts: Vec::new(),
            list: Vec::new(),
        }
    }
}
