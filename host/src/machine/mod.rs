//! The whole host as one deterministic state machine.

mod canonical;
mod checked;
mod checks;
mod code;
mod compare;
mod error;
mod host;
mod input;
mod migrate;
mod msrs;
mod run;
mod switch;
mod watch;

pub use canonical::Canonical;
pub use checked::{Checking, Machine};
pub use checks::{Difference, Findings, Rule, Violation};
pub use code::Code;
pub use error::HostError;
pub use host::{Host, HostConfig, Task};
pub use input::{FastPath, Input, Output};
pub use migrate::{Arrival, Carried, Migration, MsrValues};
pub use run::{ExitCause, GuestFault, GuestMsrAccess};
