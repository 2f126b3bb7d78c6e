//! What `vlbr throughput` is given: hexadecimal text, assembly text, a range of an ELF file, a CSV.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;

use vlbr_timing::report::{Code, MAX_BYTES, Row, assemble, parse_hex, read_rows, unlinked};
use vlbr_traces::files::{open_regular, read_text};
use vlbr_traces::symbols::ElfImage;

use crate::throughput::{InputKind, ThroughputArgs};

/// Longest text or object file that is read, in bytes.
const MAX_TEXT: u64 = 1 << 28;

/// Code to look at.
#[derive(Debug)]
pub(crate) enum Input {
    /// Blocks that are explained one by one.
    Blocks {
        /// Where they come from.
        name: String,
        /// The blocks.
        codes: Vec<Code>,
    },
    /// Blocks of which only the cycles are told.
    Rows {
        /// Where they come from.
        name: String,
        /// The blocks.
        rows: Vec<Row>,
    },
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Reads the input that the arguments name.
pub(crate) fn read(args: &ThroughputArgs, input: &str) -> Result<Input> {
    if input == "-" {
        if args.start.is_some() {
            return Err("standard input: --start is for ELF files".into());
        }
        let mut text = String::new();
        let mut stdin = io::stdin().take(MAX_TEXT + 1);
        stdin
            .read_to_string(&mut text)
            .map_err(|error| format!("standard input: {error}"))?;
        if text.len() as u64 > MAX_TEXT {
            return Err(format!("standard input: more than {MAX_TEXT} bytes").into());
        }
        return text_input("standard input", &text, args.kind);
    }
    let path = Path::new(input);
    if path.exists() {
        let kind = args.kind.or_else(|| file_kind(path));
        if kind == Some(InputKind::Elf) {
            return elf(path, args.start.as_deref(), args.stop.as_deref());
        }
        if args.start.is_some() {
            return Err(format!("{input}: --start is for ELF files").into());
        }
        let text = read_text(path, MAX_TEXT).map_err(|error| format!("{input}: {error}"))?;
        return text_input(input, &text, kind);
    }
    if let Some((file, symbol)) = elf_and_symbol(input) {
        if args.start.is_some() {
            return Err("either ELF:SYMBOL or --start".into());
        }
        return elf(Path::new(file), Some(symbol), None);
    }
    if args.start.is_some() || matches!(args.kind, Some(InputKind::Elf | InputKind::Csv)) {
        return Err(format!("{input}: no such file").into());
    }
    if args.kind == Some(InputKind::Asm) {
        return text_input("the text", &input.replace(';', "\n"), args.kind);
    }
    // Something with a dot or a slash was meant to be a file.
    match parse_hex(input) {
        Ok(bytes) => Ok(Input::Blocks {
            name: "the block".to_owned(),
            codes: vec![Code::new(bytes)],
        }),
        Err(error) => {
            Err(format!("{input:?}: neither a file nor code in hexadecimal: {error}").into())
        }
    }
}

/// What a file is by its first bytes and its name.
fn file_kind(path: &Path) -> Option<InputKind> {
    let mut magic = [0; 4];
    let read = open_regular(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_ok() && magic == *b"\x7fELF" {
        return Some(InputKind::Elf);
    }
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "s" | "asm" => Some(InputKind::Asm),
        "csv" => Some(InputKind::Csv),
        _ => None,
    }
}

fn text_input(name: &str, text: &str, kind: Option<InputKind>) -> Result<Input> {
    let blocks = |codes| Input::Blocks {
        name: name.to_owned(),
        codes,
    };
    let named = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    match kind {
        Some(InputKind::Asm) => Ok(blocks(assemble(text).map_err(|error| {
            // The cause of a failed run stands behind the error.
            let cause = error.source().map(|cause| format!(": {cause}"));
            format!("{name}: {error}{}", cause.unwrap_or_default())
        })?)),
        Some(InputKind::Hex) => {
            let bytes = parse_hex(text).map_err(|error| named(&error))?;
            Ok(blocks(vec![Code::new(bytes)]))
        }
        Some(InputKind::Elf) => Err(named(&"no ELF file").into()),
        Some(InputKind::Csv) | None => {
            let mut rows = read_rows(text).map_err(|error| format!("{name}:{error}"))?;
            match rows.as_mut_slice() {
                // One block, of which everything is told.
                [row] if row.cycles.is_none() && kind.is_none() => {
                    Ok(blocks(vec![Code::new(std::mem::take(&mut row.bytes))]))
                }
                _ => Ok(Input::Rows {
                    name: name.to_owned(),
                    rows,
                }),
            }
        }
    }
}

/// `ELF:SYMBOL`, where a colon of the symbol's own may follow.
fn elf_and_symbol(input: &str) -> Option<(&str, &str)> {
    input
        .match_indices(':')
        .map(|(at, _)| (&input[..at], &input[at + 1..]))
        .find(|(file, symbol)| !symbol.is_empty() && Path::new(file).is_file())
}

/// A range of the code of an ELF file.
fn elf(path: &Path, start: Option<&str>, stop: Option<&str>) -> Result<Input> {
    let name = path.display();
    let Some(start) = start else {
        return Err(format!("{name}: which part? ELF:SYMBOL, or --start and --stop").into());
    };
    let image = ElfImage::open(path)?;
    if !image.is_x86_64() {
        return Err(format!("{name}: no 64-bit x86 code").into());
    }
    if image.is_relocatable() {
        return unlinked_code(path, start, stop);
    }
    let (first, extent) = place(&image, start).map_err(|error| format!("{name}: {error}"))?;
    let length = match (stop, extent) {
        (Some(stop), _) => {
            let (last, _) = place(&image, stop).map_err(|error| format!("{name}: {error}"))?;
            let length = last.checked_sub(first).filter(|length| *length > 0);
            length.ok_or_else(|| format!("{name}: {stop} lies not behind {start}"))?
        }
        (None, Some(extent)) => extent,
        (None, None) => return Err(format!("{name}: {start} is no symbol: give --stop").into()),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(
            format!("{name}: {start} and what follows has more than {MAX_BYTES} bytes").into(),
        );
    }
    let code = image.read_code()?;
    let bytes = code.at(first).and_then(|bytes| bytes.get(..length));
    let bytes = bytes.ok_or_else(|| format!("{name}: no code of {length} bytes at {first:#x}"))?;
    Ok(Input::Blocks {
        name: name.to_string(),
        codes: vec![Code {
            bytes: bytes.to_vec(),
            address: first,
            name: Some(match stop {
                Some(stop) => format!("{name}, {start} to {stop}"),
                None => format!("{name}, {start}"),
            }),
        }],
    })
}

/// A symbol of an object file.
fn unlinked_code(path: &Path, symbol: &str, stop: Option<&str>) -> Result<Input> {
    let name = path.display();
    if stop.is_some() {
        return Err(format!("{name}: is not linked: {name}:SYMBOL takes all of a symbol").into());
    }
    let mut object = Vec::new();
    let file = open_regular(path).map_err(|error| format!("{name}: {error}"))?;
    (file.take(MAX_TEXT + 1).read_to_end(&mut object))
        .map_err(|error| format!("{name}: {error}"))?;
    if object.len() as u64 > MAX_TEXT {
        return Err(format!("{name}: longer than {MAX_TEXT} bytes").into());
    }
    let mut code = unlinked(&object, symbol).map_err(|error| format!("{name}: {error}"))?;
    code.name = Some(format!("{name}, {symbol}"));
    Ok(Input::Blocks {
        name: name.to_string(),
        codes: vec![code],
    })
}

/// The address that `SYMBOL`, `SYMBOL+0x10` or `0xADDRESS` means, and how far the symbol goes from there.
fn place(image: &ElfImage, text: &str) -> std::result::Result<(u64, Option<u64>), String> {
    let symbol = |name: &str| {
        let symbols = image.symbols();
        let found = symbols.find(name.as_bytes());
        found.or_else(|| symbols.iter().find(|symbol| symbol.display_name() == name))
    };
    if let Some(found) = symbol(text) {
        return Ok((found.address, Some(image.extent(&found))));
    }
    if let Some(number) = number(text) {
        return Ok((number, None));
    }
    if let Some((name, offset)) = text.rsplit_once('+')
        && let (Some(found), Some(offset)) = (symbol(name), number(offset))
        && let Some(address) = found.address.checked_add(offset)
    {
        let rest = image.extent(&found).checked_sub(offset);
        return Ok((address, rest.filter(|rest| *rest > 0)));
    }
    Err(format!("no symbol {text:?}, and no address"))
}

/// A number in hexadecimal, with `0x` or as objdump and perf print it.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}
