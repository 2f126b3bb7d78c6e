//! The code between two records, run again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use crate::lower::{LowerError, MAX_INSTRUCTIONS};
use crate::microarchitecture::Microarchitecture;
use crate::scoreboard::{Leave, Program, Programmer, Scoreboard};
use crate::windows::stack::Stack;

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

/// Runs windows of records on a core. Keeps what it decoded.
#[derive(Debug)]
pub struct Windows<'a> {
    core: &'a Microarchitecture,
    image: CodeImage<'a>,
    programs: HashMap<(u64, u64), Program>,
}

impl<'a> Windows<'a> {
    /// For records of the code `image`.
    #[must_use]
    pub fn new(core: &'a Microarchitecture, image: CodeImage<'a>) -> Self {
        Self {
            core,
            image,
            programs: HashMap::new(),
        }
    }

    /// The cycle field of every entry of `stack` but the first, which nothing is known before:
    /// that of entry 1 comes first. Recorded mispredictions are the only ones. An entry that
    /// repeats the one before it, as Skylake writes them now and then, has none.
    ///
    /// # Errors
    /// Records between which there is no way.
    pub fn run(&mut self, stack: &Stack) -> Result<Vec<Option<u32>>, WindowError> {
        let mut board = Scoreboard::new(self.core);
        let mut cycles = Vec::new();
        let mut before = 0;
        for pair in stack.entries.windows(2) {
            let (from, to) = (pair[0].to, pair[1].from);
            let repeated = (pair[0].from, from) == (to, pair[1].to);
            if repeated && program(self.core, &self.image, from, to).is_err() {
                cycles.push(None);
                continue;
            }
            let program = match self.programs.entry((from, to)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(program(self.core, &self.image, from, to)?),
            };
            let time = board.retire(program, program.len(), Leave::Taken);
            if pair[1].mispredicted {
                board.mispredicted(time);
            }
            cycles.push(Some((time.retired - before).min(u64::from(u16::MAX)) as u32));
            before = time.retired;
        }
        Ok(cycles)
    }
}

/// The instructions from `from` to the one at `to`.
fn program(
    core: &Microarchitecture,
    image: &CodeImage<'_>,
    from: u64,
    to: u64,
) -> Result<Program, WindowError> {
    let start = from
        .checked_sub(image.address)
        .and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < image.bytes.len())
        .ok_or(WindowError::Outside(from))?;
    let code = &image.bytes[start..];
    let mut decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
    for _ in 0..MAX_INSTRUCTIONS {
        if !decoder.can_decode() {
            break;
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() || instruction.ip() > to {
            break;
        }
        if instruction.ip() == to {
            let code = &code[..decoder.position()];
            return Ok(Programmer::new(core).program(code, from, 64)?);
        }
        let goes_on = [FlowControl::Next, FlowControl::ConditionalBranch];
        if !goes_on.contains(&instruction.flow_control()) {
            break;
        }
    }
    Err(WindowError::NoWay { from, to })
}
