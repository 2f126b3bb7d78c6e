//! What can be wrong with a `.vlt` file, and what can go wrong writing one.

use std::io;

use thiserror::Error;
use vlbr_cpu::CodeError;

/// A damage and where it was found.
#[derive(Debug, Error)]
#[error("offset {offset:#x}: {damage}")]
pub struct VltError {
    /// Offset in the file: of the frame's header, or of the file's end if something is missing.
    pub offset: u64,
    /// What is wrong.
    pub damage: Damage,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not a `.vlt` file.
    #[error("not a .vlt file: wrong magic number")]
    WrongMagic,
    /// Written in a format this reader does not know.
    #[error("format version {major}.{minor} is not supported, this reader knows major {known}")]
    UnsupportedVersion {
        /// Major version of the file.
        major: u16,
        /// Minor version of the file.
        minor: u16,
        /// Major version of the reader.
        known: u16,
    },
    /// Flag bits no version this reader knows defines.
    #[error("unknown flags {0:#x}")]
    UnknownFlags(u32),
    /// The file ends inside something.
    #[error("truncated: {need} bytes needed, {have} left")]
    Truncated {
        /// Bytes the structure takes.
        need: u64,
        /// Bytes the file has from there on.
        have: u64,
    },
    /// The end frame is missing: recording was cut off, or the file was.
    #[error("no end frame: the recording was cut off")]
    Unfinished,
    /// Bytes behind the end frame.
    #[error("{0} bytes behind the end frame")]
    TrailingData(u64),
    /// A checksum does not match its bytes.
    #[error("checksum of the {what} is {found:#010x}, {stated:#010x} stated")]
    Checksum {
        /// Which one.
        what: &'static str,
        /// Checksum in the file.
        stated: u32,
        /// Checksum of the bytes.
        found: u32,
    },
    /// A frame this reader does not know and must not skip.
    #[error("unknown mandatory frame of type {0}")]
    UnknownFrame(u16),
    /// A length or count above what the format allows.
    #[error("{what} of {size}, at most {limit}")]
    Oversized {
        /// Of what.
        what: &'static str,
        /// Stated size or count.
        size: u64,
        /// Largest allowed.
        limit: u64,
    },
    /// Decoding needs more memory than the reader was allowed.
    #[error("code and descriptions need more than {0} bytes of memory")]
    MemoryLimit(u64),
    /// A number that refers to something that does not exist (yet).
    #[error("{what} {index} does not exist, there are {count}")]
    NoSuch {
        /// What kind of thing.
        what: &'static str,
        /// Its number.
        index: u64,
        /// How many there are at this place of the file.
        count: u64,
    },
    /// Frames in the wrong order, missing or repeated.
    #[error("{what} {found} where {expected} is due")]
    OutOfOrder {
        /// What is numbered.
        what: &'static str,
        /// Number due.
        expected: u64,
        /// Number found.
        found: u64,
    },
    /// A total does not match what it counts.
    #[error("{what}: {stated} stated, {found} found")]
    CountMismatch {
        /// What is counted.
        what: &'static str,
        /// Stated.
        stated: u64,
        /// Found.
        found: u64,
    },
    /// A compressed part does not decompress.
    #[error("{what} does not decompress: {reason}")]
    Compression {
        /// Which part.
        what: &'static str,
        /// The decompressor's words.
        reason: String,
    },
    /// A value that no writer produces.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A block or step that is none.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl Damage {
    pub(crate) const fn at(self, offset: u64) -> VltError {
        VltError {
            offset,
            damage: self,
        }
    }
}

/// Why something was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file exists and overwriting was not asked for.
    #[error("the file exists")]
    Exists,
    /// No space is left. The file is valid up to `offset`.
    #[error("no space left at offset {offset:#x}")]
    DiskFull {
        /// End of the last whole frame.
        offset: u64,
    },
    /// The file cannot be written. It is valid up to `offset`.
    #[error("cannot write at offset {offset:#x}: {source}")]
    Io {
        /// End of the last whole frame.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// An earlier write failed; nothing more is written.
    #[error("an earlier write failed")]
    Failed,
    /// More of something than the format allows.
    #[error("{what} of {size}, at most {limit}")]
    Oversized {
        /// Of what.
        what: &'static str,
        /// Asked for.
        size: u64,
        /// Largest allowed.
        limit: u64,
    },
    /// A number that refers to something not written before.
    #[error("{what} {index} was not written before, there are {count}")]
    NoSuch {
        /// What kind of thing.
        what: &'static str,
        /// Its number.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// A side stream's positions are not in ascending order or outside the chunk.
    #[error("side stream: position {0} is out of order or outside the chunk")]
    Position(u32),
    /// A value that no reader accepts.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The compressor failed.
    #[error("compression: {0}")]
    Compression(io::Error),
}
