//! Why a block takes the cycles that it takes, for people and for machines, and how predictions of
//! many blocks agree with measurements.
//!
//! ```
//! use vlbr_timing::bound::{BlockModel, Repetition};
//! use vlbr_timing::report::{Code, explain};
//! use vlbr_timing::{Environment, microarchitectures};
//!
//! let core = microarchitectures().named("skylake").expect("built in");
//! let mut model = BlockModel::new(core, Environment::Unknown);
//! let code = Code::new(vec![0x48, 0x0f, 0xaf, 0xc3]); // imul rax, rbx
//! let report = explain(&mut model, &code, Repetition::Unrolled)?;
//! assert_eq!(report.cycles, 3.0);
//! assert_eq!(report.chain[0].text, "imul rax, rbx");
//! # Ok::<(), vlbr_timing::LowerError>(())
//! ```

mod assemble;
mod block;
mod hex;
mod judge;
mod pressure;
mod reason;
mod rows;
mod text;
mod unlinked;
mod values;

pub use assemble::{AssembleError, Region, assemble};
pub use block::{BlockReport, BoundRow, ChainRow, Code, InstructionRow, Marker, PortRow, explain};
pub use hex::{HexError, MAX_BYTES, parse_hex};
pub use judge::{Judged, JudgedRow, NoBlock, judge};
pub use rows::{MAX_ROWS, Row, RowError, RowReason, read_rows};
pub use unlinked::{UnlinkedError, unlinked};

#[cfg(test)]
mod tests;
