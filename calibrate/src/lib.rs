//! Cost models from measurement.
//!
//! `module/` and `image/` are programs that time MSR accesses, XSAVES and VM transitions on the
//! machine they run on and print what they read off the clock; `docs/calibrate.md` has the line
//! format. [`parse()`] reads that text, [`calibrate()`] makes figures of it and fills the rest from a base
//! model, and [`Calibration::to_toml`] writes what
//! [`CostModel::from_toml`](vlbr_cpu::ledger::CostModel::from_toml) reads.
//!
//! A figure has class H only if a processor was timed: readings from below a hypervisor or an emulator
//! are refused or have class E, as have those of a text that calls itself synthetic.
#![forbid(unsafe_code)]

mod cycles;
mod error;
mod fields;
mod model;
mod parse;
mod run;
mod sweep;
mod text;
mod trust;

pub use error::{CalibrateError, LineError, ParseError};
pub use model::{Calibration, Figure, Options, Provenance, calibrate};
pub use parse::{MAX_ROWS, parse};
pub use run::{Clock, Core, Kind, Origin, Program, Row, Run, Signature, Skip, Ticks};
