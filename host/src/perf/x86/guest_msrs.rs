//! What is switched around VM entry: `perf_guest_get_msrs`.

use vlbr_arch::Msr;

use super::FIXED;
use crate::CpuId;
use crate::perf::{GuestMsrs, Perf};

/// An MSR and its values on both sides of VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SwitchPair {
    /// The register.
    pub msr: Msr,
    /// Its value in root operation.
    pub host: u64,
    /// Its value in non-root operation.
    pub guest: u64,
}

impl Perf {
    /// Whether the guest that runs on a processor owns its LBR: bit 58 of the guest mask,
    /// `vcpu_lbr` in v8, or by [`Perf::guest_lbr_load`]. The host then neither enables, disables nor reads it.
    ///
    /// # Panics
    /// There is no such processor.
    #[must_use]
    pub fn guest_owns_lbr(&self, cpu: CpuId) -> bool {
        let state = self.cpu(cpu);
        state.lbr.vcpu_lbr || state.lbr.lent || state.pmu.guest_mask >> super::VLBR & 1 != 0
    }

    /// The MSRs that KVM switches at VM entry and exit on a processor: `intel_guest_get_msrs`.
    /// Never one of the LBR. Of equal values nothing needs to be switched. Where guests have PEBS,
    /// the guest's side of DS_AREA, PEBS_DATA_CFG and PEBS_ENABLE is KVM's to fill.
    ///
    /// # Panics
    /// There is no such processor.
    pub fn guest_msrs(&self, cpu: CpuId) -> impl Iterator<Item = SwitchPair> + use<> {
        let state = &self.cpu(cpu).pmu;
        let pebs_counters = if self.pmu.pebs_all {
            self.pmu.pebs
        } else {
            self.pmu.pebs & ((1 << FIXED) - 1)
        };
        let pebs = state.pebs_enabled & pebs_counters;
        let global = SwitchPair {
            msr: Msr::PERF_GLOBAL_CTRL,
            host: self.pmu.counters & !state.guest_mask,
            guest: self.pmu.counters & !state.host_mask & !pebs,
        };
        let area = |msr| SwitchPair {
            msr,
            host: 0,
            guest: 0,
        };
        let enable = SwitchPair {
            host: state.pebs_enabled,
            ..area(Msr::PEBS_ENABLE)
        };
        let guest_pebs =
            self.behaviour.guest_msrs == GuestMsrs::GuestPebs && self.behaviour.guest_pebs;
        let mut pairs = [Some(global), None, None, None];
        if self.pmu.pebs != 0 && !self.behaviour.pebs_isolated {
            pairs[1] = Some(enable);
        } else if self.pmu.pebs != 0 && guest_pebs {
            let of_baseline = self.pmu.pebs_baseline;
            pairs[1] = Some(area(Msr::DS_AREA));
            pairs[2] = of_baseline.then(|| area(Msr::PEBS_DATA_CFG));
            pairs[3] = Some(SwitchPair {
                host: state.pebs_enabled & !state.guest_mask,
                ..enable
            });
        }
        pairs.into_iter().flatten()
    }
}
