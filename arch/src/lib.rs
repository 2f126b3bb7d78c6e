//! x86 names and layouts for the vlbr emulator: MSRs, bits, branch classes. No logic.
#![forbid(unsafe_code)]

mod branch;
mod mode;

pub use branch::{BranchClass, FarKind, Transfer};
pub use mode::{CodeSize, Cpl};
