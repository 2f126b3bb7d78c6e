//! Checks of VM entry. SDM volume 3, "Checks on VMX Controls and Host-State Area", "Checking and
//! Loading Guest State": those that concern MSRs, debug control, LBR, counters and events.

mod controls;
mod guest;
mod host;

pub use controls::{ControlFault, ControlVector};
pub use guest::GuestFault;
pub use host::HostFault;

pub(crate) use controls::check_controls;
pub(crate) use guest::check_guest;
pub(crate) use host::check_host;
