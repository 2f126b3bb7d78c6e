//! VMX, as far as LBR, performance counters and MSRs meet it.
//!
//! [`Vmx`] is the VMX side of a logical processor: VMXON to VMXOFF, the current [`Vmcs`], VM entry
//! ([`Vmx::enter`]) and VM exit ([`Vmx::exit`]) with their checks and MSR areas, and what exits
//! ([`Vmx::guest_msr`] and its like). It reaches MSRs through
//! [`vlbr_cpu::ledger::MsrAccess`], memory through [`PhysicalMemory`], and counts in a
//! [`vlbr_cpu::ledger::Ledger`].
//!
//! The LBR is neither told of an entry or exit nor switched by one: records change only as the
//! areas write them, and recording stops and starts with `IA32_DEBUGCTL` and `IA32_LBR_CTL`.
#![forbid(unsafe_code)]

mod area;
mod bitmap;
mod check;
mod context;
mod dump;
mod entry;
mod error;
mod exit;
mod inject;
mod intercept;
mod msr_access;
mod operation;
mod options;
mod profile;
mod timer;
mod vmcs;

pub use area::{AreaEntry, AreaFault, Forbidden};
pub use bitmap::{Access, BitmapError, MsrBitmap};
pub use check::{ControlFault, ControlVector, GuestFault, HostFault};
pub use context::{Context, PhysicalMemory, Registers};
pub use dump::DumpError;
pub use entry::{EntryCause, EntryError, EntryFailure, Launch};
pub use error::{Fail, FailReason};
pub use exit::{Abort, AbortCause, VmExit};
pub use inject::{Injected, InjectionFault};
pub use msr_access::{GuestMsr, GuestMsrStop};
pub use operation::{OperandSize, State, Vmx};
pub use options::{BeyondLimit, Options, OptionsError};
pub use profile::{Allowed, VmxProfile, VmxProfileError};
pub use timer::PreemptionTimer;
pub use vmcs::{LaunchState, Vmcs};
