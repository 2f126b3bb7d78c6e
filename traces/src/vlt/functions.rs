//! The functions that ran, by mapped file: names for a machine that lacks the recorded programs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::bytes::{Fields, put_bytes, put_varint};
use super::code::Budget;
use super::error::{Damage, WriteError};
use super::meta::MAX_BUILD_ID;
use super::packed::{compress, decompress};

/// Largest decompressed size of the frame.
const MAX_RAW: u32 = 1 << 24;
/// Longest name of a function, in bytes.
pub(crate) const MAX_NAME: usize = 1 << 14;
/// Memory charged for a file besides its fields.
const FILE_COST: u64 = 256;
/// Memory charged for a function besides its name: the entry and what the allocator adds.
const FUNCTION_COST: u64 = size_of::<Function>() as u64 + 32;
/// Fewest bytes of a file: path, build-id, state and two counts, three columns.
const LEAST_FILE: usize = 8;
/// Fewest bytes of a segment.
const LEAST_SEGMENT: usize = 3;

/// Whether the file was there when its functions were looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FileState {
    /// It was read. It may have no symbols all the same.
    #[default]
    Read,
    /// It could not be read, or is no ELF file.
    Unreadable,
    /// What was there is another file: its build-id differs or, without one, its code.
    Another,
}

/// Code of a file: an executable PT_LOAD segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CodeSegment {
    /// Address as linked.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Address as linked.
    pub address: u64,
    /// Bytes, at least 1. Where the file states no size, up to the next symbol.
    pub size: u64,
    /// Name as the file has it, not empty.
    pub name: Vec<u8>,
}

/// A mapped file of which code ran, and its functions that did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileFunctions {
    /// The path under which it was mapped.
    pub path: PathBuf,
    /// Its build-id, empty if it has none.
    pub build_id: Vec<u8>,
    /// Whether it was there.
    pub state: FileState,
    /// Its code. Empty if it was not there.
    pub segments: Vec<CodeSegment>,
    /// The functions that hold executed code, by ascending address, each address once.
    pub functions: Vec<Function>,
}

impl FileFunctions {
    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<&'static str> {
        if self.build_id.len() > MAX_BUILD_ID {
            return Some("build-id");
        }
        let ends = |start: u64, size: u64| start.checked_add(size).is_some();
        let segment_ends =
            |s: &CodeSegment| ends(s.address, s.size) && ends(s.offset, s.size) && s.size > 0;
        if !self.segments.iter().all(segment_ends) {
            return Some("code segment");
        }
        let named = |f: &Function| {
            ends(f.address, f.size) && f.size > 0 && (1..=MAX_NAME).contains(&f.name.len())
        };
        if !self.functions.iter().all(named) {
            return Some("function");
        }
        let ascending = |pair: &[Function]| pair[0].address < pair[1].address;
        if !self.functions.windows(2).all(ascending) {
            return Some("order of functions");
        }
        let nothing = self.segments.is_empty() && self.functions.is_empty();
        if self.state != FileState::Read && !nothing {
            return Some("file that was not read, with functions");
        }
        None
    }

    fn key(&self) -> (&[u8], &[u8]) {
        (self.path.as_os_str().as_bytes(), &self.build_id)
    }
}

fn fault(files: &[FileFunctions]) -> Option<&'static str> {
    let ascending = |pair: &[FileFunctions]| pair[0].key() < pair[1].key();
    if !files.windows(2).all(ascending) {
        return Some("order of files with functions");
    }
    files.iter().find_map(FileFunctions::fault)
}

/// The payload of the frame.
pub(super) fn encode_functions(files: &[FileFunctions], level: i32) -> Result<Vec<u8>, WriteError> {
    if let Some(what) = fault(files) {
        return Err(WriteError::Malformed(what));
    }
    let mut raw = Vec::new();
    put_varint(&mut raw, files.len() as u64);
    for file in files {
        put_file(&mut raw, file);
        if raw.len() > MAX_RAW as usize {
            return Err(WriteError::Oversized {
                what: "functions",
                size: raw.len() as u64,
                limit: MAX_RAW.into(),
            });
        }
    }
    let mut payload = (raw.len() as u32).to_le_bytes().to_vec();
    payload.extend(compress(level, &raw)?);
    Ok(payload)
}

fn put_file(raw: &mut Vec<u8>, file: &FileFunctions) {
    put_bytes(raw, file.path.as_os_str().as_bytes());
    put_bytes(raw, &file.build_id);
    raw.push(match file.state {
        FileState::Read => 0,
        FileState::Unreadable => 1,
        FileState::Another => 2,
    });
    put_varint(raw, file.segments.len() as u64);
    for segment in &file.segments {
        for number in [segment.address, segment.offset, segment.size] {
            put_varint(raw, number);
        }
    }
    put_varint(raw, file.functions.len() as u64);
    let (mut addresses, mut sizes, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = 0;
    for function in &file.functions {
        put_varint(&mut addresses, function.address - last);
        put_varint(&mut sizes, function.size);
        put_bytes(&mut names, &function.name);
        last = function.address;
    }
    for column in [addresses, sizes, names] {
        put_bytes(raw, &column);
    }
}

/// Reads the payload of the frame.
pub(super) fn decode_functions(
    payload: &[u8],
    budget: &mut Budget,
) -> Result<Vec<FileFunctions>, Damage> {
    let mut fields = Fields::new(payload, "functions frame");
    let size = fields.u32()?;
    budget.charge(size.min(MAX_RAW).into())?;
    let raw = decompress("functions", fields.bytes(fields.left())?, size, MAX_RAW)?;
    let mut fields = Fields::new(&raw, "functions");
    let count = fields.count(LEAST_FILE)?;
    budget.charge(count as u64 * FILE_COST)?;
    let files = (0..count)
        .map(|_| file(&mut fields, budget))
        .collect::<Result<Vec<_>, _>>()?;
    fields.finish()?;
    match fault(&files) {
        Some(what) => Err(Damage::Malformed(what)),
        None => Ok(files),
    }
}

fn file(fields: &mut Fields<'_>, budget: &mut Budget) -> Result<FileFunctions, Damage> {
    let path = OsStr::from_bytes(fields.counted_bytes()?).into();
    let build_id = fields.counted_bytes()?.to_vec();
    let state = match fields.u8()? {
        0 => FileState::Read,
        1 => FileState::Unreadable,
        2 => FileState::Another,
        _ => return Err(fields.malformed()),
    };
    let segments = fields.count(LEAST_SEGMENT)?;
    budget.charge((segments * size_of::<CodeSegment>()) as u64)?;
    let segments = (0..segments)
        .map(|_| {
            Ok(CodeSegment {
                address: fields.varint()?,
                offset: fields.varint()?,
                size: fields.varint()?,
            })
        })
        .collect::<Result<_, Damage>>()?;
    // In each of the columns a function takes a byte or more.
    let count = fields.count(3)?;
    let (mut addresses, mut sizes, mut names) = (fields.part()?, fields.part()?, fields.part()?);
    if count > addresses.left() {
        return Err(fields.malformed());
    }
    budget.charge(count as u64 * FUNCTION_COST)?;
    let mut functions = Vec::with_capacity(count);
    let mut address = 0_u64;
    for _ in 0..count {
        let distance = addresses.varint()?;
        address = address
            .checked_add(distance)
            .ok_or_else(|| addresses.malformed())?;
        functions.push(Function {
            address,
            size: sizes.varint()?,
            name: names.counted_bytes()?.to_vec(),
        });
    }
    for column in [addresses, sizes, names] {
        column.finish()?;
    }
    Ok(FileFunctions {
        path,
        build_id,
        state,
        segments,
        functions,
    })
}
