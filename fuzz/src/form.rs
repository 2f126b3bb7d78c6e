//! Damage by the form of what is damaged.

use crate::damage::{Damage, Numbers};

/// Numbers that readers may fail on.
const EXTREMES: [&str; 16] = [
    "0",
    "1",
    "-1",
    "+1",
    "255",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0xffffffffffffffff",
    "ffffffffffffffff",
    "99999999999999999999999999999999",
    "1e999",
    "0x",
];

/// What is no plain text, or means something to most readers.
const ODD: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\r",
    b"\n",
    b"\n\n",
    b" ",
    b"\t",
    b"#",
    b":",
    b"/",
    b"\"",
    b"=",
    b"[",
    b"]",
    "\u{e9}\u{1f600}".as_bytes(),
];

/// Longest run of one byte that is put in.
const LONG: usize = 1 << 17;

/// The form of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes at offsets: lengths, counts and addresses.
    Binary,
    /// Lines of words and numbers.
    Text,
}

impl Form {
    /// Damages `bytes` once; what is put in comes from `seeds`.
    pub(crate) fn damage(self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
        match self {
            Self::Binary => Damage::any(numbers).apply(bytes),
            Self::Text => damage_text(bytes, seeds, numbers),
        }
    }
}

fn damage_text(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len());
    match numbers.below(64) {
        0..6 => Damage::Byte(at, numbers.draw() as u8).apply(bytes),
        6..10 => put(bytes, at..at, numbers.one_of(&ODD)),
        10..14 => {
            let end = (at + numbers.below(16)).min(bytes.len());
            put(bytes, at..end, b"");
        }
        14..24 => {
            let range = run(bytes, at, |byte| byte.is_ascii_hexdigit());
            put(bytes, range, numbers.one_of(&EXTREMES).as_bytes());
        }
        24..36 => {
            let other = &seeds[numbers.below(seeds.len())];
            let from = run(other, numbers.below(other.len()), is_word);
            let range = run(bytes, at, is_word);
            put(bytes, range, &other[from]);
        }
        36..42 => {
            let range = line(bytes, at);
            put(bytes, range, b"");
        }
        42..52 => {
            let other = &seeds[numbers.below(seeds.len())];
            let from = line(other, numbers.below(other.len()));
            let start = line(bytes, at).start;
            put(bytes, start..start, &other[from]);
        }
        52..57 => {
            let copy = bytes[line(bytes, at)].to_vec();
            let start = line(bytes, numbers.below(bytes.len())).start;
            put(bytes, start..start, &copy);
        }
        57..61 => bytes.truncate(at),
        61..63 => Damage::Repeat(at, numbers.below(256)).apply(bytes),
        _ if numbers.below(64) == 0 => {
            let byte = bytes.get(at).copied().unwrap_or(b' ');
            put(bytes, at..at, &vec![byte; numbers.below(LONG)]);
        }
        _ => {
            let range = run(bytes, at, is_word);
            put(bytes, range, b"");
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn put(bytes: &mut Vec<u8>, range: std::ops::Range<usize>, new: &[u8]) {
    bytes.splice(range, new.iter().copied());
}

/// The bytes around `at` that `belongs` takes, or none at `at`.
fn run(bytes: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> std::ops::Range<usize> {
    let at = at.min(bytes.len());
    let before = bytes[..at]
        .iter()
        .rev()
        .take_while(|&&b| belongs(b))
        .count();
    let after = bytes[at..].iter().take_while(|&&b| belongs(b)).count();
    at - before..at + after
}

/// The line around `at`, with its end.
fn line(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let body = run(bytes, at, |byte| byte != b'\n');
    body.start..(body.end + 1).min(bytes.len())
}
