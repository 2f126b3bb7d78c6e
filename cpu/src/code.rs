//! The code of a trace: its blocks and steps, each decoded and checked once.

use thiserror::Error;
use vlbr_arch::Transfer;

use crate::block::{Block, BlockError};
use crate::step::{Step, StepError};

/// Index of a block in a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Index of a step in a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// Why a block or step was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// The block's bytes are wrong.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The step does not fit its block.
    #[error("step {index}: {source}")]
    Step {
        /// Index the step would have had.
        index: u32,
        /// What is wrong.
        source: StepError,
    },
    /// The step names a block that does not exist.
    #[error("step {index} names block {block}, there are {blocks}")]
    NoSuchBlock {
        /// Index the step would have had.
        index: u32,
        /// Named block.
        block: u32,
        /// Blocks so far.
        blocks: u32,
    },
    /// More than 2^32 - 1 blocks or steps.
    #[error("more than 2^32 - 1 blocks or steps")]
    Full,
}

/// What the observers need to know of a step, derived once.
#[derive(Clone, Copy, Debug)]
struct Derived {
    transfer: Option<Transfer>,
    branch: bool,
    user: bool,
}

/// Blocks and steps of a trace. Grows only; indices stay valid.
#[derive(Clone, Debug, Default)]
pub struct Code {
    blocks: Vec<Block>,
    steps: Vec<Step>,
    derived: Vec<Derived>,
}

impl Code {
    /// No blocks, no steps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block.
    ///
    /// # Errors
    /// [`CodeError::Full`].
    pub fn add_block(&mut self, block: Block) -> Result<BlockId, CodeError> {
        let id = u32::try_from(self.blocks.len()).map_err(|_| CodeError::Full)?;
        self.blocks.push(block);
        Ok(BlockId(id))
    }

    /// Adds a step after checking it against its block.
    ///
    /// # Errors
    /// The block does not exist, the step does not fit it, or the table is full.
    pub fn add_step(&mut self, step: Step) -> Result<StepId, CodeError> {
        let index = u32::try_from(self.steps.len()).map_err(|_| CodeError::Full)?;
        let block = self
            .blocks
            .get(step.block.0 as usize)
            .ok_or(CodeError::NoSuchBlock {
                index,
                block: step.block.0,
                blocks: self.blocks.len() as u32,
            })?;
        step.check(block)
            .map_err(|source| CodeError::Step { index, source })?;
        self.derived.push(Derived {
            transfer: step.transfer(block),
            branch: step.retires_branch(block),
            user: !block.mode().cpl.is_kernel(),
        });
        self.steps.push(step);
        Ok(StepId(index))
    }

    /// All blocks, in the order of their ids.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// All steps, in the order of their ids.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The block `id`, which must come from this table.
    #[must_use]
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    /// The step `id`, which must come from this table.
    #[must_use]
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0 as usize]
    }

    /// The block of step `id`.
    #[must_use]
    pub fn block_of(&self, id: StepId) -> &Block {
        self.block(self.step(id).block)
    }

    /// The transfer step `id` makes.
    #[must_use]
    pub fn transfer(&self, id: StepId) -> Option<&Transfer> {
        self.derived[id.0 as usize].transfer.as_ref()
    }

    /// Whether step `id` retires a branch instruction.
    #[must_use]
    pub fn retires_branch(&self, id: StepId) -> bool {
        self.derived[id.0 as usize].branch
    }

    /// Whether step `id` runs at CPL > 0.
    #[must_use]
    pub fn is_user(&self, id: StepId) -> bool {
        self.derived[id.0 as usize].user
    }
}
