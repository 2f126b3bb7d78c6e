//! The retirement scoreboard as the clock of a thread.

use std::sync::Arc;

use vlbr_arch::{BranchClass, Cycles};
use vlbr_cpu::{Block, Code, Exit, Slots, Step, StepClock, StepId, StepTime};

use crate::lower::LowerError;
use crate::microarchitecture::Microarchitecture;
use crate::predict::{Branch, BranchKind, Known, Predictor, PredictorConfig};
use crate::scoreboard::{Leave, Piece, Program, Programmer, Scoreboard};

/// Who says which branches were mispredicted.
#[derive(Clone, Debug, Default)]
pub enum Mispredicts {
    /// The bits of the trace. Branches that were not taken have none: they were foreseen.
    #[default]
    Recorded,
    /// A predictor, which begins empty.
    Predicted(PredictorConfig),
}

/// NOP.
const NOP: u8 = 0x90;

/// A step as the clock needs it.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    piece: Piece,
    recorded: bool,
    /// It makes a transfer.
    transfers: bool,
    /// The near branch at its end, as the predictor knows it.
    branch: Option<Known>,
}

impl Prepared {
    /// Whether an event leaves it, which may be before its last instruction has retired.
    fn event(&self) -> bool {
        self.piece.leave() == Leave::Event
    }
}

/// The steps of a code, made ready for the scoreboard.
#[derive(Clone, Debug)]
pub struct StepPrograms {
    program: Arc<Program>,
    steps: Arc<[Prepared]>,
    start: Scoreboard,
    predictor: Option<Predictor>,
    guessed: usize,
}

impl StepPrograms {
    /// The steps of `code` on `core`.
    ///
    /// # Errors
    /// A block that is too long.
    ///
    /// # Panics
    /// A predictor that [`PredictorConfig::check`] does not pass.
    pub fn new(
        core: &Microarchitecture,
        code: &Code,
        mispredicts: &Mispredicts,
    ) -> Result<Self, LowerError> {
        let mut programmer = Programmer::new(core);
        // One program for all blocks: what the hot loop reads lies together.
        let mut program = Program::default();
        let mut starts = Vec::with_capacity(code.blocks().len());
        let mut guessed = 0;
        // Blocks of which some step retires only a part.
        let mut parted = vec![false; code.blocks().len()];
        for step in code.steps() {
            let whole = code.block(step.block).lengths().len();
            parted[step.block.0 as usize] |= usize::from(step.retired) != whole;
        }
        for (block, parted) in code.blocks().iter().zip(parted) {
            let mode = block.mode();
            let address = block.address().wrapping_add(mode.cs_base);
            let start = program.len();
            starts.push(start);
            let bits = mode.code_size.bits();
            let appended = programmer.append(block.bytes(), address, bits, &mut program);
            if let Err(LowerError::Undecodable(_)) = appended {
                // As many instructions of one micro-operation, as the block bound has it.
                guessed += 1;
                let nops = vec![NOP; block.lengths().len()];
                programmer.append(&nops, address, 64, &mut program)?;
            } else {
                appended?;
            }
            if !parted {
                program.forget_unread(start);
            }
        }
        let predictor = match mispredicts {
            Mispredicts::Recorded => None,
            Mispredicts::Predicted(config) => Some(Predictor::new(config)),
        };
        // Without a predictor nobody asks.
        let known = |branch| Some(predictor.as_ref()?.known(&branch));
        let steps = code.steps().iter().enumerate().map(|(number, step)| {
            let block = code.block(step.block);
            let start = starts[step.block.0 as usize];
            let leave = leave(step, block);
            Prepared {
                piece: program.piece(start..start + usize::from(step.retired), leave),
                recorded: step.exit.is_mispredicted(),
                transfers: code.transfer(StepId(number as u32)).is_some(),
                branch: branch(step, block).and_then(known),
            }
        });
        let steps: Arc<[Prepared]> = steps.collect();
        program.forget_needs();
        Ok(Self {
            program: Arc::new(program),
            steps,
            start: Scoreboard::new(core),
            predictor,
            guessed,
        })
    }

    /// Blocks with an instruction that the decoder does not know, which stand as as many NOPs.
    #[must_use]
    pub const fn guessed(&self) -> usize {
        self.guessed
    }

    /// The clock of a thread at its start.
    #[must_use]
    pub fn clock(&self) -> ScoreboardClock {
        ScoreboardClock {
            program: Arc::clone(&self.program),
            steps: Arc::clone(&self.steps),
            board: self.start.clone(),
            predictor: self.predictor.clone().map(Box::new),
            before: 0,
            end: 0,
            transferred: 0,
            last: StepId(u32::MAX),
        }
    }
}

fn leave(step: &Step, block: &Block) -> Leave {
    match step.exit {
        Exit::Sequential => Leave::Sequential,
        Exit::Event { .. } => Leave::Event,
        Exit::Gap => Leave::Gap,
        Exit::Taken { .. } => match block.branch().map(|branch| branch.class) {
            // The pipeline drains: the instruction serializes.
            Some(BranchClass::Far(_)) | None => Leave::Sequential,
            Some(_) => Leave::Taken,
        },
    }
}

/// The near branch that retired at the end of `step`; of one that may not have been taken only if the trace
/// knows.
fn branch(step: &Step, block: &Block) -> Option<Branch> {
    let own = block.branch().filter(|_| step.retires_branch(block))?;
    let kind = BranchKind::of(own.class)?;
    let base = block.mode().cs_base;
    let (taken, target) = match step.exit {
        Exit::Taken { target, .. } => (true, target.address.wrapping_add(target.cs_base)),
        Exit::Sequential => (false, own.target.unwrap_or_default().wrapping_add(base)),
        // The branch retired, and an event took over at its target or behind it.
        Exit::Event { .. } if kind == BranchKind::Conditional => {
            (false, own.target.unwrap_or_default().wrapping_add(base))
        }
        Exit::Event { .. } | Exit::Gap => return None,
    };
    Some(Branch {
        address: block.last_address().wrapping_add(base),
        fallthrough: block.address_of(block.instructions()).wrapping_add(base),
        kind,
        taken,
        target,
    })
}

/// A thread on the scoreboard.
#[derive(Clone, Debug)]
pub struct ScoreboardClock {
    program: Arc<Program>,
    steps: Arc<[Prepared]>,
    board: Scoreboard,
    predictor: Option<Box<Predictor>>,
    /// End of the step before the last one, and of the last one.
    before: u64,
    end: u64,
    /// End of the last step that made a transfer.
    transferred: u64,
    /// The last step; of none, if there was none.
    last: StepId,
}

impl ScoreboardClock {
    /// The core.
    #[must_use]
    pub const fn board(&self) -> &Scoreboard {
        &self.board
    }
}

impl StepClock for ScoreboardClock {
    // Part of the loop over steps, of which there is one for ids of each width.
    #[inline(always)]
    fn retire(&mut self, _code: &Code, step: StepId) -> StepTime {
        let prepared = &self.steps[step.0 as usize];
        let done = self.board.retire_piece(&self.program, &prepared.piece);
        self.before = self.end;
        self.last = step;
        let mut end = self.end.max(done.retired);
        if prepared.transfers {
            if self.transferred >= end || end > done.retired {
                // An event transfers too, which the scoreboard does not know as a branch.
                end = end.max(self.transferred + 1);
                self.board.pass_retirement(end);
            }
            self.transferred = end;
        }
        self.end = end;
        let mut mispredicted = prepared.recorded;
        if let Some(branch) = &prepared.branch
            && let Some(predictor) = &mut self.predictor
        {
            let missed = predictor.predict_and_update_known(branch);
            mispredicted = missed.mispredicted();
            if !missed.is_nothing() && !mispredicted {
                self.board.resteered();
            }
        }
        if mispredicted {
            self.board.mispredicted(done);
        }
        StepTime {
            end: Cycles::new(self.end),
            mispredicted,
        }
    }

    fn retired_at(&self, index: u16) -> Cycles {
        let last = self.steps.get(self.last.0 as usize);
        let retired = last.map_or(0, |step| step.piece.retired());
        if usize::from(index) + 1 == retired && last.is_some_and(|step| !step.event()) {
            // A transfer that waited for the one before it.
            return Cycles::new(self.end);
        }
        let time = last.and_then(|step| {
            self.board
                .retired_at(&self.program, &step.piece, index.into())
        });
        let retired = time.unwrap_or(self.end);
        Cycles::new(retired.clamp(self.before, self.end))
    }

    fn pass(&mut self, until: Cycles) {
        if until.value() > self.end {
            self.board.pass(until.value());
            self.end = until.value();
        }
    }

    fn slots(&self) -> Option<Slots> {
        Some(self.board.slots())
    }
}
