//! Why a trace cannot be read.

use thiserror::Error;

/// Why a trace cannot be read. Offsets are in the decompressed stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CbpError {
    /// The stream cannot be decompressed or read.
    #[error("offset {offset:#x}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: std::io::Error,
    },
    /// It ends within an instruction.
    #[error("offset {offset:#x}: the trace ends within the instruction that begins at {begin:#x}")]
    Truncated {
        /// Where.
        offset: u64,
        /// Offset of the instruction.
        begin: u64,
    },
    /// An unknown class.
    #[error("offset {offset:#x}: class {class}; there are 0 to 11")]
    Class {
        /// Where.
        offset: u64,
        /// The class.
        class: u8,
    },
    /// A flag that is neither 0 nor 1.
    #[error("offset {offset:#x}: taken is {value}, neither 0 nor 1")]
    Taken {
        /// Where.
        offset: u64,
        /// Its value.
        value: u8,
    },
    /// An unconditional branch that was not taken.
    #[error("offset {offset:#x}: a branch of class {class} was not taken")]
    NotTaken {
        /// Where.
        offset: u64,
        /// Number of its class.
        class: u8,
    },
}
