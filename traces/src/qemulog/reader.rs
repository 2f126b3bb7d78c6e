//! From lines to executed blocks.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read};

use iced_x86::{Decoder, DecoderOptions};
use rustc_hash::FxHashMap;
use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::classify;

use super::lines::{Line, TraceLine, append_bytes, parse};
use crate::assemble::{RawBlock, RawBlocks, RawTable, RecordedMode};

/// Longest line read.
const MAX_LINE: u64 = 1 << 20;
/// Longest block, in bytes: QEMU's limit of 512 instructions.
const MAX_BYTES: usize = 512 * 15;
/// Instructions of a block that is taken from a file.
const MAX_FROM_FILE: usize = 512;
/// Listings that wait for their first execution.
const MAX_WAITING: usize = 256;

const HF_CPL: u32 = 3;
const HF_CS32: u32 = 1 << 4;
const HF_CS64: u32 = 1 << 15;

/// What is wrong with a log, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LogError {
    /// Line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: LogProblem,
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogProblem {
    /// It cannot be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// A line above 1 MiB.
    #[error("the line is longer than {MAX_LINE} bytes")]
    LongLine,
    /// A line that begins as one of an execution, but is none.
    #[error("malformed line")]
    Malformed,
    /// A listing that is no code.
    #[error("malformed listing")]
    MalformedListing,
    /// A block whose bytes are not known.
    #[error(
        "no code for the block at {address:#x}: log with -d exec,nochain,in_asm, or name the ELF file"
    )]
    NoCode {
        /// Its linear address.
        address: u64,
    },
    /// Blocks were chained.
    #[error("blocks were chained, so executions are missing: log with -d exec,nochain")]
    Chained,
    /// No block at all.
    #[error("no executed block in the log: log with -d exec,nochain,in_asm")]
    Empty,
    /// More than 2^32 blocks.
    #[error("too many blocks")]
    TooManyBlocks,
}

/// Code for blocks without listing.
pub trait LogCode {
    /// Bytes from linear address `address` on, as many as are known; empty if none.
    fn code(&self, address: u64) -> &[u8];
}

/// No code but the listings.
impl LogCode for () {
    fn code(&self, _: u64) -> &[u8] {
        &[]
    }
}

/// A block that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Number of the vCPU, or of the thread under user emulation.
    pub cpu: u32,
    /// Id of the block in [`LogReader::blocks`].
    pub block: u32,
    /// Privilege level it ran at.
    pub cpl: Cpl,
}

#[derive(Debug, Default)]
struct Listing {
    address: Option<u64>,
    bytes: Vec<u8>,
    /// Offsets at which instructions begin, by the listing.
    begins: Vec<usize>,
}

/// What makes a block: translations of the same code share one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    cs_base: u64,
    pc: u64,
    flags: u32,
    bytes: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    host: u64,
    executed: Executed,
}

/// Reads a log as a stream of executed blocks.
#[derive(Debug)]
pub struct LogReader<R, C = ()> {
    input: R,
    code: C,
    line: u64,
    buffer: Vec<u8>,
    table: RawTable,
    /// By translation: its host address, block address and flags.
    known: FxHashMap<(u64, u64, u32), u32>,
    by_content: FxHashMap<Content, u32>,
    listing: Option<Listing>,
    /// Listings whose block was not executed yet, oldest first.
    waiting: VecDeque<(u64, Listing)>,
    /// The last line of each vCPU, which the next one may take back.
    pending: BTreeMap<u32, Pending>,
    any: bool,
    ended: bool,
}

impl<R: BufRead> LogReader<R> {
    /// Reads `input`, whose listings hold all code.
    pub fn new(input: R) -> Self {
        Self::with_code(input, ())
    }
}

impl<R: BufRead, C: LogCode> LogReader<R, C> {
    /// Reads `input`; code without listing comes from `code`.
    pub fn with_code(input: R, code: C) -> Self {
        Self {
            input,
            code,
            line: 0,
            buffer: Vec::new(),
            table: RawTable::new(),
            known: FxHashMap::default(),
            by_content: FxHashMap::default(),
            listing: None,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            any: false,
            ended: false,
        }
    }

    /// The blocks so far.
    pub fn blocks(&self) -> &RawTable {
        &self.table
    }

    fn error(&self, problem: impl Into<LogProblem>) -> LogError {
        LogError {
            line: self.line,
            problem: problem.into(),
        }
    }

    /// The next executed block; `None` at the end.
    ///
    /// # Errors
    /// See [`LogProblem`].
    pub fn next_executed(&mut self) -> Result<Option<Executed>, LogError> {
        while !self.ended {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let read = (&mut self.input)
                .take(MAX_LINE + 1)
                .read_until(b'\n', &mut buffer);
            self.line += 1;
            let read = read.map_err(|e| self.error(e))?;
            if read as u64 > MAX_LINE {
                return Err(self.error(LogProblem::LongLine));
            }
            let executed = if read == 0 {
                self.ended = true;
                None
            } else {
                self.line(&String::from_utf8_lossy(&buffer))?
            };
            self.buffer = buffer;
            if executed.is_some() {
                return Ok(executed);
            }
        }
        if !self.any {
            return Err(self.error(LogProblem::Empty));
        }
        Ok(self
            .pending
            .pop_first()
            .map(|(_, pending)| pending.executed))
    }

    fn line(&mut self, line: &str) -> Result<Option<Executed>, LogError> {
        let line = line.trim_end_matches(['\n', '\r']);
        match parse(line).ok_or_else(|| self.error(LogProblem::Malformed))? {
            Line::Trace(trace) => {
                self.end_listing()?;
                let block = self.block(&trace)?;
                self.any = true;
                let executed = Executed {
                    cpu: trace.cpu,
                    block,
                    cpl: cpl(trace.flags),
                };
                let pending = Pending {
                    host: trace.host,
                    executed,
                };
                let before = self.pending.insert(trace.cpu, pending);
                return Ok(before.map(|pending| pending.executed));
            }
            Line::Stopped(host) => {
                let mut pending = self.pending.iter();
                let stopped = pending.find(|(_, pending)| pending.host == host);
                if let Some((&cpu, _)) = stopped {
                    self.pending.remove(&cpu);
                }
            }
            Line::Linking => return Err(self.error(LogProblem::Chained)),
            Line::Listing => {
                self.end_listing()?;
                self.listing = Some(Listing::default());
            }
            Line::Code {
                address,
                bytes,
                begins,
            } => {
                if let Some(listing) = &mut self.listing {
                    let start = *listing.address.get_or_insert(address);
                    let offset = listing.bytes.len();
                    if begins {
                        listing.begins.push(offset);
                    }
                    if address.wrapping_sub(start) != offset as u64
                        || !append_bytes(bytes, &mut listing.bytes)
                        || listing.bytes.len() > MAX_BYTES
                    {
                        return Err(self.error(LogProblem::MalformedListing));
                    }
                }
            }
            Line::Object(bytes) => {
                if let Some(listing) = &mut self.listing
                    && (!append_bytes(bytes, &mut listing.bytes) || listing.bytes.len() > MAX_BYTES)
                {
                    return Err(self.error(LogProblem::MalformedListing));
                }
            }
            Line::Blank => self.end_listing()?,
            Line::Other => {}
        }
        Ok(None)
    }

    fn end_listing(&mut self) -> Result<(), LogError> {
        let Some(listing) = self.listing.take() else {
            return Ok(());
        };
        if listing.bytes.is_empty() {
            return Ok(());
        }
        // Without disassembler QEMU prints no address: the next block is meant.
        let address = listing.address.unwrap_or(u64::MAX);
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((address, listing));
        Ok(())
    }

    fn block(&mut self, trace: &TraceLine) -> Result<u32, LogError> {
        let translation = (trace.host, trace.pc, trace.flags);
        let fresh = self
            .waiting
            .iter()
            .rposition(|(address, _)| *address == trace.pc || *address == u64::MAX);
        if let Some(fresh) = fresh
            && let Some((_, listing)) = self.waiting.remove(fresh)
        {
            let lengths = lengths(&listing.bytes, trace, &listing.begins)
                .ok_or_else(|| self.error(LogProblem::MalformedListing))?;
            return self.define(translation, trace, &listing.bytes, &lengths);
        }
        if let Some(&known) = self.known.get(&translation) {
            return Ok(known);
        }
        let bytes = self.code.code(trace.pc);
        let (length, lengths) = to_branch(bytes, trace);
        if lengths.is_empty() {
            return Err(self.error(LogProblem::NoCode { address: trace.pc }));
        }
        let bytes: Box<[u8]> = bytes[..length].into();
        self.define(translation, trace, &bytes, &lengths)
    }

    fn define(
        &mut self,
        translation: (u64, u64, u32),
        trace: &TraceLine,
        bytes: &[u8],
        lengths: &[u8],
    ) -> Result<u32, LogError> {
        let content = Content {
            cs_base: trace.cs_base,
            pc: trace.pc,
            flags: trace.flags,
            bytes: bytes.into(),
        };
        let id = match self.by_content.get(&content) {
            Some(&id) => id,
            None => {
                let added = self.table.add(RawBlock {
                    start: trace.pc,
                    lengths,
                    bytes,
                    mode: Some(mode(trace)),
                });
                let id = added.ok_or_else(|| self.error(LogProblem::TooManyBlocks))?;
                self.by_content.insert(content, id);
                id
            }
        };
        self.known.insert(translation, id);
        Ok(id)
    }
}

fn cpl(flags: u32) -> Cpl {
    match flags & HF_CPL {
        0 => Cpl::Ring0,
        1 => Cpl::Ring1,
        2 => Cpl::Ring2,
        _ => Cpl::Ring3,
    }
}

fn code_size(flags: u32) -> CodeSize {
    if flags & HF_CS64 != 0 {
        CodeSize::Bits64
    } else if flags & HF_CS32 != 0 {
        CodeSize::Bits32
    } else {
        CodeSize::Bits16
    }
}

fn mode(trace: &TraceLine) -> RecordedMode {
    RecordedMode {
        cpl: cpl(trace.flags),
        code_size: Some(code_size(trace.flags)),
        cs_base: Some(trace.cs_base),
        space: None,
    }
}

fn decoder<'a>(bytes: &'a [u8], trace: &TraceLine) -> Decoder<'a> {
    let bits = code_size(trace.flags).bits();
    Decoder::with_ip(
        bits,
        bytes,
        trace.pc.wrapping_sub(trace.cs_base),
        DecoderOptions::NONE,
    )
}

/// Instruction lengths of a listing: as they decode, else as the listing has its lines.
fn lengths(bytes: &[u8], trace: &TraceLine, begins: &[usize]) -> Option<Vec<u8>> {
    let mut decoder = decoder(bytes, trace);
    let mut lengths = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return by_lines(bytes, begins);
        }
        lengths.push(instruction.len() as u8);
    }
    Some(lengths)
}

fn by_lines(bytes: &[u8], begins: &[usize]) -> Option<Vec<u8>> {
    if begins.first() != Some(&0) {
        return None;
    }
    let length = bytes.len();
    let ends = begins.iter().skip(1).chain(std::iter::once(&length));
    begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| u8::try_from(end - begin).ok().filter(|&length| length > 0))
        .collect()
}

/// Instruction lengths up to the next branch or REP string instruction, and their sum.
fn to_branch(bytes: &[u8], trace: &TraceLine) -> (usize, Vec<u8>) {
    let mut decoder = decoder(bytes, trace);
    let mut lengths = Vec::new();
    let mut sum = 0;
    while decoder.can_decode() && lengths.len() < MAX_FROM_FILE {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            break;
        }
        lengths.push(instruction.len() as u8);
        sum += instruction.len();
        let repeats = instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
        if repeats || classify(&instruction).is_some() {
            break;
        }
    }
    (sum, lengths)
}

impl<R, C> RawBlocks for LogReader<R, C> {
    fn raw(&self, id: u32) -> Option<RawBlock<'_>> {
        self.table.raw(id)
    }
}
