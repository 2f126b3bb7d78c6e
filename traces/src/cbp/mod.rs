//! Traces of the Championship Branch Prediction of 2025: a gzip stream of instructions of Arm64, each with
//! its address, class, direction and target.
//!
//! Layout of an instruction, little-endian: address (8 bytes), class (1); of a load or store address (8),
//! size (1), base update (1), of a store also register offset (1); of a branch taken (1) and, if taken,
//! target (8); registers read (a count, then 1 each), registers written (likewise), and the values written, 8
//! bytes each, of vector registers (32 to 63) 16. The competition's simulator holds an instruction behind
//! each one at its address plus 4.

mod error;
mod instruction;
mod read;
mod write;

pub use error::CbpError;
pub use instruction::{Class, Instruction};
pub use read::Reader;
pub use write::Writer;

/// The first bytes of a gzip stream, by which such a trace is told from a `.vlt`.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

#[cfg(test)]
mod tests;
