//! One thread's way through a random program.

use vlbr_arch::{Cpl, FarKind};
#[cfg(test)]
use vlbr_cpu::Code;
use vlbr_cpu::{Block, BlockId, CodeError, Exit, Interner, Step, StepId, Target};

use super::SyntheticConfig;
use super::program::{Behaviour, Ending, Program};
use super::rng::Rng;

/// Call depth at which recursion ends.
const DEEP: usize = 24;

/// Where execution goes on: instruction `skip` of block `index`.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: usize,
    skip: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Walk {
    rng: Rng,
    place: Place,
    /// Return addresses of the calls.
    stack: Vec<usize>,
    /// Where the kernel returns to.
    saved: Place,
    /// How often the loop branch of each block was taken in a row.
    turns: Vec<u32>,
    /// Ids of the whole blocks, once they were met.
    ids: Vec<Option<BlockId>>,
    one_in_interrupted: u32,
    one_in_mispredicted: u32,
}

impl Walk {
    pub(super) fn new(program: &Program, config: &SyntheticConfig, seed: u64) -> Self {
        let start = Place {
            index: program.user_entry,
            skip: 0,
        };
        Self {
            rng: Rng::new(seed),
            place: start,
            stack: Vec::new(),
            saved: start,
            turns: vec![0; program.blocks.len()],
            ids: vec![None; program.blocks.len()],
            one_in_interrupted: if config.kernel {
                config.one_in_interrupted
            } else {
                0
            },
            one_in_mispredicted: config.one_in_mispredicted,
        }
    }

    pub(super) fn step(
        &mut self,
        program: &Program,
        interner: &mut Interner,
    ) -> Result<StepId, CodeError> {
        let Place { index, skip } = self.place;
        let id = self.block(program, interner, self.place)?;
        let block = &program.blocks[index].block;
        let left = block.instructions() - skip;
        let user = block.mode().cpl == Cpl::Ring3;
        if user && left > 0 && self.rng.one_in(self.one_in_interrupted) {
            let retired = self.rng.below(usize::from(left)) as u16;
            self.saved = Place {
                index,
                skip: skip + retired,
            };
            self.place = whole(program.interrupt_entry);
            let kind = [FarKind::Interrupt, FarKind::Exception][self.rng.below(2)];
            let exit = Exit::Event {
                kind,
                target: target(program, self.place),
                in_tx: false,
            };
            return interner.step(Step {
                block: id,
                retired,
                exit,
            });
        }
        let taken = self.leave(program, index);
        let exit = if taken {
            Exit::Taken {
                target: target(program, self.place),
                mispredicted: self.rng.one_in(self.one_in_mispredicted),
                in_tx: false,
            }
        } else {
            Exit::Sequential
        };
        interner.step(Step {
            block: id,
            retired: left,
            exit,
        })
    }

    /// Moves on from the end of block `index`; whether by a taken branch.
    fn leave(&mut self, program: &Program, index: usize) -> bool {
        let next = whole(index + 1);
        let (place, taken) = match &program.blocks[index].ending {
            Ending::Sequential => (next, false),
            &Ending::Conditional { target, behaviour } => {
                if self.decide(index, behaviour) {
                    (whole(target), true)
                } else {
                    (next, false)
                }
            }
            &Ending::Jump(target) => (whole(target), true),
            &Ending::Call(callee) => {
                self.stack.push(index + 1);
                (whole(callee), true)
            }
            Ending::IndirectCall(callees) => {
                self.stack.push(index + 1);
                (whole(callees[self.rng.below(callees.len())]), true)
            }
            Ending::Switch(targets) => (whole(targets[self.rng.below(targets.len())]), true),
            // Calls and returns are balanced: the first function never returns, and a kernel
            // entry does so by IRET or SYSRET.
            Ending::Return => (whole(self.stack.pop().unwrap_or(program.user_entry)), true),
            Ending::SystemCall => {
                self.saved = next;
                (whole(program.system_call_entry), true)
            }
            Ending::SystemReturn | Ending::InterruptReturn => (self.saved, true),
        };
        self.place = place;
        taken
    }

    fn decide(&mut self, index: usize, behaviour: Behaviour) -> bool {
        match behaviour {
            Behaviour::Biased(probability) => self.rng.below(256) < usize::from(probability),
            Behaviour::Guard => self.stack.len() >= DEEP || self.rng.one_in(2),
            Behaviour::Loop(count) => {
                let turns = &mut self.turns[index];
                *turns += 1;
                if *turns > count {
                    *turns = 0;
                }
                *turns != 0
            }
        }
    }

    /// The id of the block from `place` on. Behind an interrupted instruction that is a block of
    /// its own, as it is for a binary translator.
    fn block(
        &mut self,
        program: &Program,
        interner: &mut Interner,
        place: Place,
    ) -> Result<BlockId, CodeError> {
        let block = &program.blocks[place.index].block;
        if place.skip != 0 {
            let lengths = &block.lengths()[usize::from(place.skip)..];
            let skipped = (block.address_of(place.skip) - block.address()) as usize;
            let bytes = &block.bytes()[skipped..];
            let tail =
                Block::with_lengths(block.address_of(place.skip), block.mode(), bytes, lengths)?;
            return interner.block(tail);
        }
        if let Some(id) = self.ids[place.index] {
            return Ok(id);
        }
        let id = interner.block(block.clone())?;
        self.ids[place.index] = Some(id);
        Ok(id)
    }
}

const fn whole(index: usize) -> Place {
    Place { index, skip: 0 }
}

fn target(program: &Program, place: Place) -> Target {
    let block = &program.blocks[place.index].block;
    let mode = block.mode();
    Target {
        address: block.address_of(place.skip),
        cs_base: mode.cs_base,
        code_size: mode.code_size,
        cpl: mode.cpl,
    }
}

/// Whether each step starts where the one before said that execution goes on.
#[cfg(test)]
pub(super) fn is_connected(code: &Code, steps: &[StepId]) -> bool {
    steps.windows(2).all(|pair| {
        let next = code.step(pair[0]).next_address(code.block_of(pair[0]));
        next == Some(code.block_of(pair[1]).address())
    })
}
