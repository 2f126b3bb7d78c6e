//! The core's PMU as perf drives it: `arch/x86/events/core.c`, `arch/x86/events/intel/core.c`.

mod assign;
mod collect;
mod config;
mod constraints;
mod guest_msrs;
mod model;
mod program;

pub(crate) use collect::CpuPmu;
pub use guest_msrs::SwitchPair;
pub(crate) use model::PmuModel;

/// First index of fixed counters: `INTEL_PMC_IDX_FIXED`.
pub(crate) const FIXED: u8 = 32;
/// The false counter that stands for the guest's LBR: `INTEL_PMC_IDX_FIXED_VLBR`.
pub(crate) const VLBR: u8 = 58;
