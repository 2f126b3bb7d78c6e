//! Intel performance monitoring: events, counters, overflow, PEBS.
//!
//! [`Pmu`] is the device, made from a [`Profile`] (which processor) and [`Options`] (what
//! documentation leaves open, and what the caller feeds). [`Device`] is its face, which
//! [`reference::Pmu`], a slow second reading of the rules, has too. [`Environment`] is what stands
//! around it: the LBR, memory, the core's registers.
#![forbid(unsafe_code)]

mod counter;
mod device;
mod encoding;
mod environment;
mod fast;
mod gp;
mod horizon;
mod increments;
mod name;
mod options;
mod period;
mod pmi;
mod profile;
mod quirk;
pub mod reference;
mod source;

pub use counter::{Counter, CounterSet, Selector};
pub use device::Device;
pub use encoding::{Encoding, PerfType};
pub use environment::{Alone, Environment, MachineState, MemoryFault};
pub use fast::{AmountsError, Pmu};
pub use gp::{Access, GpFault, GpReason, PmuError, Refusal};
pub use horizon::{Horizon, Limit};
pub use increments::Increments;
pub use name::{EventNameError, EventSpec};
pub use options::{
    FreezeFlavour, Options, OptionsError, ReservedWrite, SkidUnit, SmmRestore, Unfed,
};
pub use period::PeriodError;
pub use pmi::{Interrupt, Outcome, PebsOutcome, PebsRecord, Pending, PmiCause, Reset};
pub use profile::{EventEntry, Pdir, PebsFull, PebsProfile, Profile, ProfileError};
pub use quirk::{Quirk, QuirkSet, UnknownQuirk};
pub use source::{Source, SourceSet};
pub use vlbr_data::TomlError;
