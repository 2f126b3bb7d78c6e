//! Kernel symbol lists: `/proc/kallsyms` and `System.map`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::error::SymbolError;
use super::table::{Binding, SymbolTable, SymbolTableBuilder};
use crate::files::open_regular;

/// Longest line taken: the kernel's names have at most 512 bytes.
const MAX_LINE: u64 = 4096;
/// Bytes of names taken.
const MAX_NAMES: u64 = 1 << 30;

/// Reads the functions of a list of `address type name [module]` lines.
///
/// # Errors
/// [`SymbolError::Kallsyms`] names a line that is not of this form;
/// [`SymbolError::HiddenAddresses`] when the kernel showed only zeros; I/O errors.
pub fn read_kallsyms(path: &Path) -> Result<SymbolTable, SymbolError> {
    let file = open_regular(path).map_err(|source| SymbolError::Io {
        path: path.into(),
        source,
    })?;
    parse_kallsyms(BufReader::new(file), path)
}

/// Reads a list from `reader`; errors call it `path`.
///
/// # Errors
/// As [`read_kallsyms`].
pub fn parse_kallsyms(mut reader: impl BufRead, path: &Path) -> Result<SymbolTable, SymbolError> {
    let io = |source| SymbolError::Io {
        path: path.into(),
        source,
    };
    let mut builder = SymbolTableBuilder::new(MAX_NAMES);
    let mut line = Vec::new();
    let (mut number, mut seen, mut hidden) = (0u64, 0u64, true);
    loop {
        line.clear();
        number += 1;
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(io)?;
        if read == 0 {
            break;
        }
        let bad = || SymbolError::Kallsyms {
            path: path.into(),
            line: number,
        };
        if line.last() != Some(&b'\n') && read as u64 == MAX_LINE {
            return Err(bad());
        }
        let mut fields = line
            .split(u8::is_ascii_whitespace)
            .filter(|f| !f.is_empty());
        let Some(address) = fields.next() else {
            continue;
        };
        let address = std::str::from_utf8(address)
            .ok()
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .ok_or_else(bad)?;
        let kind = fields.next().ok_or_else(bad)?;
        let name = fields.next().ok_or_else(bad)?;
        seen += 1;
        hidden &= address == 0;
        let binding = match kind {
            b"T" => Binding::GlobalFunction,
            b"W" | b"w" => Binding::WeakFunction,
            b"t" => Binding::LocalFunction,
            _ => continue,
        };
        if !builder.push(address, 0, name, binding) {
            return Err(SymbolError::TooLarge {
                path: path.into(),
                what: "bytes of symbol names, or 8388608 symbols",
                limit: MAX_NAMES,
            });
        }
    }
    if seen > 0 && hidden {
        return Err(SymbolError::HiddenAddresses { path: path.into() });
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str) -> Result<SymbolTable, SymbolError> {
        let mut file = tempfile::NamedTempFile::new().expect("temporary");
        file.write_all(text.as_bytes()).expect("written");
        read_kallsyms(file.path())
    }

    #[test]
    fn functions_are_found_by_address_and_data_is_left_out() {
        let t = read(
            "ffffffff81000000 T _text\nffffffff81000040 t helper\n\
             ffffffff81000050 d data\nffffffffc0000000 t probe\t[module]\n",
        )
        .expect("read");
        assert_eq!(
            t.lookup(0xffff_ffff_8100_0052)
                .map(|s| (s.name.to_vec(), s.offset)),
            Some((b"helper".to_vec(), 0x12))
        );
        assert_eq!(t.len(), 3);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let error = read("ffffffff81000000 T _text\nnonsense\n").expect_err("refused");
        assert!(
            matches!(error, SymbolError::Kallsyms { line: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn hidden_addresses_are_refused() {
        let error = read("0000000000000000 T _text\n0000000000000000 t x\n").expect_err("refused");
        assert!(
            matches!(error, SymbolError::HiddenAddresses { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_line_without_end_is_refused_without_being_held() {
        let error = read(&"f".repeat(1 << 20)).expect_err("refused");
        assert!(
            matches!(error, SymbolError::Kallsyms { line: 1, .. }),
            "{error}"
        );
    }
}
