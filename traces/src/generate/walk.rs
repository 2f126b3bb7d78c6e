//! One thread's way through a generated program.

use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, BlockId, CodeError, Exit, Interner, Mode, ModeSource, Step, StepId, Target};

use super::draft::{Decide, Ending};
use super::program::Program;
use super::schedule::{Event, Rates, Schedule};
use crate::assemble::UNRECORDED_KERNEL;
use crate::synthetic::Rng;
use crate::vlt::{MachineAccess, Position};

/// Most visits of the kernel within each other.
const DEEPEST: usize = 6;
/// Frames at which recursions end, so that memory stays bounded.
const MAX_FRAMES: usize = 1 << 16;
/// No step id.
const NONE: u32 = u32::MAX;

/// What the threads of a program share: the blocks and steps that they made.
#[derive(Debug)]
pub(super) struct Shared<'p> {
    pub(super) program: &'p Program,
    pub(super) interner: Interner,
    ids: Vec<Ids>,
}

/// Ids of a block as a whole, once it ran.
#[derive(Clone, Copy, Debug)]
struct Ids {
    block: u32,
    /// Its step to the next instruction.
    on: u32,
    /// Its step to where it went last, and which block that is.
    away: u32,
    to: u32,
}

impl<'p> Shared<'p> {
    pub(super) fn new(program: &'p Program) -> Self {
        let none = Ids {
            block: NONE,
            on: NONE,
            away: NONE,
            to: NONE,
        };
        Self {
            program,
            interner: Interner::new(),
            ids: vec![none; program.blocks.len()],
        }
    }

    /// The id of the block from `place` on. Behind an interrupted instruction that is a block of its
    /// own, as it is for a binary translator.
    fn block(&mut self, place: Place) -> Result<BlockId, CodeError> {
        let block = &self.program.blocks[place.index].block;
        if place.skip == 0 {
            let known = self.ids[place.index].block;
            if known != NONE {
                return Ok(BlockId(known));
            }
            let id = self.interner.block(block.clone())?;
            self.ids[place.index].block = id.0;
            return Ok(id);
        }
        let address = block.address_of(place.skip);
        let bytes = &block.bytes()[(address - block.address()) as usize..];
        let lengths = &block.lengths()[usize::from(place.skip)..];
        let tail = Block::with_lengths(address, block.mode(), bytes, lengths)?;
        self.interner.block(tail)
    }

    fn target(&self, place: Place) -> Target {
        if place.index == UNSEEN {
            return unseen_target();
        }
        let block = &self.program.blocks[place.index].block;
        Target {
            address: block.address_of(place.skip),
            cs_base: 0,
            code_size: CodeSize::Bits64,
            cpl: block.mode().cpl,
        }
    }

    /// The step that ends the block at `from` by going to `to`, or on if that is `None`.
    fn step(&mut self, from: Place, to: Option<Place>) -> Result<StepId, CodeError> {
        let whole = from.skip == 0;
        if whole {
            let ids = self.ids[from.index];
            match to {
                None if ids.on != NONE => return Ok(StepId(ids.on)),
                Some(Place { index, skip: 0 }) if ids.to == index as u32 && ids.away != NONE => {
                    return Ok(StepId(ids.away));
                }
                _ => {}
            }
        }
        let exit = match to {
            None => Exit::Sequential,
            Some(place) => Exit::Taken {
                target: self.target(place),
                mispredicted: false,
                in_tx: false,
            },
        };
        let block = self.block(from)?;
        let retired = self.program.blocks[from.index].block.instructions() - from.skip;
        let step = self.interner.step(Step {
            block,
            retired,
            exit,
        })?;
        if whole {
            let ids = &mut self.ids[from.index];
            match to {
                None => ids.on = step.0,
                Some(Place { index, skip: 0 }) => (ids.away, ids.to) = (step.0, index as u32),
                Some(_) => {}
            }
        }
        Ok(step)
    }
}

/// Where execution goes on: instruction `skip` of block `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: usize,
    skip: u16,
}

const fn whole(index: usize) -> Place {
    Place { index, skip: 0 }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    back: usize,
    recursion: u32,
}

/// What a visit of the kernel goes back to.
#[derive(Clone, Copy, Debug)]
struct Visit {
    saved: Place,
    frames: usize,
    recursion: u32,
    left: f64,
    masked: bool,
}

/// What was executed.
#[derive(Clone, Debug, Default)]
pub(super) struct Executed {
    pub(super) steps: Vec<StepId>,
    pub(super) machine: Vec<(Position, MachineAccess)>,
    pub(super) instructions: u64,
}

impl Executed {
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.machine.clear();
        self.instructions = 0;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Walk {
    rng: Rng,
    schedule: Schedule,
    place: Place,
    frames: Vec<Frame>,
    visits: Vec<Visit>,
    /// Calls that the function running is still to make of itself.
    recursion: u32,
    /// Instructions that the visit of the kernel is still to run.
    left: f64,
    /// Interrupts are masked.
    masked: bool,
    /// By loop: how many further passes it has, and one.
    turns: Vec<u32>,
}

impl Walk {
    pub(super) fn new(program: &Program, rates: &Rates, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            schedule: Schedule::new(rates, &program.kinds, &mut rng),
            rng,
            place: whole(program.start),
            frames: Vec::new(),
            visits: Vec::new(),
            recursion: 0,
            left: f64::INFINITY,
            masked: false,
            turns: vec![0; program.loops],
        }
    }

    /// Appends a step, or two where the kernel is not seen.
    pub(super) fn advance(
        &mut self,
        shared: &mut Shared<'_>,
        out: &mut Executed,
    ) -> Result<(), CodeError> {
        let from = self.place;
        let placed = &shared.program.blocks[from.index];
        let left = placed.block.instructions() - from.skip;
        let now = self.schedule.now();
        let open = !self.masked && self.visits.len() < DEEPEST;
        if open && self.schedule.next_event() < now + u64::from(left) {
            let retired = self.schedule.next_event().saturating_sub(now) as u16;
            let halt = placed.halt.filter(|&halt| from.skip + retired > halt);
            if halt.is_none() {
                let event = self.schedule.take_event(&mut self.rng);
                return self.strike(shared, out, retired, event);
            }
        }
        if let Some(halt) = placed.halt.filter(|&halt| from.skip <= halt) {
            // The instruction that waits is the last one before the interrupt.
            let retired = halt + 1 - from.skip;
            return self.strike(shared, out, retired, Event::Interrupt);
        }
        let kernel = placed.block.mode().cpl == Cpl::Ring0;
        self.retire(shared.program, out, from, left, kernel);
        let to = self.leave(shared.program, from.index);
        out.steps.push(shared.step(from, to)?);
        if let Some(unseen) = self.unseen_call(shared.program, from.index) {
            self.visit_unseen(shared, out, unseen, FarKind::Sysret)?;
        }
        Ok(())
    }

    /// Counts `retired` instructions from `from` on and notes what they ask of the machine.
    fn retire(
        &mut self,
        program: &Program,
        out: &mut Executed,
        from: Place,
        retired: u16,
        kernel: bool,
    ) {
        let placed = &program.blocks[from.index];
        if !placed.accesses.is_empty() {
            let pass = match placed.ending {
                Ending::Conditional {
                    decide: Decide::Count(_),
                    ..
                } => self.schedule.pass(),
                _ => 0,
            };
            for &(number, access) in &placed.accesses {
                if (from.skip..from.skip + retired).contains(&number) {
                    let position = Position {
                        step: out.steps.len() as u32,
                        instruction: number - from.skip,
                    };
                    out.machine.push((position, access.in_pass(pass)));
                }
            }
        }
        out.instructions += u64::from(retired);
        self.left -= f64::from(retired);
        self.schedule.retire(retired, kernel);
    }

    /// An event takes over behind `retired` instructions.
    fn strike(
        &mut self,
        shared: &mut Shared<'_>,
        out: &mut Executed,
        retired: u16,
        event: Event,
    ) -> Result<(), CodeError> {
        let from = self.place;
        let program = shared.program;
        let saved = Place {
            index: from.index,
            skip: from.skip + retired,
        };
        let kind = match event {
            Event::Exception => FarKind::Exception,
            _ => FarKind::Interrupt,
        };
        let entry = match (event, &program.lbr) {
            (Event::LbrStart, Some(lbr)) => Some(lbr.start),
            (Event::LbrRead, Some(lbr)) => Some(lbr.read),
            (Event::LbrStop, Some(lbr)) => Some(lbr.stop),
            _ => program
                .events
                .get(self.rng.below(program.events.len()))
                .copied(),
        };
        let target = match entry {
            Some(index) => shared.target(whole(index)),
            None => unseen_target(),
        };
        let block = shared.block(from)?;
        let step = shared.interner.step(Step {
            block,
            retired,
            exit: Exit::Event {
                kind,
                target,
                in_tx: false,
            },
        })?;
        let kernel = program.blocks[from.index].block.mode().cpl == Cpl::Ring0;
        self.retire(program, out, from, retired, kernel);
        out.steps.push(step);
        match entry {
            Some(index) => self.enter(saved, index, event != Event::Exception),
            None => {
                self.place = saved;
                self.visit_unseen(shared, out, saved, FarKind::Iret)?;
            }
        }
        Ok(())
    }

    /// Goes into the kernel.
    fn enter(&mut self, saved: Place, index: usize, masked: bool) {
        self.visits.push(Visit {
            saved,
            frames: self.frames.len(),
            recursion: self.recursion,
            left: self.left,
            masked: self.masked,
        });
        self.left = self.schedule.visit(&mut self.rng);
        self.masked = masked;
        self.recursion = 0;
        self.place = whole(index);
    }

    /// A visit of a kernel of which no code is seen.
    fn visit_unseen(
        &mut self,
        shared: &mut Shared<'_>,
        out: &mut Executed,
        back: Place,
        kind: FarKind,
    ) -> Result<(), CodeError> {
        let mode = Mode {
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring0,
            cs_base: 0,
            space: 0,
            source: ModeSource::Recorded,
        };
        let block = shared
            .interner
            .block(Block::empty(UNRECORDED_KERNEL, mode))?;
        let exit = Exit::Event {
            kind,
            target: shared.target(back),
            in_tx: false,
        };
        let step = shared.interner.step(Step {
            block,
            retired: 0,
            exit,
        })?;
        out.steps.push(step);
        Ok(())
    }

    /// Where the thread goes on after a system call of an unseen kernel.
    fn unseen_call(&self, program: &Program, index: usize) -> Option<Place> {
        let call = matches!(program.blocks[index].ending, Ending::SystemCall);
        (call && program.system_call.is_none()).then_some(self.place)
    }

    /// Moves on from the end of block `index`; where to, if by a taken branch.
    fn leave(&mut self, program: &Program, index: usize) -> Option<Place> {
        let next = whole(index + 1);
        let to = match &program.blocks[index].ending {
            Ending::Sequential => None,
            Ending::Conditional { target, decide } => self
                .decide(program, index, *decide)
                .then_some(whole(*target)),
            Ending::Jump(target) => Some(whole(*target)),
            Ending::Call(callee) => Some(self.call(program, index, *callee)),
            Ending::Recurse(callee) => {
                let recursion = self.recursion.saturating_sub(1);
                self.push(index);
                self.recursion = recursion;
                Some(whole(*callee))
            }
            Ending::ZeroCall => Some(next),
            Ending::IndirectCall(callees) => {
                let callee = callees[self.rng.below(callees.len())];
                Some(self.call(program, index, callee))
            }
            Ending::IndirectJump(targets) => Some(whole(targets[self.rng.below(targets.len())])),
            Ending::Return => Some(match self.frames.pop() {
                Some(frame) => {
                    self.recursion = frame.recursion;
                    whole(frame.back)
                }
                // Calls and returns are balanced: this is not reached.
                None => whole(program.start),
            }),
            Ending::SystemCall => match program.system_call {
                Some(entry) => {
                    self.enter(next, entry, false);
                    return Some(self.place);
                }
                None => {
                    // The step goes to the unseen kernel; this is where that comes back to.
                    self.place = next;
                    return Some(Place {
                        index: UNSEEN,
                        skip: 0,
                    });
                }
            },
            Ending::SystemReturn | Ending::InterruptReturn => Some(self.go_back(program)),
        };
        self.place = to.unwrap_or(next);
        to
    }

    fn call(&mut self, program: &Program, index: usize, callee: usize) -> Place {
        self.push(index);
        self.recursion = match program.blocks[callee].recursion {
            Some(frames) => frames.draw(&mut self.rng) - 1,
            None => 0,
        };
        whole(callee)
    }

    fn push(&mut self, index: usize) {
        self.frames.push(Frame {
            back: index + 1,
            recursion: self.recursion,
        });
    }

    fn go_back(&mut self, program: &Program) -> Place {
        let Some(visit) = self.visits.pop() else {
            // Not reached: such a return ends a visit.
            return whole(program.start);
        };
        self.frames.truncate(visit.frames);
        self.recursion = visit.recursion;
        self.left = visit.left;
        self.masked = visit.masked;
        visit.saved
    }

    fn decide(&mut self, program: &Program, index: usize, decide: Decide) -> bool {
        match decide {
            Decide::Random(probability) => probability.draw(&mut self.rng),
            Decide::Guard => self.recursion == 0 || self.frames.len() >= MAX_FRAMES,
            Decide::Spent => self.left <= 0.0,
            Decide::Due(kind) => {
                let open = !self.masked && self.visits.len() < DEEPEST;
                let may = open || !program.kinds[kind].halts;
                may && self.schedule.take_due(kind, &mut self.rng)
            }
            Decide::Loop(trips) => {
                let turns = &mut self.turns[program.blocks[index].number];
                if *turns == 0 {
                    *turns = trips.draw(&mut self.rng);
                }
                *turns -= 1;
                *turns != 0
            }
            Decide::Count(passes) => self.schedule.count_pass(passes),
        }
    }
}

/// In place of a block: the kernel that is not seen.
pub(super) const UNSEEN: usize = usize::MAX;

fn unseen_target() -> Target {
    Target {
        address: UNRECORDED_KERNEL,
        cs_base: 0,
        code_size: CodeSize::Bits64,
        cpl: Cpl::Ring0,
    }
}

#[cfg(test)]
impl Walk {
    /// The block that runs next.
    pub(super) fn at(&self) -> usize {
        self.place.index
    }
}
