//! The block bound as the clock of a thread.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use vlbr_arch::{CodeSize, Cycles};
use vlbr_cpu::{Block, BlockId, Code, StepClock, StepId, StepTime};

use crate::bound::{BlockModel, Repetition};
use crate::environment::Environment;
use crate::microarchitecture::Microarchitecture;

/// Parts of a cycle in which bounds are added up, so that sums do not depend on their order.
pub const PARTS: u64 = 64;

/// For each step of a code what it takes, in [`PARTS`] of a cycle: the bound of the instructions that
/// retired, as if they were a loop that the uop cache holds. A step that makes a transfer takes at least
/// a cycle, since a core takes at most one branch in each.
///
/// Blocks that the model does not lower (16- and 32-bit code, instructions it cannot read) take their
/// instructions over the width of the renamer.
#[derive(Clone, Debug)]
pub struct StepBounds {
    costs: Arc<[u32]>,
    guessed: usize,
}

impl StepBounds {
    /// The bounds of the steps of `code` on `core`.
    #[must_use]
    pub fn new(core: &Microarchitecture, code: &Code) -> Self {
        let mut model = BlockModel::new(core, Environment::Unknown);
        let mut known: FxHashMap<(BlockId, u16), u32> = FxHashMap::default();
        let mut guessed = 0;
        let costs = (0..code.steps().len() as u32).map(StepId).map(|id| {
            let step = code.step(id);
            let parts = *known.entry((step.block, step.retired)).or_insert_with(|| {
                let block = code.block(step.block);
                bound(&mut model, block, step.retired).unwrap_or_else(|| {
                    guessed += usize::from(step.retired > 0);
                    u32::from(step.retired) * PARTS as u32 / core.parameters.issue
                })
            });
            match code.transfer(id) {
                Some(_) => parts.max(PARTS as u32),
                None => parts,
            }
        });
        let costs = costs.collect();
        Self { costs, guessed }
    }

    /// What each step takes, by its id.
    #[must_use]
    pub fn costs(&self) -> Arc<[u32]> {
        Arc::clone(&self.costs)
    }

    /// Blocks, or beginnings of blocks, that the model did not lower.
    #[must_use]
    pub const fn guessed(&self) -> usize {
        self.guessed
    }

    /// The clock of a thread at its start.
    #[must_use]
    pub fn clock(&self) -> BoundClock {
        BoundClock {
            costs: Arc::clone(&self.costs),
            before: 0,
            now: 0,
            retired: 0,
        }
    }
}

/// The bound of the first `retired` instructions of `block`, in [`PARTS`] of a cycle.
fn bound(model: &mut BlockModel<'_>, block: &Block, retired: u16) -> Option<u32> {
    if block.mode().code_size != CodeSize::Bits64 || retired == 0 {
        return None;
    }
    let lengths = block.lengths().iter().take(usize::from(retired));
    let length: usize = lengths.map(|&length| usize::from(length)).sum();
    let bytes = block.bytes().get(..length)?;
    let bound = model.bound(bytes, Repetition::Loop).ok()?;
    // Far above anything: a block has 4096 instructions at most.
    let most = f64::from(u32::MAX >> 4);
    Some(
        (f64::from(bound.cycles()) * PARTS as f64)
            .round()
            .clamp(0.0, most) as u32,
    )
}

/// A thread whose every step takes its bound. Mispredictions are those that the trace recorded, and
/// cost nothing.
#[derive(Clone, Debug)]
pub struct BoundClock {
    costs: Arc<[u32]>,
    /// In parts: before the last step, and after it.
    before: u64,
    now: u64,
    retired: u16,
}

/// When instruction `index` of a step retires that has `retired` of them, begins at `before` and takes
/// `cost`: they follow each other at equal distances. All in [`PARTS`] of a cycle.
#[must_use]
pub fn retired_at(before: u64, cost: u32, retired: u16, index: u16) -> u64 {
    let behind = u64::from(index.saturating_add(1).min(retired));
    match retired {
        0 => before + u64::from(cost),
        _ => before + u64::from(cost) * behind / u64::from(retired),
    }
}

impl StepClock for BoundClock {
    #[inline]
    fn retire(&mut self, code: &Code, step: StepId) -> StepTime {
        let what = code.step(step);
        self.before = self.now;
        self.now += u64::from(self.costs[step.0 as usize]);
        self.retired = what.retired;
        StepTime {
            end: Cycles::new(self.now / PARTS),
            mispredicted: what.exit.is_mispredicted(),
        }
    }

    fn retired_at(&self, index: u16) -> Cycles {
        let cost = (self.now - self.before) as u32;
        Cycles::new(retired_at(self.before, cost, self.retired, index) / PARTS)
    }

    fn pass(&mut self, until: Cycles) {
        let until = until.value().saturating_mul(PARTS);
        if until > self.now {
            (self.before, self.now, self.retired) = (until, until, 0);
        }
    }
}
