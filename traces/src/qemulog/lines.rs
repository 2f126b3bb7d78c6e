//! The lines of a log.

/// An executed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceLine {
    pub(super) cpu: u32,
    /// Host address of the translation.
    pub(super) host: u64,
    pub(super) cs_base: u64,
    pub(super) pc: u64,
    pub(super) flags: u32,
}

/// A line by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Trace(TraceLine),
    /// The last block at this host address did not run.
    Stopped(u64),
    /// Blocks were linked: the log is not complete.
    Linking,
    /// A listing of guest code begins.
    Listing,
    /// Bytes of a listing, and whether they begin an instruction.
    Code {
        address: u64,
        bytes: &'a str,
        begins: bool,
    },
    /// All bytes of a listing, without addresses.
    Object(&'a str),
    /// The end of a listing.
    Blank,
    Other,
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // A sign would be accepted otherwise.
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

fn trace(rest: &str) -> Option<TraceLine> {
    let (cpu, rest) = rest.split_once(": ")?;
    let (host, rest) = rest.split_once(" [")?;
    let (inside, _) = rest.split_once(']')?;
    let mut fields = inside.split('/');
    let line = TraceLine {
        // QEMU's cpu_index is an int.
        cpu: cpu.trim().parse::<i32>().ok()?.try_into().ok()?,
        host: hex(host)?,
        cs_base: hex(fields.next()?)?,
        pc: hex(fields.next()?)?,
        flags: u32::try_from(hex(fields.next()?)?).ok()?,
    };
    fields.next()?;
    Some(line)
}

fn code(line: &str) -> Option<Line<'_>> {
    let (address, rest) = line.split_once(": ")?;
    let address = hex(address.trim()).filter(|_| address.trim_start().starts_with("0x"))?;
    let rest = rest.trim_start();
    // Bytes are separated by one space, the text follows after two or more.
    let (bytes, text) = rest.split_once("  ").unwrap_or((rest, ""));
    Some(Line::Code {
        address,
        bytes,
        begins: !text.trim().is_empty(),
    })
}

/// The kind of `line`; `None` if it begins as a line of a known kind and is malformed.
pub(super) fn parse(line: &str) -> Option<Line<'_>> {
    if let Some(rest) = line.strip_prefix("Trace ") {
        return trace(rest).map(Line::Trace);
    }
    if let Some(rest) = line.strip_prefix("Stopped execution of TB chain before ") {
        let (host, _) = rest.split_once(' ')?;
        return hex(host).map(Line::Stopped);
    }
    Some(if line.starts_with("Linking TBs ") {
        Line::Linking
    } else if line.starts_with("IN:") {
        Line::Listing
    } else if let Some(bytes) = line.strip_prefix("OBJD-T:") {
        Line::Object(bytes.trim())
    } else if line.trim().is_empty() {
        Line::Blank
    } else {
        code(line).unwrap_or(Line::Other)
    })
}

/// Appends the bytes that `text` spells, with or without spaces; false if it spells none.
pub(super) fn append_bytes(text: &str, bytes: &mut Vec<u8>) -> bool {
    for word in text.split_ascii_whitespace() {
        if !word.len().is_multiple_of(2) || !word.is_ascii() {
            return false;
        }
        for digits in word.as_bytes().chunks(2) {
            let Some(byte) = std::str::from_utf8(digits).ok().and_then(hex) else {
                return false;
            };
            bytes.push(byte as u8);
        }
    }
    true
}
