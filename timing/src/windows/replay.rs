//! The code between two records, run again.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use crate::lower::{LowerError, MAX_INSTRUCTIONS};
use crate::microarchitecture::Microarchitecture;
use crate::predict::{Branch, BranchKind};
use crate::scoreboard::{Leave, Program, Programmer, Scoreboard};
use crate::windows::stack::Stack;
use crate::windows::unrecorded::Unrecorded;

/// Code by address.
#[derive(Clone, Copy, Debug)]
pub struct CodeImage<'a> {
    /// Address of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Why a stack cannot run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// An address outside the code.
    #[error("{0:#x} is not in the code")]
    Outside(u64),
    /// No way from one record to the next.
    #[error("no way without a taken branch from {from:#x} to {to:#x}")]
    NoWay {
        /// Where a branch went to.
        from: u64,
        /// The branch of the next record.
        to: u64,
    },
    /// The code is not known to the model.
    #[error(transparent)]
    Lower(#[from] LowerError),
}

/// Who says which branches had been mispredicted.
#[derive(Debug)]
pub enum Mispredictions {
    /// The recorded bits; branches that were not taken have none and were foreseen.
    Recorded,
    /// The recorded bits, and a predictor where there are none.
    Unrecorded(Box<Unrecorded>),
}

impl Mispredictions {
    fn begin(&mut self) {
        if let Self::Unrecorded(predictor) = self {
            predictor.begin();
        }
    }

    fn of(&mut self, branch: &Branch, recorded: Option<bool>) -> bool {
        match self {
            Self::Recorded => recorded.unwrap_or_default(),
            Self::Unrecorded(predictor) => predictor.mispredicted(branch, recorded),
        }
    }
}

/// Instructions up to a branch.
#[derive(Debug)]
struct Part {
    program: Program,
    branch: Branch,
}

/// Runs windows of records on a core. Keeps what it decoded.
#[derive(Debug)]
pub struct Windows<'a> {
    core: &'a Microarchitecture,
    image: CodeImage<'a>,
    ways: HashMap<(u64, u64), Vec<Part>>,
    board: Scoreboard,
}

/// Cycles between two stacks, enough for everything to have retired.
const BETWEEN: u64 = 10_000;

impl<'a> Windows<'a> {
    /// For records of the code `image`.
    #[must_use]
    pub fn new(core: &'a Microarchitecture, image: CodeImage<'a>) -> Self {
        Self {
            core,
            image,
            ways: HashMap::new(),
            board: Scoreboard::new(core),
        }
    }

    /// The cycle field of every entry of `stack` but the first, which nothing is known before:
    /// that of entry 1 comes first. An entry that repeats the one before it, as Skylake writes
    /// them now and then, has none.
    ///
    /// # Errors
    /// Records between which there is no way.
    pub fn run(
        &mut self,
        stack: &Stack,
        mispredictions: &mut Mispredictions,
    ) -> Result<Vec<Option<u32>>, WindowError> {
        mispredictions.begin();
        let board = &mut self.board;
        // Uop cache and memory are those of a program that has run before.
        board.pass(board.now() + BETWEEN);
        let mut cycles = Vec::new();
        let mut before = board.now();
        for pair in stack.entries.windows(2) {
            let (from, to) = (pair[0].to, pair[1].from);
            let repeated = (pair[0].from, from) == (to, pair[1].to);
            if repeated && way(self.core, &self.image, from, to).is_err() {
                cycles.push(None);
                continue;
            }
            let parts = match self.ways.entry((from, to)) {
                Occupied(known) => known.into_mut(),
                Vacant(place) => place.insert(way(self.core, &self.image, from, to)?),
            };
            for part in parts {
                let taken = part.branch.taken;
                let leave = if taken {
                    Leave::Taken
                } else {
                    Leave::Sequential
                };
                let time = board.retire(&part.program, part.program.len(), leave);
                let branch = Branch {
                    target: if taken {
                        pair[1].to
                    } else {
                        part.branch.target
                    },
                    ..part.branch
                };
                if mispredictions.of(&branch, taken.then_some(pair[1].mispredicted)) {
                    board.mispredicted(time);
                }
                if taken {
                    let passed = (time.retired - before).min(u64::from(u16::MAX));
                    cycles.push(Some(passed as u32));
                    before = time.retired;
                }
            }
        }
        Ok(cycles)
    }
}

/// The instructions from `from` to the branch at `to`, cut behind each branch.
fn way(
    core: &Microarchitecture,
    image: &CodeImage<'_>,
    from: u64,
    to: u64,
) -> Result<Vec<Part>, WindowError> {
    let start = from
        .checked_sub(image.address)
        .and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < image.bytes.len())
        .ok_or(WindowError::Outside(from))?;
    let code = &image.bytes[start..];
    let mut decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
    let mut programmer = Programmer::new(core);
    let mut parts = Vec::new();
    let mut begin = 0;
    for _ in 0..MAX_INSTRUCTIONS {
        if !decoder.can_decode() {
            break;
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() || instruction.ip() > to {
            break;
        }
        let last = instruction.ip() == to;
        let own = &code[begin..decoder.position()];
        if last || instruction.flow_control() == FlowControl::ConditionalBranch {
            parts.push(Part {
                program: programmer.program(own, from + begin as u64, 64)?,
                branch: Branch {
                    address: instruction.ip(),
                    fallthrough: instruction.next_ip(),
                    kind: kind(&instruction).ok_or(WindowError::NoWay { from, to })?,
                    taken: last,
                    target: instruction.near_branch_target(),
                },
            });
            begin = decoder.position();
        }
        if last {
            return Ok(parts);
        }
        let goes_on = [FlowControl::Next, FlowControl::ConditionalBranch];
        if !goes_on.contains(&instruction.flow_control()) {
            break;
        }
    }
    Err(WindowError::NoWay { from, to })
}

/// The class of a near branch.
fn kind(instruction: &Instruction) -> Option<BranchKind> {
    BranchKind::of(vlbr_cpu::classify(instruction)?.class)
}
