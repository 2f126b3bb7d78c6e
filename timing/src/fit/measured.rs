//! Measured blocks.

use crate::forms::FormId;
use crate::lower::{LowerError, forms_of};

/// A block with the cycles that one iteration took.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredBlock {
    /// The instructions.
    pub bytes: Vec<u8>,
    /// Cycles per iteration.
    pub cycles: f64,
    /// A number that blocks with the same list of instruction codes share.
    pub sequence: u64,
    /// Its forms, each once.
    pub forms: Vec<FormId>,
}

/// Why a file holds no measured blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct MeasuredError {
    /// Line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub reason: MeasuredReason,
}

/// What is wrong with a line of measured blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasuredReason {
    /// Not `hex,cycles`.
    #[error("expected hex,cycles")]
    Columns,
    /// Characters that are no bytes in hexadecimal.
    #[error("the block is not in hexadecimal")]
    Hex,
    /// A number that is none, negative or not finite.
    #[error("{0:?} is no number of cycles")]
    Cycles(String),
    /// Bytes that are no block.
    #[error(transparent)]
    Block(#[from] LowerError),
}

/// Reads lines of `hex,cycles` behind one of column names.
///
/// # Errors
/// A line of another form.
pub fn read_measured(text: &str) -> Result<Vec<MeasuredBlock>, MeasuredError> {
    (1..)
        .zip(text.lines())
        .skip(1)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(line, content)| read_line(content).map_err(|reason| MeasuredError { line, reason }))
        .collect()
}

fn read_line(line: &str) -> Result<MeasuredBlock, MeasuredReason> {
    let (hex, cycles) = line.trim().split_once(',').ok_or(MeasuredReason::Columns)?;
    let bytes = from_hex(hex).ok_or(MeasuredReason::Hex)?;
    let cycles = (cycles.parse().ok())
        .filter(|c: &f64| c.is_finite() && *c >= 0.0)
        .ok_or_else(|| MeasuredReason::Cycles(cycles.to_owned()))?;
    let mut forms = forms_of(&bytes)?;
    let sequence = forms.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, form| {
        (hash ^ form.code() as u64).wrapping_mul(0x0100_0000_01b3)
    });
    forms.sort_unstable();
    forms.dedup();
    Ok(MeasuredBlock {
        bytes,
        cycles,
        sequence,
        forms,
    })
}

/// Bytes of an even number of hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.is_empty() {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_differ_in_registers_only_are_one_sequence() {
        let rows = read_measured("hex,cycles\n4801d8,0.25\n4801ca,0.27\n4829d8,0.25\n").unwrap();
        assert_eq!(rows[0].sequence, rows[1].sequence);
        assert_ne!(rows[0].sequence, rows[2].sequence);
        assert_eq!(rows[1].cycles, 0.27);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, error) in [
            ("h\n90", "line 2: expected"),
            ("h\n90,1\n9,1", "line 3: the block"),
            ("h\n90,-1", "line 2: \"-1\" is no number"),
            ("h\n06,1", "line 2: no instruction at offset 0"),
        ] {
            let message = read_measured(text).expect_err(text).to_string();
            assert!(message.starts_with(error), "{message}");
        }
    }
}
