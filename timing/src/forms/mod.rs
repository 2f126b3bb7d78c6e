//! What each instruction form costs, as data.
//!
//! A form is an iced-x86 `Code` with or without a memory operand. A table is text, one form or
//! pattern per line, later lines over earlier ones:
//!
//! ```text
//! Add_rm64_r64 r 0156 1
//! Shl_rm*_CL * 3*06 2 i0=-1
//! Set*_rm8 r = = complex
//! ```
//!
//! That is: code (`*` stands for any characters), `r`, `m` or `*` for the operands, execution
//! ports, latency, then settings; `=` keeps the ports or the latency of an earlier line. Loads and stores are no
//! part of it: they follow from the memory operands.
//!
//! Settings: `slots`, `divider` and `floor` with a number as in [`Form`]; `complex`, `destination` and
//! `approximate`; `i` and `o` with the letter of an operand, for what the latency from a source or to a destination
//! is more: `0` to `3`, `x` another register, `h` RDX as the high half of a product, `f` flags.

mod evex;
mod lazy;

use std::sync::OnceLock;

use iced_x86::Code;
use rustc_hash::FxHashMap;
use thiserror::Error;

pub use lazy::LazyTable;
pub(crate) use lazy::TableTexts;

use crate::ports::{PortSet, PortUse, UopError};

/// Number of iced-x86 codes.
fn codes() -> &'static [(String, Code)] {
    static CODES: OnceLock<Vec<(String, Code)>> = OnceLock::new();
    CODES.get_or_init(|| Code::values().map(|c| (format!("{c:?}"), c)).collect())
}

fn code_named(name: &str) -> Option<Code> {
    static INDEX: OnceLock<FxHashMap<&'static str, Code>> = OnceLock::new();
    INDEX
        .get_or_init(|| codes().iter().map(|(n, c)| (n.as_str(), *c)).collect())
        .get(name)
        .copied()
}

/// Which of an instruction's values a latency offset is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Explicit operand 0 to 3.
    Operand(u8),
    /// A register that is no explicit operand.
    Implicit,
    /// RDX as such a register, if written: the high half of a product.
    High,
    /// The carry flag and the others.
    Flags,
}

impl Role {
    const COUNT: usize = 7;

    fn index(self) -> usize {
        match self {
            Self::Operand(n) => usize::from(n.min(3)),
            Self::Implicit => 4,
            Self::Flags => 5,
            Self::High => 6,
        }
    }

    fn parse(letter: char) -> Option<Self> {
        Some(match letter {
            '0'..='3' => Self::Operand(letter as u8 - b'0'),
            'x' => Self::Implicit,
            'f' => Self::Flags,
            'h' => Self::High,
            _ => return None,
        })
    }

    fn letter(index: usize) -> char {
        ['0', '1', '2', '3', 'x', 'f', 'h'][index]
    }
}

/// What one form costs beside its loads and stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// Micro-operations by the ports that can execute them.
    pub uops: PortUse,
    /// Latency from a source register to a destination, in cycles.
    pub latency: f32,
    /// Issue slots of these micro-operations.
    pub slots: u16,
    /// Cycles the divider is occupied.
    pub divider: f32,
    /// Cycles the form takes at least, whatever stands around it: microcode that serializes.
    pub floor: f32,
    /// Needs the first decoder although it is one micro-operation, and leaves so many of the
    /// others to the instructions behind it.
    pub complex: Option<u8>,
    /// Waits for its destination although it does not use it.
    pub reads_destination: bool,
    /// The costs stand for ones that are not known.
    pub approximate: bool,
    /// Added to the latency by source.
    input: [f32; Role::COUNT],
    /// Added to the latency by destination.
    output: [f32; Role::COUNT],
}

impl Form {
    /// A form of `uops` with one latency for all pairs of operands.
    #[must_use]
    pub fn new(uops: PortUse, latency: f32) -> Self {
        Self {
            slots: uops.total(),
            uops,
            latency,
            divider: 0.0,
            floor: 0.0,
            complex: None,
            reads_destination: false,
            approximate: false,
            input: [0.0; Role::COUNT],
            output: [0.0; Role::COUNT],
        }
    }

    /// Latency from `source` to the point from which outputs count.
    #[must_use]
    pub fn from(&self, source: Role) -> f32 {
        self.latency + self.input[source.index()]
    }

    /// Latency from that point to `destination`.
    #[must_use]
    pub fn to(&self, destination: Role) -> f32 {
        self.output[destination.index()]
    }

    /// The latency of the fastest pair of source and destination.
    pub(crate) fn shortest(&self) -> f32 {
        let least = |offsets: &[f32]| offsets.iter().copied().fold(0.0, f32::min);
        self.latency + least(&self.input) + least(&self.output)
    }

    /// The latency below which that from some source would be negative.
    pub(crate) fn least_latency(&self) -> f32 {
        self.input
            .iter()
            .fold(0.0, |least, offset| least.max(-offset))
    }

    /// Adds to the latency from `source`.
    pub(crate) fn add_from(&mut self, source: Role, cycles: f32) {
        self.input[source.index()] += cycles;
    }

    /// Adds to the latency to `destination`.
    pub(crate) fn add_to(&mut self, destination: Role, cycles: f32) {
        self.output[destination.index()] += cycles;
    }

    /// Reads ports, latency and settings; `=` keeps what `before` has.
    fn parse<'a>(
        mut words: impl Iterator<Item = &'a str>,
        before: &Self,
    ) -> Result<Self, TableReason> {
        let mut form = match words.next().ok_or(TableReason::Short)? {
            "=" => before.clone(),
            ports => Self::new(PortUse::parse(ports)?, 0.0),
        };
        match words.next().ok_or(TableReason::Short)? {
            "=" => form.latency = before.latency,
            latency => form.latency = number(latency)?,
        }
        for word in words {
            if word == "complex" {
                form.complex = Some(u8::MAX);
                continue;
            }
            if word == "destination" {
                form.reads_destination = true;
                continue;
            }
            if word == "approximate" {
                form.approximate = true;
                continue;
            }
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| TableReason::Setting(word.to_owned()))?;
            let value = number(value)?;
            let mut letters = key.chars();
            match (key, letters.next(), letters.next().and_then(Role::parse)) {
                ("slots", ..) => form.slots = value as u16,
                ("divider", ..) => form.divider = value,
                ("complex", ..) => form.complex = Some(value as u8),
                ("floor", ..) => form.floor = value,
                (_, Some('i'), Some(role)) if key.len() == 2 => form.input[role.index()] = value,
                (_, Some('o'), Some(role)) if key.len() == 2 => form.output[role.index()] = value,
                _ => return Err(TableReason::Setting(word.to_owned())),
            }
        }
        Ok(form)
    }
}

impl core::fmt::Display for Form {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.uops, self.latency)?;
        if self.slots != self.uops.total() {
            write!(f, " slots={}", self.slots)?;
        }
        if self.divider != 0.0 {
            write!(f, " divider={}", self.divider)?;
        }
        if self.floor != 0.0 {
            write!(f, " floor={}", self.floor)?;
        }
        match self.complex {
            None => {}
            Some(u8::MAX) => write!(f, " complex")?,
            Some(left) => write!(f, " complex={left}")?,
        }
        if self.reads_destination {
            write!(f, " destination")?;
        }
        if self.approximate {
            write!(f, " approximate")?;
        }
        for (side, offsets) in [('i', &self.input), ('o', &self.output)] {
            for (index, offset) in offsets.iter().enumerate().filter(|(_, o)| **o != 0.0) {
                write!(f, " {side}{}={offset}", Role::letter(index))?;
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<f32, TableReason> {
    text.parse()
        .ok()
        .filter(|n: &f32| n.is_finite() && n.abs() < 1e5)
        .ok_or_else(|| TableReason::Number(text.to_owned()))
}

/// Why a line of a table cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableReason {
    /// Fewer than four words.
    #[error("a form needs code, operands, ports and latency")]
    Short,
    /// No iced-x86 code has that name.
    #[error("no instruction code matches {0:?}")]
    Code(String),
    /// Neither `r`, `m` nor `*`.
    #[error("operands are r, m or *, not {0:?}")]
    Operands(String),
    /// Ports that cannot be read.
    #[error(transparent)]
    Ports(#[from] UopError),
    /// A number that cannot be read or is too large.
    #[error("{0:?} is no number of cycles")]
    Number(String),
    /// A setting that does not exist.
    #[error("no setting {0:?}")]
    Setting(String),
}

/// Which line of a table cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct TableError {
    /// Line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub reason: TableReason,
}

/// Identifies a form: code and whether an operand is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormId(u16);

impl FormId {
    /// The form of `code`.
    #[must_use]
    pub fn new(code: Code, memory: bool) -> Self {
        Self(code as u16 * 2 + u16::from(memory))
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> Code {
        codes()[usize::from(self.0 / 2)].1
    }

    /// Whether an operand is in memory.
    #[must_use]
    pub fn memory(self) -> bool {
        self.0 % 2 == 1
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl core::fmt::Display for FormId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let operands = if self.memory() { 'm' } else { 'r' };
        write!(f, "{:?} {operands}", self.code())
    }
}

/// Costs of all forms on one microarchitecture.
#[derive(Clone, Debug)]
pub struct FormTable {
    forms: Vec<Form>,
    /// Position in `forms` by form; `u16::MAX` for none.
    index: Vec<u16>,
    /// Forms whose costs are those of a relative.
    derived: Vec<bool>,
    fallback: Form,
}

const NONE: u16 = u16::MAX;

impl FormTable {
    /// A table without forms; every form costs one micro-operation on any of `any`.
    #[must_use]
    pub fn new(any: PortSet) -> Self {
        Self {
            forms: Vec::new(),
            index: vec![NONE; codes().len() * 2],
            derived: vec![false; codes().len() * 2],
            fallback: Form::new(PortUse::one(any), 1.0),
        }
    }

    /// Adds the lines of `text`.
    ///
    /// # Errors
    /// A line that cannot be read.
    pub fn extend(&mut self, text: &str) -> Result<(), TableError> {
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            self.add(content)
                .map_err(|reason| TableError { line, reason })?;
        }
        Ok(())
    }

    fn add(&mut self, line: &str) -> Result<(), TableReason> {
        let mut words = line.split_whitespace();
        let Some(pattern) = words.next() else {
            return Ok(());
        };
        let kinds: &[bool] = match words.next().ok_or(TableReason::Short)? {
            "r" => &[false],
            "m" => &[true],
            "*" => &[false, true],
            other => return Err(TableReason::Operands(other.to_owned())),
        };
        let words: Vec<&str> = words.collect();
        let mut read = |code: Code| -> Result<(), TableReason> {
            for &memory in kinds {
                let id = FormId::new(code, memory);
                let form = Form::parse(words.iter().copied(), self.get(id))?;
                self.set(id, form);
            }
            Ok(())
        };
        if !pattern.contains('*') {
            return match code_named(pattern) {
                Some(code) => read(code),
                None => Err(TableReason::Code(pattern.to_owned())),
            };
        }
        // Most names differ at once: thousands of them are asked for each such line.
        let start = pattern.split('*').next().unwrap_or_default();
        let mut matched = false;
        for (_, code) in codes()
            .iter()
            .filter(|(name, _)| name.starts_with(start) && matches(pattern, name))
        {
            matched = true;
            read(*code)?;
        }
        matched
            .then_some(())
            .ok_or_else(|| TableReason::Code(pattern.to_owned()))
    }

    /// The cost of a form; that of the fallback if the table does not have it.
    #[must_use]
    pub fn get(&self, id: FormId) -> &Form {
        match self.index.get(id.index()) {
            Some(&at) if at != NONE => &self.forms[usize::from(at)],
            _ => &self.fallback,
        }
    }

    /// Whether the table has a line for the form, so that its costs are not those of a relative or the
    /// fallback, and the line does not call them approximate.
    #[must_use]
    pub fn has(&self, id: FormId) -> bool {
        self.answers(id) && !self.derived[id.index()] && !self.get(id).approximate
    }

    fn answers(&self, id: FormId) -> bool {
        self.index.get(id.index()).is_some_and(|&at| at != NONE)
    }

    /// Gives EVEX forms without a line the costs of their relatives of the VEX encoding, by the rule of
    /// [`evex`].
    pub(crate) fn derive_evex(&mut self) {
        for &(code, relative) in evex::relatives() {
            for memory in [false, true] {
                let (id, from) = (
                    FormId::new(code, memory),
                    FormId::new(relative.code, memory),
                );
                if !self.has(id) && self.has(from) {
                    let form = evex::derive(self.get(from), relative.wide);
                    self.set(id, form);
                    self.derived[id.index()] = true;
                }
            }
        }
    }

    /// Sets the cost of a form.
    pub fn set(&mut self, id: FormId, form: Form) {
        if let Some(derived) = self.derived.get_mut(id.index()) {
            *derived = false;
        }
        match self.index.get(id.index()) {
            Some(&NONE) => {
                self.index[id.index()] = self.forms.len() as u16;
                self.forms.push(form);
            }
            Some(&at) => self.forms[usize::from(at)] = form,
            None => {}
        }
    }
}

/// Whether `name` is `pattern` with any characters for each `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<FormTable, TableError> {
        let mut table = FormTable::new(PortSet::of(&[0]));
        table.extend(text)?;
        Ok(table)
    }

    #[test]
    fn a_pattern_means_every_code_it_matches_and_later_lines_win() {
        let table = table("Shl_rm*_CL * 3*06 2 i0=-1 if=1\n# none\nShl_rm8_CL r 06 1\n").unwrap();
        let form = |code, memory| table.get(FormId::new(code, memory)).to_string();
        assert_eq!(form(Code::Shl_rm64_CL, true), "3*06 2 i0=-1 if=1");
        assert_eq!(form(Code::Shl_rm8_CL, false), "06 1");
        assert_eq!(form(Code::Shl_rm8_CL, true), "3*06 2 i0=-1 if=1");
        assert!(!table.has(FormId::new(Code::Shl_rm64_1, false)));
    }

    #[test]
    fn an_equals_sign_keeps_the_earlier_line() {
        let table = table("Cdqe r 0156 1 slots=2\nCdqe r = 3 complex").unwrap();
        let form = table.get(FormId::new(Code::Cdqe, false));
        assert_eq!(form.to_string(), "0156 3 slots=2 complex");
    }

    #[test]
    fn a_latency_is_that_of_the_pair() {
        let table = table("Mul_rm64 r 1+5 3 oh=1").unwrap();
        let mul = table.get(FormId::new(Code::Mul_rm64, false));
        assert_eq!(mul.from(Role::Operand(0)) + mul.to(Role::High), 4.0);
        assert_eq!(mul.from(Role::Operand(0)) + mul.to(Role::Implicit), 3.0);
        assert_eq!(mul.to_string(), "1+5 3 oh=1");
    }

    #[test]
    fn a_line_that_stands_for_unknown_costs_is_no_answer() {
        let text = "Wrmsr r 0156 100 approximate\nRdmsr r 0156 100 approximate\nRdmsr r 0156 90";
        let table = table(text).unwrap();
        let id = |code| FormId::new(code, false);
        assert!(!table.has(id(Code::Wrmsr)));
        assert!(table.has(id(Code::Rdmsr)));
        assert_eq!(
            table.get(id(Code::Wrmsr)).to_string(),
            "0156 100 approximate"
        );
    }

    #[test]
    fn errors_name_line_and_word() {
        for (text, error) in [
            ("\nAdd_rm64_r64 r 0156", "line 2: a form needs"),
            ("Addd_* r 0156 1", "line 1: no instruction code matches"),
            ("Add_rm64_r64 q 0 1", "line 1: operands are"),
            ("Add_rm64_r64 r 9x 1", "line 1: "),
            ("Add_rm64_r64 r 0 nan", "line 1: \"nan\" is no number"),
            ("Add_rm64_r64 r 0 1 colour=2", "line 1: no setting"),
        ] {
            let message = table(text).expect_err(text).to_string();
            assert!(message.starts_with(error), "{message}");
        }
    }
}
