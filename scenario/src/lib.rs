//! Golden text scenarios: rules of behaviour any emulator can be run against.
//!
//! A scenario is one text file under `scenarios/` that states one rule: which processors it
//! concerns, what is given, what happens, what must be seen. [`run`] runs files on every processor
//! they name, on the fast and on the literal device. The form is described in
//! `scenarios/README.md`.
#![forbid(unsafe_code)]

mod area;
mod compare;
mod discover;
mod error;
mod execute;
mod export;
mod expr;
pub mod golden;
mod host;
pub mod host_step;
mod index;
mod machine;
mod parse;
mod pmu_step;
mod report;
mod select;
mod smt;
mod step;
mod vmx_step;
mod world;

pub use area::Area;
pub use compare::Mismatch;
pub use discover::{DiscoverError, MAX_FILE_BYTES, discover, load, load_with};
pub use error::{ParseError, Reason};
pub use execute::{run, run_scenario, run_with};
pub use export::{ExportError, ExportSummary, VERSION as EXPORT_VERSION, export};
pub use expr::{Expr, Operator};
pub use host::{HostKernel, HostMachine, HostNames, StageError};
pub use index::{IndexError, Rule, index, parse_rules};
pub use parse::{Evidence, HostHeader, QuirkChange, Scenario, parse, parse_with};
pub use pmu_step::{PmuStep, StateField};
pub use report::{DeviceKind, Failure, FileReport, Report};
pub use select::Selection;
pub use step::{
    Action, Branch, BranchOutcome, Check, EntryCheck, Expected, Fault, ImageField, Phase,
    ReadCheck, Register, Step, Unseen, WriteOutcome,
};
pub use vmx_step::{BitmapBits, GuestEvent, VmxOutcome, VmxRead, VmxStep};
