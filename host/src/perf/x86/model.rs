//! The part's PMU, as far as perf looks at it: `struct x86_pmu`.

use vlbr_arch::{LvtPc, PerfCapabilities};
use vlbr_cpu::processor::LogicalProcessor;

use super::FIXED;

/// Counters and PEBS of the part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PmuModel {
    /// `version`: architectural performance monitoring.
    pub(crate) version: u8,
    /// `num_counters`: G.
    pub(crate) gp: u8,
    /// `num_counters_fixed`: F.
    pub(crate) fixed: u8,
    /// `intel_ctrl`: every counter's bit.
    pub(crate) counters: u64,
    gp_width: u32,
    fixed_width: u32,
    /// Writes of the whole width: `PERF_CAP_FW_WRITE`.
    pub(crate) full_width: bool,
    /// Counters that can do PEBS, by bit of `GLOBAL_CTRL`.
    pub(crate) pebs: u64,
    /// `intel_cap.pebs_format`.
    pub(crate) pebs_format: u8,
    /// `intel_cap.pebs_baseline`: adaptive PEBS, whose records hold the LBR.
    pub(crate) pebs_baseline: bool,
    /// `PMU_FL_PEBS_ALL`: PEBS on every counter and for every event.
    pub(crate) pebs_all: bool,
}

impl PmuModel {
    pub(crate) fn of(processor: &LogicalProcessor) -> Self {
        let profile = vlbr_pmu::Device::profile(processor.pmu());
        let capabilities = profile.perf_capabilities();
        let gp = profile.gp_counters() as u8;
        let fixed_mask = u64::from(profile.fixed_mask());
        let pebs = profile.pebs().map_or(0, |pebs| {
            u64::from(pebs.counters) | u64::from(pebs.fixed_counters) << FIXED
        });
        let counters = ((1 << gp) - 1) | fixed_mask << FIXED;
        Self {
            version: profile.version(),
            gp,
            fixed: profile.fixed_mask().count_ones() as u8,
            counters,
            gp_width: profile.gp_width(),
            fixed_width: profile.fixed_width(),
            full_width: capabilities.contains(PerfCapabilities::FW_WRITE),
            pebs,
            pebs_format: capabilities.pebs_format(),
            pebs_baseline: capabilities.contains(PerfCapabilities::PEBS_BASELINE),
            pebs_all: pebs >> FIXED != 0,
        }
    }

    /// `cntval_mask` of a counter.
    pub(crate) const fn mask(&self, idx: u8) -> u64 {
        let width = if idx >= FIXED {
            self.fixed_width
        } else {
            self.gp_width
        };
        u64::MAX >> (64 - width)
    }

    /// `max_period`.
    pub(crate) const fn max_period(&self) -> u64 {
        if self.full_width {
            (u64::MAX >> (64 - self.gp_width)) >> 1
        } else {
            (1 << 31) - 1
        }
    }

    /// The LVT entry of PMIs as perf writes it: NMI.
    pub(crate) const NMI: LvtPc = LvtPc::from_bits(0x400);
}
