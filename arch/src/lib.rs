//! x86 names and layouts for the vlbr emulator: MSRs, bits, branch classes. No logic.
#![forbid(unsafe_code)]

mod bits;
mod branch;
mod cpuid;
mod cycles;
mod debugctl;
mod lbr_ctl;
mod lbr_format;
mod lbr_info;
mod lbr_select;
mod lvt;
mod mode;
mod msr;
mod pebs;
mod perf_counter;
mod perf_global;
pub mod vmx;

pub use branch::{BranchClass, FarKind, Transfer};
pub use cpuid::{
    CPUID_LEAF_ARCH_LBR, CPUID_LEAF_PERFMON, CPUID_LEAF_XSTATE, CpuidResult, XSTATE_LBR,
    XSTATE_LBR_SIZE,
};
pub use cycles::Cycles;
pub use debugctl::DebugCtl;
pub use lbr_ctl::LbrCtl;
pub use lbr_format::LbrFormat;
pub use lbr_info::{BrType, LbrInfo};
pub use lbr_select::LbrSelect;
pub use lvt::{DeliveryMode, LvtPc};
pub use mode::{CodeSize, Cpl};
pub use msr::{Msr, UnknownMsr};
pub use pebs::{PebsDataCfg, PebsEnable, TxAbortInfo, ds};
pub use perf_counter::{FixedCtrCtrl, PerfEvtSel};
pub use perf_global::{PerfCapabilities, PerfGlobalStatus};
