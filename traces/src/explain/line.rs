//! Decodes straight lines and counts pairs by class.

use std::sync::Arc;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};
use rustc_hash::FxHashMap;

use crate::perfdata::BranchEntry;
use crate::symbols::CodeBytes;

/// Straight lines remembered at most; more are decoded again.
const MAX_REMEMBERED: usize = 1 << 20;

/// What the code says about the way from one entry's TO to the next newer entry's FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PairClass {
    /// Straight on from TO, FROM is reached.
    Explained,
    /// FROM lies below TO: code does not run backwards.
    FromBelowTo,
    /// A jump, call or return that is always taken lies between: it should have been recorded.
    CrossesUnconditional,
    /// One of the two addresses is outside the file's code, the other inside.
    LeavesFile,
    /// Straight on from TO, FROM is in the middle of an instruction.
    NotABoundary,
    /// Bytes between are no instruction.
    Undecodable,
    /// Neither address is in code that is at hand.
    NoCode,
    /// An entry of the pair is empty (0 to 0).
    Empty,
}

impl PairClass {
    /// Every class, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Explained,
        Self::FromBelowTo,
        Self::CrossesUnconditional,
        Self::LeavesFile,
        Self::NotABoundary,
        Self::Undecodable,
        Self::NoCode,
        Self::Empty,
    ];

    /// A line of the table.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Explained => "explained",
            Self::FromBelowTo => "FROM below TO",
            Self::CrossesUnconditional => "crosses an unconditional branch",
            Self::LeavesFile => "leaves the file",
            Self::NotABoundary => "FROM inside an instruction",
            Self::Undecodable => "bytes that are no instruction",
            Self::NoCode => "no code at hand",
            Self::Empty => "empty entry",
        }
    }
}

/// Pairs counted by class. The classes exclude each other, so their sum is the number of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairTable {
    counts: [u64; PairClass::ALL.len()],
    /// Of the explained ones: FROM is no branch instruction, so an interrupt or exception took it.
    pub not_a_branch: u64,
    /// Of the explained ones: a system call or software interrupt lies between, whose way through
    /// the kernel was filtered out.
    pub through_system_call: u64,
}

impl PairTable {
    /// Pairs of one class.
    #[must_use]
    pub const fn count(&self, class: PairClass) -> u64 {
        self.counts[class as usize]
    }

    /// Pairs of all classes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The explained share, 0 to 1; 0 for an empty table.
    #[must_use]
    pub fn explained_share(&self) -> f64 {
        match self.total() {
            0 => 0.0,
            total => self.count(PairClass::Explained) as f64 / total as f64,
        }
    }

    fn add(&mut self, line: StraightLine) {
        self.counts[line.class as usize] += 1;
        if line.class == PairClass::Explained {
            self.not_a_branch += u64::from(!line.ends_in_branch);
            self.through_system_call += u64::from(line.system_call);
        }
    }

    /// Adds the pairs of one branch stack, newest entry first.
    pub fn add_stack(&mut self, loaded: &mut [LoadedCode], entries: &[BranchEntry]) {
        for pair in entries.windows(2) {
            self.add(classify(loaded, &pair[1], &pair[0]));
        }
    }
}

/// A straight line and what was found on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StraightLine {
    /// Its class.
    pub class: PairClass,
    /// The instruction at its end is a branch.
    pub ends_in_branch: bool,
    /// It passes a system call or software interrupt.
    pub system_call: bool,
}

impl StraightLine {
    const fn of(class: PairClass) -> Self {
        Self {
            class,
            ends_in_branch: false,
            system_call: false,
        }
    }
}

/// Code of a file where a process has it.
#[derive(Debug)]
pub struct LoadedCode {
    code: Arc<CodeBytes>,
    bias: u64,
    bitness: u32,
    remembered: FxHashMap<(u64, u64), StraightLine>,
}

impl LoadedCode {
    /// 64-bit code, `bias` above its linked addresses.
    #[must_use]
    pub fn new(code: Arc<CodeBytes>, bias: u64) -> Self {
        Self {
            code,
            bias,
            bitness: 64,
            remembered: FxHashMap::default(),
        }
    }

    /// Whether the file has code at a run-time address.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.code.at(address.wrapping_sub(self.bias)).is_some()
    }

    /// The same code in another process, or at another place.
    #[must_use]
    pub fn at_bias(&self, bias: u64) -> Self {
        Self::new(Arc::clone(&self.code), bias)
    }

    /// Where it is loaded above its linked addresses.
    #[must_use]
    pub const fn bias(&self) -> u64 {
        self.bias
    }

    /// Whether both are the same file's code.
    #[must_use]
    pub fn same_code(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.code, &other.code)
    }

    /// The straight line from `to` to `from`, both run-time addresses inside this code.
    pub fn line(&mut self, to: u64, from: u64) -> StraightLine {
        let (to, from) = (to.wrapping_sub(self.bias), from.wrapping_sub(self.bias));
        if let Some(&known) = self.remembered.get(&(to, from)) {
            return known;
        }
        let line = self.decode(to, from);
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered.insert((to, from), line);
        }
        line
    }

    fn decode(&self, to: u64, from: u64) -> StraightLine {
        if from < to {
            return StraightLine::of(PairClass::FromBelowTo);
        }
        let Some(bytes) = self.code.at(to) else {
            return StraightLine::of(PairClass::LeavesFile);
        };
        let mut decoder = Decoder::with_ip(self.bitness, bytes, to, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut system_call = false;
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                return StraightLine::of(PairClass::Undecodable);
            }
            let flow = instruction.flow_control();
            if instruction.ip() == from {
                let ends_in_branch = flow != FlowControl::Next;
                return StraightLine {
                    class: PairClass::Explained,
                    ends_in_branch,
                    system_call,
                };
            }
            if instruction.next_ip() > from {
                return StraightLine::of(PairClass::NotABoundary);
            }
            match flow {
                FlowControl::Next
                | FlowControl::ConditionalBranch
                | FlowControl::XbeginXabortXend => {}
                // The way through the kernel ends behind the instruction.
                FlowControl::Interrupt => system_call = true,
                FlowControl::Call
                    if matches!(instruction.code(), Code::Syscall | Code::Sysenter) =>
                {
                    system_call = true;
                }
                FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::Exception => {
                    return StraightLine::of(PairClass::CrossesUnconditional);
                }
            }
        }
        // The segment ends before FROM, which another one holds.
        StraightLine::of(PairClass::LeavesFile)
    }
}

/// The line from the older entry's TO to the newer one's FROM.
fn classify(loaded: &mut [LoadedCode], older: &BranchEntry, newer: &BranchEntry) -> StraightLine {
    let empty = |entry: &BranchEntry| (entry.from, entry.to) == (0, 0);
    if empty(older) || empty(newer) {
        return StraightLine::of(PairClass::Empty);
    }
    let holder = |address| loaded.iter().position(|code| code.contains(address));
    match (holder(older.to), holder(newer.from)) {
        (Some(a), Some(b)) if a == b => loaded[a].line(older.to, newer.from),
        (None, None) => StraightLine::of(PairClass::NoCode),
        _ => StraightLine::of(PairClass::LeavesFile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nop; je +0; nop; jmp +0; nop; syscall; ret` at 0x1000.
    fn code() -> LoadedCode {
        let bytes = vec![
            0x90, 0x74, 0x00, 0x90, 0xeb, 0x00, 0x90, 0x0f, 0x05, 0xc3, 0x06,
        ];
        LoadedCode::new(Arc::new(CodeBytes::new(0x1000, bytes)), 0x7000_0000)
    }

    fn class(to: u64, from: u64) -> StraightLine {
        code().line(0x7000_0000 + to, 0x7000_0000 + from)
    }

    #[test]
    fn a_conditional_branch_on_the_way_is_one_that_was_not_taken() {
        let line = class(0x1000, 0x1004);
        assert_eq!(line.class, PairClass::Explained);
        assert!(line.ends_in_branch);
    }

    #[test]
    fn an_unconditional_branch_on_the_way_should_have_been_recorded() {
        assert_eq!(class(0x1000, 0x1006).class, PairClass::CrossesUnconditional);
    }

    #[test]
    fn a_system_call_on_the_way_is_passed_and_counted() {
        let line = class(0x1006, 0x1009);
        assert_eq!((line.class, line.system_call), (PairClass::Explained, true));
    }

    #[test]
    fn from_must_be_the_start_of_an_instruction() {
        assert_eq!(class(0x1000, 0x1002).class, PairClass::NotABoundary);
    }

    #[test]
    fn from_below_to_comes_before_any_decoding() {
        assert_eq!(class(0x1004, 0x1000).class, PairClass::FromBelowTo);
    }

    #[test]
    fn bytes_that_are_no_instruction_are_a_class_of_their_own() {
        let bytes = vec![0x06, 0x90];
        let mut code = LoadedCode::new(Arc::new(CodeBytes::new(0, bytes)), 0);
        assert_eq!(code.line(0, 1).class, PairClass::Undecodable);
    }

    #[test]
    fn an_interrupt_has_its_from_at_any_instruction() {
        let line = class(0x1000, 0x1003);
        assert_eq!(
            (line.class, line.ends_in_branch),
            (PairClass::Explained, false)
        );
    }

    #[test]
    fn every_pair_falls_in_exactly_one_class() {
        let entry = |from, to| BranchEntry {
            from,
            to,
            ..BranchEntry::default()
        };
        let b = 0x7000_0000;
        let stack = [
            entry(b + 0x1004, b + 0x1006),
            entry(0, 0),
            entry(b + 0x1009, 0xffff_ffff_8000_0000),
            entry(b + 0x1004, b + 0x1006),
            entry(0x10, 0x20),
            entry(0x30, 0x40),
        ];
        let mut table = PairTable::default();
        table.add_stack(&mut [code()], &stack);
        assert_eq!(table.total(), 5);
        assert_eq!(table.count(PairClass::Empty), 2);
        assert_eq!(table.count(PairClass::Explained), 1);
        assert_eq!(table.count(PairClass::LeavesFile), 1);
        assert_eq!(table.count(PairClass::NoCode), 1);
    }
}
