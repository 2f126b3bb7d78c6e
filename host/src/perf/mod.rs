//! Linux's perf: its core, Intel's PMU and LBR driver as one state machine, and branch filters from
//! `-j` to `LBR_SELECT`.
//!
//! The rules are those of `kernel/events/core.c`, `arch/x86/events/core.c`,
//! `arch/x86/events/intel/core.c`, `arch/x86/events/intel/lbr.c` and `arch/x86/events/utils.c`;
//! [`Behaviour`] has a switch for each that changed from version to version. `docs/linux.md` says
//! what was read and what is left out.

mod attr;
mod behaviour;
mod boot;
mod branch_sample;
mod branch_type;
mod canonical;
mod core;
mod errno;
mod event;
mod filter;
mod lbr;
mod perf_state;
mod pmi;
mod select;
mod state;
mod version;
mod x86;

pub use attr::{Creator, EventAttr, EventId, EventKind, Target};
pub use behaviour::{
    Behaviour, CallStackFreeze, CloneSwap, ExclusiveRule, FixedControl, GuestLbr, GuestMsrs,
    InfoRule, SchedHook, SelectSave,
};
pub use branch_sample::{
    FilterNameError, branch_filter_names, parse_branch_filter, with_event_privileges,
};
pub use branch_type::{X86Br, branch_type, perf_branch_type, stand_in};
pub use errno::Errno;
pub use event::Event;
pub use filter::{FilterError, LbrFilter};
pub use lbr::{
    BranchRecord, BranchStack, CodeBytes, CpuLbr, GuestLbrs, LbrContext, LbrDataId, LbrModel,
    NoCode, SharedSlot,
};
pub use perf_state::Perf;
pub(crate) use perf_state::TaskState;
pub use pmi::PmiSample;
pub use select::HardwareFilter;
pub use state::{EventCause, EventState, StackCause, StackState, StateOf};
pub use version::{KernelVersion, VersionError};
pub use x86::SwitchPair;

use lbr::SystemWide;
