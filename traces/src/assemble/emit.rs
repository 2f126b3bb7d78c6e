//! Writing steps into the chunk under construction.

use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use vlbr_arch::{CodeSize, FarKind};
use vlbr_cpu::{Block, CodeError, Exit, Interner, Mode, Step, StepId, Target};

use super::lanes::HOLE;
use super::mode::unrecorded_kernel;
use super::stream::{AssembleError, Assembler};
use super::transition::Decoded;

impl Assembler {
    pub(super) fn kernel(&mut self) -> Result<Arc<Decoded>, AssembleError> {
        if let Some(kernel) = &self.kernel {
            return Ok(Arc::clone(kernel));
        }
        let kernel = self.add_block(unrecorded_kernel(self.space), false)?;
        self.kernel = Some(Arc::clone(&kernel));
        Ok(kernel)
    }

    pub(super) fn interner(&self) -> RwLockWriteGuard<'_, Interner> {
        // Every change of an interner leaves it whole.
        self.interner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_block(
        &self,
        block: Block,
        guessed_segment: bool,
    ) -> Result<Arc<Decoded>, AssembleError> {
        let id = self.interner().block(block.clone())?;
        Ok(Arc::new(Decoded {
            id,
            block,
            guessed_segment,
        }))
    }

    pub(super) fn intern(&self, step: Step) -> Result<StepId, AssembleError> {
        let id = self.interner().step(step)?;
        if id.0 >= HOLE - 1 {
            return Err(CodeError::Full.into());
        }
        Ok(id)
    }

    /// Appends a step of `block`. One that contradicts its block becomes a gap; then the result is
    /// `None`.
    pub(super) fn emit(
        &mut self,
        block: &Decoded,
        retired: u16,
        exit: Exit,
    ) -> Result<Option<StepId>, AssembleError> {
        let step = Step {
            block: block.id,
            retired,
            exit,
        };
        match self.intern(step) {
            Ok(id) => {
                self.steps.push(id);
                self.retired += u64::from(retired);
                Ok(Some(id))
            }
            Err(AssembleError::Code(CodeError::Step { .. })) => {
                self.emit_gap(block)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn emit_gap(&mut self, block: &Decoded) -> Result<(), AssembleError> {
        self.stats.gaps += 1;
        let retired = block.block.instructions();
        let step = self.intern(Step {
            block: block.id,
            retired,
            exit: Exit::Gap,
        })?;
        self.steps.push(step);
        self.retired += u64::from(retired);
        Ok(())
    }
}

pub(super) fn target_of(decoded: &Decoded) -> Target {
    let mode = decoded.block.mode();
    Target {
        address: decoded.block.address(),
        cs_base: mode.cs_base,
        code_size: mode.code_size,
        cpl: mode.cpl,
    }
}

pub(super) fn taken(target: Target) -> Exit {
    Exit::Taken {
        target,
        mispredicted: false,
        in_tx: false,
    }
}

pub(super) fn event(kind: FarKind, target: Target) -> Exit {
    Exit::Event {
        kind,
        target,
        in_tx: false,
    }
}

/// Effective address and mode of linear address `linear` in code of mode `mode`.
pub(super) fn locate(mut mode: Mode, linear: u64, guessed_segment: bool) -> (u64, Mode) {
    if guessed_segment {
        mode.cs_base = linear & 0xffff_0000;
    }
    let address = linear.wrapping_sub(mode.cs_base);
    match mode.code_size {
        CodeSize::Bits64 => (address, mode),
        CodeSize::Bits32 | CodeSize::Bits16 => (address & 0xffff_ffff, mode),
    }
}
