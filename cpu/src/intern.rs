//! Building a [`Code`] without duplicates, for recorders and generators.

use rustc_hash::FxHashMap;

use crate::block::Block;
use crate::code::{BlockId, Code, CodeError, StepId};
use crate::step::Step;

/// A [`Code`] under construction in which every block and step exists once.
///
/// Blocks are the same if address, mode and bytes are; so code that was modified or mapped anew
/// at an address makes further blocks, and old steps keep the old bytes.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    code: Code,
    blocks: FxHashMap<Block, BlockId>,
    steps: FxHashMap<Step, StepId>,
}

impl Interner {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of `block`, new or known.
    ///
    /// # Errors
    /// [`CodeError::Full`].
    pub fn block(&mut self, block: Block) -> Result<BlockId, CodeError> {
        if let Some(&id) = self.blocks.get(&block) {
            return Ok(id);
        }
        let id = self.code.add_block(block.clone())?;
        self.blocks.insert(block, id);
        Ok(id)
    }

    /// The id of `step`, new or known.
    ///
    /// # Errors
    /// The step does not fit its block, or the table is full.
    pub fn step(&mut self, step: Step) -> Result<StepId, CodeError> {
        if let Some(&id) = self.steps.get(&step) {
            return Ok(id);
        }
        let id = self.code.add_step(step)?;
        self.steps.insert(step, id);
        Ok(id)
    }

    /// The code so far.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The finished code.
    #[must_use]
    pub fn into_code(self) -> Code {
        self.code
    }
}
