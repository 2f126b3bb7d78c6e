//! Intel's LBR driver, `arch/x86/events/intel/lbr.c`.

mod context;
mod cpu;
mod enable;
mod guest;
mod model;
mod read;
mod restore;
mod save;
mod sched;
mod software_filter;
mod users;

pub(crate) use context::SystemWide;
pub use context::{LbrContext, LbrDataId};
pub use cpu::{BranchRecord, BranchStack, CpuLbr, SharedSlot};
pub use guest::GuestLbrs;
pub use model::LbrModel;
pub use software_filter::{CodeBytes, NoCode};
