//! What a trace measures in the terms of a spec.

use std::collections::BTreeMap;

use vlbr_arch::{BranchClass, FarKind};
use vlbr_cpu::{Code, Exit, ExitInstruction, ExitSites, StepId};

use super::check::MAX_LEVELS;
use super::sites::{Site, Sites};
use crate::vlt::{ChunkBuffer, Trace, VltError};

/// Frames kept of a call stack.
const MAX_FRAMES: usize = 1 << 16;
/// Frames looked through for the one that a return belongs to.
const LOOK_BACK: usize = 256;
/// Depths that are told apart.
const DEPTHS: usize = MAX_LEVELS + 64;

/// What one ring's code measures.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Instructions.
    pub instructions: u64,
    /// Near branches, taken or not.
    pub branches: u64,
    /// Conditional branches.
    pub conditional: u64,
    /// JMP rel.
    pub jump: u64,
    /// JMP r/m.
    pub indirect_jump: u64,
    /// CALL rel, but for those to the next instruction.
    pub call: u64,
    /// CALL r/m.
    pub indirect_call: u64,
    /// CALL rel to the next instruction.
    pub zero_call: u64,
    /// RET.
    pub returns: u64,
    /// Near branches at their sites.
    pub(super) sites: Vec<Site>,
    /// Calls by the depth they lead to, from 1; index 0 stays 0. Calls of a function to itself not
    /// counted.
    pub(super) depths: Vec<u64>,
    /// Calls of a function to itself.
    pub recursive: u64,
    /// Recursions that these belong to.
    pub recursions: u64,
    /// Addresses that are called.
    pub functions: u64,
}

/// What a trace measures.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Instructions.
    pub instructions: u64,
    /// Threads that ran any.
    pub threads: u32,
    /// Code at CPL 3 and above 0.
    pub user: Ring,
    /// Code at CPL 0.
    pub kernel: Ring,
    /// System calls: SYSCALL, SYSENTER and software interrupts.
    pub syscalls: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Exceptions.
    pub exceptions: u64,
    /// Other far transfers, returns from the above not counted.
    pub other_far: u64,
    /// Instructions that can cause VM exits, by kind and whether they ran at CPL 0.
    pub exits: BTreeMap<(ExitInstruction, bool), u64>,
}

/// What a step does to a call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Nothing,
    Call,
    Return,
    /// Into a handler.
    Enter,
    /// IRET, SYSRET and their kind.
    Leave,
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Call {
        back: u64,
        entry: u64,
        again: bool,
    },
    /// What a handler goes back to, and the depth there.
    Handler {
        back: u64,
        depth: usize,
    },
}

/// The call stack of a thread.
#[derive(Clone, Debug, Default)]
struct Stack {
    frames: Vec<Frame>,
    depth: usize,
}

/// Measures steps as they come.
#[derive(Debug)]
pub struct Measure {
    /// How often each step ran, and what it does to a stack.
    counts: Vec<u64>,
    moves: Vec<Move>,
    stacks: Vec<Stack>,
    ran: Vec<bool>,
    depths: [Vec<u64>; 2],
    recursive: [u64; 2],
    recursions: [u64; 2],
    measured: Measured,
    sites: [Sites; 2],
    exits: ExitSites,
}

impl Measure {
    /// Of this many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            counts: Vec::new(),
            moves: Vec::new(),
            stacks: vec![Stack::default(); threads],
            ran: vec![false; threads],
            depths: [vec![0; DEPTHS], vec![0; DEPTHS]],
            recursive: [0; 2],
            recursions: [0; 2],
            measured: Measured::default(),
            sites: [Sites::default(), Sites::default()],
            exits: ExitSites::default(),
        }
    }

    /// Adds steps of a thread, in their order; `code` must be the same table each time, grown only.
    pub fn add(&mut self, thread: usize, code: &Code, steps: impl Iterator<Item = StepId>) {
        self.counts.resize(code.steps().len(), 0);
        for step in self.moves.len()..code.steps().len() {
            self.moves.push(moves(code, StepId(step as u32)));
        }
        for step in steps {
            self.counts[step.0 as usize] += 1;
            let what = self.moves[step.0 as usize];
            if what != Move::Nothing {
                self.follow(thread, code, step, what);
            }
            self.ran[thread] = true;
        }
        self.summarise(code);
    }

    fn follow(&mut self, thread: usize, code: &Code, step: StepId, what: Move) {
        let Some(transfer) = code.transfer(step) else {
            return;
        };
        let stack = &mut self.stacks[thread];
        let ring = usize::from(code.is_user(step));
        match what {
            Move::Nothing => {}
            Move::Call => {
                let top = stack.frames.last().copied();
                let again = matches!(top, Some(Frame::Call { entry, .. }) if entry == transfer.to);
                if again {
                    self.recursive[ring] += 1;
                    let first = matches!(top, Some(Frame::Call { again: false, .. }));
                    self.recursions[ring] += u64::from(first);
                } else {
                    stack.depth += 1;
                    self.depths[ring][stack.depth.min(DEPTHS - 1)] += 1;
                }
                stack.push(Frame::Call {
                    back: code.block_of(step).end(),
                    entry: transfer.to,
                    again,
                });
            }
            Move::Return => stack.return_to(transfer.to),
            Move::Enter => {
                let depth = std::mem::take(&mut stack.depth);
                let back = match code.step(step).exit {
                    Exit::Event { .. } => transfer.from,
                    _ => code.block_of(step).end(),
                };
                stack.push(Frame::Handler { back, depth });
            }
            Move::Leave => stack.leave(transfer.to, transfer.cpl_after.is_kernel()),
        }
    }

    /// Adds what was counted to the sums.
    fn summarise(&mut self, code: &Code) {
        self.exits.update(code);
        for (number, count) in self.counts.iter_mut().enumerate() {
            let count = std::mem::take(count);
            if count == 0 {
                continue;
            }
            let id = StepId(number as u32);
            let step = code.step(id);
            let user = code.is_user(id);
            let measured = &mut self.measured;
            measured.instructions += count * u64::from(step.retired);
            let ring = if user {
                &mut measured.user
            } else {
                &mut measured.kernel
            };
            ring.instructions += count * u64::from(step.retired);
            if code.retires_branch(id) {
                self.sites[usize::from(user)].add(code, id, count, ring);
            }
            if let Some(transfer) = code.transfer(id) {
                let far = match transfer.class {
                    BranchClass::Far(kind) => Some(kind),
                    _ => None,
                };
                match far {
                    Some(FarKind::Interrupt) => measured.interrupts += count,
                    Some(FarKind::Exception) => measured.exceptions += count,
                    Some(FarKind::Syscall | FarKind::Sysenter | FarKind::SoftwareInterrupt) => {
                        measured.syscalls += count
                    }
                    None | Some(FarKind::Iret | FarKind::Sysret | FarKind::Sysexit) => {}
                    Some(_) => measured.other_far += count,
                }
            }
            for site in self.exits.of(step.block) {
                if site.index < step.retired {
                    *measured.exits.entry((site.instruction, !user)).or_default() += count;
                }
            }
        }
    }

    /// The result.
    #[must_use]
    pub fn finish(self) -> Measured {
        let mut measured = self.measured;
        measured.threads = self.ran.iter().filter(|&&ran| ran).count() as u32;
        let [kernel, user] = self.sites;
        let [kernel_depths, user_depths] = self.depths;
        for (ring, sites, depths, index) in [
            (&mut measured.kernel, kernel, kernel_depths, 0),
            (&mut measured.user, user, user_depths, 1),
        ] {
            ring.functions = sites.functions();
            ring.sites = sites.finish();
            ring.depths = depths;
            ring.recursive = self.recursive[index];
            ring.recursions = self.recursions[index];
        }
        measured
    }
}

impl Stack {
    fn push(&mut self, frame: Frame) {
        if self.frames.len() == MAX_FRAMES {
            *self = Self::default();
        }
        self.frames.push(frame);
    }

    /// Takes off the frame that a return to `to` belongs to. One that belongs to none, as after a
    /// switch of tasks, leaves nothing known of the stack since the last handler.
    fn return_to(&mut self, to: u64) {
        let frames = self.frames.iter().rev().take(LOOK_BACK);
        let calls = frames.take_while(|frame| matches!(frame, Frame::Call { .. }));
        let mut keep = None;
        for (above, frame) in calls.enumerate() {
            if matches!(frame, Frame::Call { back, .. } if *back == to) {
                keep = Some(self.frames.len() - above - 1);
                break;
            }
        }
        let keep = keep.unwrap_or_else(|| {
            let is_handler = |frame: &Frame| matches!(frame, Frame::Handler { .. });
            self.frames
                .iter()
                .rposition(is_handler)
                .map_or(0, |at| at + 1)
        });
        for frame in self.frames.drain(keep..) {
            if let Frame::Call { again: false, .. } = frame {
                self.depth = self.depth.saturating_sub(1);
            }
        }
    }

    /// Goes back to what a handler had interrupted. An IRET within the kernel to elsewhere is a jump.
    fn leave(&mut self, to: u64, kernel: bool) {
        let handler = self
            .frames
            .iter()
            .rposition(|frame| matches!(frame, Frame::Handler { back, .. } if *back == to));
        match handler {
            Some(at) => {
                if let Frame::Handler { depth, .. } = self.frames[at] {
                    self.depth = depth;
                }
                self.frames.truncate(at);
            }
            None if !kernel => *self = Self::default(),
            None => {}
        }
    }
}

fn moves(code: &Code, step: StepId) -> Move {
    let Some(transfer) = code.transfer(step) else {
        return Move::Nothing;
    };
    match transfer.class {
        BranchClass::NearRelCall | BranchClass::NearIndCall => Move::Call,
        BranchClass::NearRet => Move::Return,
        BranchClass::Far(kind) => match kind {
            FarKind::Syscall
            | FarKind::Sysenter
            | FarKind::SoftwareInterrupt
            | FarKind::Interrupt
            | FarKind::Exception => Move::Enter,
            FarKind::Iret | FarKind::Sysret | FarKind::Sysexit => Move::Leave,
            _ => Move::Nothing,
        },
        _ => Move::Nothing,
    }
}

/// What a recorded trace measures. `progress` is told the instructions done.
///
/// # Errors
/// The trace is damaged.
pub fn measure(trace: &Trace, progress: &mut dyn FnMut(u64)) -> Result<Measured, VltError> {
    let mut measure = Measure::new(trace.threads().len());
    let mut buffer = ChunkBuffer::new();
    let mut done = 0;
    for (index, info) in trace.chunks().iter().enumerate() {
        let chunk = trace.decode(index, &mut buffer)?;
        measure.add(info.thread.0 as usize, trace.code(), chunk.steps());
        done += info.counts.instructions.total();
        progress(done);
    }
    Ok(measure.finish())
}
