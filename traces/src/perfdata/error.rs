//! Why a perf.data file could not be read or written.

use std::io;
use std::path::PathBuf;

use super::abi::{Feature, RecordType};

/// Why reading stopped. Offsets are in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfReadError {
    /// The file system refused.
    #[error("offset {offset:#x}: {source}")]
    Io {
        /// Where reading started.
        offset: u64,
        /// The file system's reason.
        source: io::Error,
    },
    /// The magic is not that of perf.data.
    #[error("not a perf.data file: it starts with {magic:02x?}")]
    Magic {
        /// The first eight bytes.
        magic: [u8; 8],
    },
    /// The file was written on a big-endian machine.
    #[error("perf.data of a big-endian machine is not supported")]
    BigEndian,
    /// The file ends inside something it announced.
    #[error("offset {offset:#x}: {what} needs {needed} bytes, the file has {available}")]
    Truncated {
        /// Where it starts.
        offset: u64,
        /// What was being read.
        what: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes left.
        available: u64,
    },
    /// A number cannot be true.
    #[error("offset {offset:#x}: {what} is {value}")]
    Field {
        /// Where the structure starts that holds it.
        offset: u64,
        /// The field and what is wrong with it.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A record is shorter than its fields.
    #[error("offset {offset:#x}: {kind} record ends inside {what}")]
    ShortRecord {
        /// Offset of the record.
        offset: u64,
        /// Its type.
        kind: RecordType,
        /// The field that is cut.
        what: &'static str,
    },
    /// A record's id belongs to no event of the file.
    #[error("offset {offset:#x}: no event has id {id}")]
    UnknownId {
        /// Offset of the record.
        offset: u64,
        /// The id.
        id: u64,
    },
    /// The events' records cannot be told apart.
    #[error("offset {offset:#x}: the file's events have different sample types and no identifier")]
    AmbiguousEvent {
        /// Offset of the record.
        offset: u64,
    },
    /// A record appeared before any attribute.
    #[error("offset {offset:#x}: the file describes no event")]
    NoEvent {
        /// Offset of the record.
        offset: u64,
    },
    /// A feature section is malformed.
    #[error("offset {offset:#x}: header feature {feature} ends inside {what}")]
    Feature {
        /// Offset of the section.
        offset: u64,
        /// The feature.
        feature: Feature,
        /// The field that is cut or wrong.
        what: &'static str,
    },
    /// zstd refused the data of a COMPRESSED record.
    #[error("offset {offset:#x}: zstd: {source}")]
    Zstd {
        /// Offset of the COMPRESSED record.
        offset: u64,
        /// zstd's reason.
        source: io::Error,
    },
}

/// Why writing stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfWriteError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File to be written.
        path: PathBuf,
        /// The file system's reason.
        source: io::Error,
    },
    /// The output exists and is a folder, a device or a pipe.
    #[error("{}: perf.data needs a regular file", path.display())]
    NotARegularFile {
        /// The output.
        path: PathBuf,
    },
    /// A record does not fit the 64 KiB that the format allows.
    #[error("{kind} record of {size} bytes: the format allows 65535")]
    TooLarge {
        /// Type of the record.
        kind: RecordType,
        /// Its size.
        size: usize,
    },
    /// A path holds a zero byte or is too long.
    #[error("{path:?}: a mapped file's path holds a zero byte or has 4096 bytes or more")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A build-id is empty or longer than 20 bytes.
    #[error("{}: build-id of {length} bytes, the format allows 1 to 20", path.display())]
    BuildId {
        /// The mapped file.
        path: PathBuf,
        /// Length of its build-id.
        length: usize,
    },
    /// A sample lacks what the file's attribute promises.
    #[error("sample without {0}, which the event asks for")]
    MissingField(&'static str),
    /// A sample has not one count for each event of the group, or counts and no group.
    #[error("sample with {counts} counts in a group of {events} events")]
    GroupSize {
        /// Counts of the sample.
        counts: usize,
        /// Events of the group, 0 without one.
        events: usize,
    },
    /// A count of a group is below that of the sample before, of the same task or CPU.
    #[error("event {event} of the group counted {count}, and {before} at the sample before")]
    CountFell {
        /// Place of the event in the group, 0 for the sampled one.
        event: usize,
        /// Count at the sample before.
        before: u64,
        /// Count at this sample.
        count: u64,
    },
}
