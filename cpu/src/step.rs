//! A step: how much of a block retired and how it was left.

use thiserror::Error;
use vlbr_arch::{CodeSize, Cpl, FarKind, Transfer};

use crate::block::{Block, Terminator};
use crate::code::BlockId;

/// Where a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Effective address.
    pub address: u64,
    /// `CS.base` after the transfer.
    pub cs_base: u64,
    /// Code size after the transfer.
    pub code_size: CodeSize,
    /// CPL after the transfer.
    pub cpl: Cpl,
}

/// How a block was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// On to the next instruction; the branch at the end, if any, was not taken.
    Sequential,
    /// The branch at the end of the block was taken.
    Taken {
        /// Where to.
        target: Target,
        /// The recorder saw that direction or target had been mispredicted.
        mispredicted: bool,
        /// Executed inside a transaction.
        in_tx: bool,
    },
    /// An interrupt, a fault or another event took over after the retired instructions, that is
    /// before the instruction behind them.
    Event {
        /// What took over.
        kind: FarKind,
        /// Where to.
        target: Target,
        /// Happened inside a transaction.
        in_tx: bool,
    },
    /// The trace does not say how control went on (the end of a stream, lost data). Nothing is
    /// recorded.
    Gap,
}

impl Exit {
    /// Whether the recorder saw a branch that was taken and mispredicted.
    #[must_use]
    pub const fn is_mispredicted(&self) -> bool {
        matches!(
            self,
            Self::Taken {
                mispredicted: true,
                ..
            }
        )
    }
}

/// Why a step is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// More instructions retired than the block has.
    #[error("{retired} of {instructions} instructions retired")]
    TooManyRetired {
        /// Stated.
        retired: u16,
        /// In the block.
        instructions: u16,
    },
    /// A branch was taken that the block does not have or that did not retire.
    #[error("taken branch, but no branch retired at the end of the block at {address:#x}")]
    NoBranch {
        /// Effective address of the block.
        address: u64,
    },
    /// An unconditional branch fell through.
    #[error("the unconditional branch of the block at {address:#x} fell through")]
    FellThrough {
        /// Effective address of the block.
        address: u64,
    },
    /// A direct branch went elsewhere.
    #[error("direct branch to {expected:#x} went to {found:#x}")]
    WrongTarget {
        /// Target in the instruction.
        expected: u64,
        /// Target in the step.
        found: u64,
    },
}

/// One way a block retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The block.
    pub block: BlockId,
    /// How many of its instructions retired, counted from its start.
    pub retired: u16,
    /// How it was left.
    pub exit: Exit,
}

impl Step {
    /// Checks the step against its block.
    ///
    /// # Errors
    /// See [`StepError`].
    pub fn check(&self, block: &Block) -> Result<(), StepError> {
        let instructions = block.instructions();
        if self.retired > instructions {
            return Err(StepError::TooManyRetired {
                retired: self.retired,
                instructions,
            });
        }
        let whole = self.retired == instructions;
        let address = block.address();
        match (self.exit, block.terminator()) {
            (Exit::Taken { target, .. }, Terminator::Branch(branch)) if whole => {
                match branch.target {
                    Some(expected) if expected != target.address => Err(StepError::WrongTarget {
                        expected,
                        found: target.address,
                    }),
                    _ => Ok(()),
                }
            }
            (Exit::Taken { .. }, _) => Err(StepError::NoBranch { address }),
            (Exit::Sequential, Terminator::Branch(branch))
                if whole && !falls_through(branch.class) =>
            {
                Err(StepError::FellThrough { address })
            }
            _ => Ok(()),
        }
    }

    /// The control transfer this step makes, if it makes one.
    #[must_use]
    pub fn transfer(&self, block: &Block) -> Option<Transfer> {
        let mode = block.mode();
        let (class, from, target, mispredicted, in_tx) = match (self.exit, block.branch()) {
            (
                Exit::Taken {
                    target,
                    mispredicted,
                    in_tx,
                },
                Some(branch),
            ) => (
                branch.class,
                block.last_address(),
                target,
                mispredicted,
                in_tx,
            ),
            (
                Exit::Event {
                    kind,
                    target,
                    in_tx,
                },
                _,
            ) => (
                vlbr_arch::BranchClass::Far(kind),
                block.address_of(self.retired),
                target,
                false,
                in_tx,
            ),
            _ => return None,
        };
        Some(Transfer {
            from,
            to: target.address,
            from_cs_base: mode.cs_base,
            to_cs_base: target.cs_base,
            from_size: mode.code_size,
            to_size: target.code_size,
            class,
            cpl_before: mode.cpl,
            cpl_after: target.cpl,
            mispredicted,
            in_tx,
            tx_abort: class == vlbr_arch::BranchClass::Far(FarKind::TsxAbort),
            // Which pairs a front end fuses is not modelled.
            fused: 0,
        })
    }

    /// Whether a branch instruction retired (taken or not).
    #[must_use]
    pub fn retires_branch(&self, block: &Block) -> bool {
        block.branch().is_some() && self.retired == block.instructions()
    }

    /// Effective address at which execution goes on, if the trace says.
    #[must_use]
    pub fn next_address(&self, block: &Block) -> Option<u64> {
        match self.exit {
            Exit::Sequential => Some(block.address_of(self.retired)),
            Exit::Taken { target, .. } | Exit::Event { target, .. } => Some(target.address),
            Exit::Gap => None,
        }
    }
}

/// Whether a branch of this class can retire without transferring control: conditional branches,
/// and INTO, which shares its class with the other software interrupts.
fn falls_through(class: vlbr_arch::BranchClass) -> bool {
    use vlbr_arch::BranchClass;
    matches!(
        class,
        BranchClass::Jcc | BranchClass::Far(FarKind::SoftwareInterrupt)
    )
}
