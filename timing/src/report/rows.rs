//! Lines of blocks with or without measured cycles.

use super::hex::{HexError, parse_hex};

/// Lines of blocks at most.
pub const MAX_ROWS: usize = 1 << 22;
/// Fewest and most measured cycles of an iteration. Rounded measurements of one instruction are above the
/// one, a second is below the other.
const LEAST: f64 = 0.001;
const MOST: f64 = 1e10;

/// A block out of a file of many.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Line in the file, from 1 on.
    pub line: usize,
    /// Its code.
    pub bytes: Vec<u8>,
    /// Measured cycles per iteration, if the line has them.
    pub cycles: Option<f64>,
}

/// Which line is no block, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {reason}")]
pub struct RowError {
    /// Line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub reason: RowReason,
}

/// What is wrong with a line of blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowReason {
    /// Neither `hex` nor `hex,cycles`.
    #[error("expected hex or hex,cycles")]
    Columns,
    /// The code is not in hexadecimal.
    #[error(transparent)]
    Hex(#[from] HexError),
    /// A number that is none, or no time that a block can take: errors are relative to it.
    #[error("{0:?} is no number of cycles from {LEAST} to {MOST}")]
    Cycles(String),
    /// Some lines have cycles and some have none.
    #[error("this line has cycles and those before have none, or the other way round")]
    Mixed,
    /// Too many lines.
    #[error("more than {MAX_ROWS} blocks")]
    TooMany,
    /// No block.
    #[error("no block")]
    Empty,
}

/// Reads lines of `hex,cycles`, or of `hex` alone. The first may hold column names, behind a byte order
/// mark as spreadsheets write it; empty lines and those that begin with `#` are left out.
///
/// # Errors
/// The first line of another form.
pub fn read_rows(text: &str) -> Result<Vec<Row>, RowError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last = 1;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        last = line;
        if content.is_empty() || content.starts_with('#') || (line == 1 && is_heading(content)) {
            continue;
        }
        let error = |reason| RowError { line, reason };
        let (bytes, cycles) = read_line(content).map_err(error)?;
        if rows
            .last()
            .is_some_and(|row| row.cycles.is_some() != cycles.is_some())
        {
            return Err(error(RowReason::Mixed));
        }
        if rows.len() == MAX_ROWS {
            return Err(error(RowReason::TooMany));
        }
        rows.push(Row {
            line,
            bytes,
            cycles,
        });
    }
    if rows.is_empty() {
        return Err(RowError {
            line: last,
            reason: RowReason::Empty,
        });
    }
    Ok(rows)
}

/// Whether the first column is a word that is no code.
fn is_heading(line: &str) -> bool {
    let first = line.split(',').next().unwrap_or_default();
    let first = first.trim().trim_matches('"');
    first == "hex" || first == "block" || first == "code"
}

fn read_line(line: &str) -> Result<(Vec<u8>, Option<f64>), RowReason> {
    let mut columns = line.split(',').map(|c| c.trim().trim_matches('"'));
    let bytes = parse_hex(columns.next().unwrap_or_default())?;
    let cycles = columns.next().map(|text| {
        let number = text.parse().ok();
        let number = number.filter(|c: &f64| (LEAST..=MOST).contains(c));
        number.ok_or_else(|| RowReason::Cycles(text.chars().take(40).collect()))
    });
    if columns.next().is_some() {
        return Err(RowReason::Columns);
    }
    Ok((bytes, cycles.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_have_cycles_or_not() {
        let rows = read_rows("hex,cycles\n4801d8,1.5\n\n# a line\n90,0.25\r\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].line, rows[0].cycles), (2, Some(1.5)));
        assert_eq!((rows[1].line, rows[1].cycles), (5, Some(0.25)));
        let rows = read_rows("\u{feff}hex,cycles\r\n90,1\r\n").unwrap();
        assert_eq!((rows.len(), rows[0].cycles), (1, Some(1.0)));
        let rows = read_rows("48 01 d8\n90").unwrap();
        assert_eq!(rows[0].bytes, [0x48, 0x01, 0xd8]);
        assert_eq!(rows[1].cycles, None);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, error) in [
            ("", "1: no block"),
            ("hex\n", "1: no block"),
            ("90\nxy", "2: character 1 is no hexadecimal digit"),
            ("90,1\n90", "2: this line has cycles"),
            ("90,-1", "1: \"-1\" is no number"),
            // Relative to these an error is infinite.
            ("90,0", "1: \"0\" is no number of cycles from 0.001"),
            ("90,1e-308", "1: \"1e-308\" is no number"),
            ("90,1e300", "1: \"1e300\" is no number"),
            ("90,nan", "1: \"nan\" is no number"),
            ("90,1,2", "1: expected hex or hex,cycles"),
            ("hex,cycles\n9,1", "2: half a byte"),
        ] {
            let message = read_rows(text).expect_err(text).to_string();
            assert!(message.starts_with(error), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ 0-9a-fx,\\\\\n\"#.é-]{0,200}") {
            match read_rows(&text) {
                Ok(rows) => prop_assert!(rows.iter().all(|r| !r.bytes.is_empty())),
                Err(error) => prop_assert!(error.line >= 1),
            }
        }

        #[test]
        fn what_is_written_is_read(
            rows in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..40), 0.001..1e6), 1..20)
        ) {
            let mut text = String::from("hex,cycles\n");
            for (bytes, cycles) in &rows {
                bytes.iter().for_each(|b| text += &format!("{b:02x}"));
                text += &format!(",{cycles}\n");
            }
            let read = read_rows(&text).unwrap();
            for (row, (bytes, cycles)) in read.iter().zip(&rows) {
                prop_assert_eq!(&row.bytes, bytes);
                prop_assert_eq!(row.cycles, Some(*cycles));
            }
        }
    }
}
