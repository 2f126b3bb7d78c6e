//! Scenarios as JSON, for other emulators and hypervisors. docs/scenario-export.md says the form.

mod branch;
mod case;
mod cpu;
mod entry;
mod flatten;
mod hash;
mod hex;
mod layout;
mod machine;
mod options;
mod pmu;
mod pmu_options;
mod register;
mod step;
mod undefined;
mod vmx;
mod write;

pub use write::{ExportError, ExportSummary, VERSION, export};
