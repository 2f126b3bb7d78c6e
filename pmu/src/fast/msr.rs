//! RDMSR, WRMSR, RDPMC.

use vlbr_arch::{
    Cpl, FixedCtrCtrl, Msr, PebsEnable, PerfCapabilities, PerfEvtSel, PerfGlobalStatus,
};

use super::config::Writable;
use super::{Pmu, slot};
use crate::profile::{MAX_FIXED, MAX_GP};
use crate::{
    Access, Counter, Environment, GpFault, GpReason, PmuError, Quirk, Refusal, SourceSet, Unfed,
};

/// Registers that only store: see [`Register::Stored`].
pub(super) const STORED: usize = 17;
const LD_LAT: usize = 0;
const FRONTEND: usize = 1;
const OFFCORE: usize = 2;
pub(super) const METRICS: usize = 4;
const RELOAD_GP: usize = 5;
const RELOAD_FIXED: usize = 13;

/// The register an address names on this part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Pmc(Counter),
    FullWidth(Counter),
    EvtSel(usize),
    FixedCtrl,
    Status,
    GlobalCtrl,
    StatusReset,
    StatusSet,
    InUse,
    Capabilities,
    PebsEnable,
    PebsDataCfg,
    DsArea,
    /// Writable bits.
    Stored(usize, u64),
}

impl Pmu {
    fn register(&self, msr: Msr) -> Option<Register> {
        let config = &self.config;
        let index = |base: Msr, count: u32| {
            let n = msr.value().wrapping_sub(base.value());
            (n < count).then_some(n as u8)
        };
        if let Some(n) = index(Msr::PMC0, config.gp) {
            return Some(Register::Pmc(Counter::Gp(n)));
        }
        if let Some(n) = index(Msr::PERFEVTSEL0, config.gp) {
            return Some(Register::EvtSel(usize::from(n)));
        }
        if config.capabilities.contains(PerfCapabilities::FW_WRITE)
            && let Some(n) = index(Msr::A_PMC0, config.gp)
        {
            return Some(Register::FullWidth(Counter::Gp(n)));
        }
        if let Some(i) = index(Msr::FIXED_CTR0, MAX_FIXED) {
            let exists = config.fixed_bits >> (32 + i) & 1 != 0;
            return exists.then_some(Register::FullWidth(Counter::Fixed(i)));
        }
        if config
            .capabilities
            .contains(PerfCapabilities::PEBS_OUTPUT_PT)
        {
            if let Some(n) = index(Msr::RELOAD_PMC0, config.gp) {
                return Some(Register::Stored(RELOAD_GP + usize::from(n), config.gp_mask));
            }
            if let Some(i) = index(Msr::RELOAD_FIXED_CTR0, MAX_FIXED) {
                let exists = config.fixed_bits >> (32 + i) & 1 != 0;
                let at = RELOAD_FIXED + usize::from(i);
                return exists.then_some(Register::Stored(at, config.fixed_mask));
            }
        }
        let pebs = self.profile.pebs();
        let offcore = |n: usize| {
            let mask = self.profile.offcore_rsp.get(n)?;
            Some(Register::Stored(OFFCORE + n, *mask))
        };
        let (register, exists) = match msr {
            Msr::FIXED_CTR_CTRL => (Register::FixedCtrl, config.version >= 2),
            Msr::PERF_GLOBAL_STATUS => (Register::Status, config.version >= 2),
            Msr::PERF_GLOBAL_CTRL => (Register::GlobalCtrl, config.version >= 2),
            Msr::PERF_GLOBAL_OVF_CTRL => (Register::StatusReset, config.version >= 2),
            Msr::PERF_GLOBAL_STATUS_SET => (Register::StatusSet, config.version >= 4),
            Msr::PERF_GLOBAL_INUSE => (Register::InUse, config.version >= 4),
            Msr::PERF_CAPABILITIES => (Register::Capabilities, true),
            Msr::PEBS_ENABLE => (Register::PebsEnable, pebs.is_some()),
            Msr::PEBS_DATA_CFG => (Register::PebsDataCfg, config.baseline()),
            Msr::DS_AREA => (Register::DsArea, pebs.is_some()),
            Msr::PERF_METRICS => (Register::Stored(METRICS, u64::MAX), config.metrics),
            Msr::PEBS_LD_LAT_THRESHOLD => (
                Register::Stored(LD_LAT, 0xffff),
                pebs.is_some_and(|pebs| pebs.load_latency),
            ),
            Msr::PEBS_FRONTEND => {
                let mask = pebs?.frontend_mask?;
                (Register::Stored(FRONTEND, mask), true)
            }
            Msr::OFFCORE_RSP_0 => return offcore(0),
            Msr::OFFCORE_RSP_1 => return offcore(1),
            _ => return None,
        };
        exists.then_some(register)
    }

    /// See [`crate::Device::rdmsr`].
    ///
    /// # Errors
    /// `#GP(0)`: no such register.
    pub fn rdmsr(&self, msr: Msr, environment: &dyn Environment) -> Result<u64, GpFault> {
        let register = self.register(msr).ok_or(GpFault {
            access: Access::Rdmsr(msr),
            reason: GpReason::NoSuchMsr,
        })?;
        Ok(match register {
            Register::Pmc(counter) | Register::FullWidth(counter) => self.values[slot(counter)],
            Register::EvtSel(n) => self.evtsel[n].bits(),
            Register::FixedCtrl => self.fixed_ctrl.bits(),
            Register::Status => self.global_status(environment),
            Register::GlobalCtrl => self.global_ctrl,
            Register::StatusReset | Register::StatusSet => 0,
            Register::InUse => self.in_use(),
            Register::Capabilities => self.config.capabilities.bits(),
            Register::PebsEnable => self.pebs_enable,
            Register::PebsDataCfg => self.pebs_data_cfg,
            Register::DsArea => self.ds_area,
            Register::Stored(n, _) => self.stored[n],
        })
    }

    pub(super) fn global_status(&self, environment: &dyn Environment) -> u64 {
        let frozen = self.config.freeze_bits && environment.lbr_frz();
        self.status | u64::from(frozen) << PerfGlobalStatus::LBR_FRZ.bits().trailing_zeros()
    }

    fn in_use(&self) -> u64 {
        let mut bits = 0;
        let mut interrupts = self.pebs_enable & self.config.pebs_counters != 0;
        for (n, select) in self.evtsel.iter().enumerate() {
            bits |= u64::from(select.event() != 0) << n;
            interrupts |= select.contains(PerfEvtSel::INT);
        }
        for i in 0..MAX_FIXED {
            let field = self.fixed_ctrl.field(i);
            bits |= u64::from(field & (FixedCtrCtrl::OS | FixedCtrCtrl::USR) != 0) << (32 + i);
            interrupts |= field & FixedCtrCtrl::PMI != 0;
        }
        bits | u64::from(interrupts) << 63
    }

    /// See [`crate::Device::reserved_bits`].
    #[must_use]
    pub fn reserved_bits(&self, msr: Msr) -> u64 {
        match self.register(msr) {
            None | Some(Register::Status | Register::InUse | Register::Capabilities) => u64::MAX,
            // Sign-extended, canonical: no single bit is reserved.
            Some(Register::Pmc(_) | Register::DsArea) => 0,
            Some(register) => !self.writable(register).mask,
        }
    }

    fn writable(&self, register: Register) -> Writable {
        let config = &self.config;
        Writable::of(match register {
            Register::EvtSel(n) => return config.evtsel[n],
            Register::FixedCtrl => return config.fixed_ctrl,
            Register::FullWidth(Counter::Gp(_)) => config.gp_mask,
            Register::FullWidth(Counter::Fixed(_)) => config.fixed_mask,
            Register::GlobalCtrl => config.global_ctrl,
            Register::StatusReset => config.status_reset,
            Register::StatusSet => config.status_reset & !PerfGlobalStatus::COND_CHGD.bits(),
            Register::PebsEnable => config.pebs_enable,
            Register::PebsDataCfg => config.pebs_data_cfg,
            Register::Stored(_, mask) => mask,
            Register::Pmc(_) | Register::DsArea => u64::MAX,
            Register::Status | Register::InUse | Register::Capabilities => 0,
        })
    }

    /// See [`crate::Device::wrmsr`].
    ///
    /// # Errors
    /// `#GP(0)`, or a refusal. Nothing is changed then.
    pub fn wrmsr(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), PmuError> {
        let access = Access::Wrmsr(msr, value);
        let gp = |reason| GpFault { access, reason };
        let register = self.register(msr).ok_or(gp(GpReason::NoSuchMsr))?;
        let writable = self.writable(register);
        let reserved = value & !writable.mask;
        let value = value & !writable.dropped;
        match register {
            Register::Status | Register::InUse | Register::Capabilities => {
                return Err(gp(GpReason::ReadOnly).into());
            }
            Register::FullWidth(Counter::Gp(_)) if reserved != 0 => {
                return Err(gp(GpReason::Width(self.config.gp_width)).into());
            }
            Register::FullWidth(Counter::Fixed(_)) if reserved != 0 => {
                return Err(gp(GpReason::Width(self.config.fixed_width)).into());
            }
            Register::DsArea if !canonical(value, self.config.canonical_bits) => {
                return Err(gp(GpReason::NonCanonical(self.config.canonical_bits)).into());
            }
            _ if reserved != 0 => return Err(gp(GpReason::Reserved(reserved)).into()),
            _ => {}
        }
        self.write(register, value, environment)
            .map_err(|refusal| PmuError::Refused { access, refusal })
    }

    fn write(
        &mut self,
        register: Register,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), Refusal> {
        match register {
            Register::Pmc(counter) => {
                self.load(
                    counter,
                    value as u32 as i32 as i64 as u64 & self.config.gp_mask,
                );
            }
            Register::FullWidth(counter) => self.load(counter, value),
            Register::EvtSel(n) => self.select(n, PerfEvtSel::from_bits(value))?,
            Register::FixedCtrl => self.control_fixed(FixedCtrCtrl::from_bits(value))?,
            Register::GlobalCtrl => {
                if value & PerfGlobalStatus::PERF_METRICS_OVF.bits() != 0 {
                    return Err(Refusal::Metrics);
                }
                self.global_ctrl = value;
            }
            Register::StatusReset => self.acknowledge(value, environment),
            Register::StatusSet => {
                if value & PerfGlobalStatus::LBR_FRZ.bits() != 0 {
                    environment.set_lbr_frz(true);
                }
                self.status |= value & !PerfGlobalStatus::LBR_FRZ.bits();
            }
            Register::PebsEnable => {
                let to_pt = PebsEnable::PMI_AFTER_EACH_RECORD | PebsEnable::OUTPUT_PT;
                if value & to_pt.bits() != 0 {
                    return Err(Refusal::PebsToPt(PebsEnable::from_bits(value)));
                }
                self.pebs_enable = value;
                self.armed &= value;
            }
            Register::PebsDataCfg => self.pebs_data_cfg = value,
            Register::DsArea => self.ds_area = value,
            Register::Stored(n, _) => self.stored[n] = value,
            Register::Status | Register::InUse | Register::Capabilities => {}
        }
        self.refresh();
        Ok(())
    }

    fn load(&mut self, counter: Counter, value: u64) {
        self.values[slot(counter)] = value;
        if counter == Counter::Gp(2) {
            self.checkpoint = None;
        }
    }

    fn select(&mut self, n: usize, select: PerfEvtSel) -> Result<(), Refusal> {
        let counter = Counter::Gp(n as u8);
        let counts =
            select.contains(PerfEvtSel::EN) && select.intersects(PerfEvtSel::USR | PerfEvtSel::OS);
        let sources = match counts {
            true => self.profile.sources_of(counter, select, &self.options),
            false => Ok(SourceSet::EMPTY),
        };
        self.set_sources(counter, self.may_hold(sources)?);
        self.evtsel[n] = select;
        self.conditions &= !(1 << n);
        if n == 2 {
            self.checkpoint = None;
        }
        Ok(())
    }

    fn control_fixed(&mut self, control: FixedCtrCtrl) -> Result<(), Refusal> {
        let mut found = [const { Ok(SourceSet::EMPTY) }; MAX_FIXED as usize];
        for (i, sources) in (0u8..).zip(&mut found) {
            if control.field(u32::from(i)) & (FixedCtrCtrl::OS | FixedCtrCtrl::USR) != 0 {
                *sources = self.may_hold(self.profile.sources_of_fixed(i, &self.options))?;
            }
        }
        for (i, sources) in (0u8..).zip(found) {
            self.set_sources(Counter::Fixed(i), sources);
        }
        self.fixed_ctrl = control;
        Ok(())
    }

    /// What an event nobody feeds comes to: the write fails, or the counter is held.
    fn may_hold(
        &self,
        sources: Result<SourceSet, Refusal>,
    ) -> Result<Result<SourceSet, Refusal>, Refusal> {
        match (sources, self.options.unfed) {
            (Err(refusal), Unfed::Refuse) => Err(refusal),
            (sources, _) => Ok(sources),
        }
    }

    fn set_sources(&mut self, counter: Counter, sources: Result<SourceSet, Refusal>) {
        let at = slot(counter);
        self.sources[at] = sources.as_ref().copied().unwrap_or_default();
        self.held[at] = sources.err();
    }

    fn acknowledge(&mut self, value: u64, environment: &mut dyn Environment) {
        use PerfGlobalStatus as Bit;
        if value & Bit::LBR_FRZ.bits() != 0 {
            environment.set_lbr_frz(false);
        }
        let mut cleared = value;
        if self.config.has(Quirk::EarlyAckFreezes) && self.lvtpc.contains(vlbr_arch::LvtPc::MASK) {
            cleared &= !Bit::CTR_FRZ.bits();
        }
        self.status &= !cleared;
    }

    /// See [`crate::Device::rdpmc`].
    ///
    /// # Errors
    /// `#GP(0)`: no such counter, or not at this privilege level.
    pub fn rdpmc(&self, ecx: u32, cpl: Cpl, cr4_pce: bool) -> Result<u64, GpFault> {
        let gp = |reason| GpFault {
            access: Access::Rdpmc(ecx),
            reason,
        };
        if !cpl.is_kernel() && !cr4_pce {
            return Err(gp(GpReason::Privilege));
        }
        let index = ecx & 0xffff;
        let value = match ecx >> 16 {
            0 if index < self.config.gp => self.values[index as usize],
            0x4000 if index < MAX_FIXED && self.config.fixed_bits >> (32 + index) & 1 != 0 => {
                self.values[MAX_GP as usize + index as usize]
            }
            0x2000 if index == 0 && self.config.metrics => self.stored[METRICS],
            _ => return Err(gp(GpReason::NoSuchCounter)),
        };
        Ok(value)
    }

    pub(super) fn every_msr(&self) -> Vec<Msr> {
        let families = [
            (Msr::PMC0, MAX_GP),
            (Msr::PERFEVTSEL0, MAX_GP),
            (Msr::FIXED_CTR0, MAX_FIXED),
            (Msr::A_PMC0, MAX_GP),
            (Msr::RELOAD_FIXED_CTR0, MAX_FIXED),
            (Msr::RELOAD_PMC0, MAX_GP),
        ];
        let singles = [
            Msr::OFFCORE_RSP_0,
            Msr::OFFCORE_RSP_1,
            Msr::PERF_METRICS,
            Msr::PERF_CAPABILITIES,
            Msr::FIXED_CTR_CTRL,
            Msr::PERF_GLOBAL_STATUS,
            Msr::PERF_GLOBAL_CTRL,
            Msr::PERF_GLOBAL_OVF_CTRL,
            Msr::PERF_GLOBAL_STATUS_SET,
            Msr::PERF_GLOBAL_INUSE,
            Msr::PEBS_ENABLE,
            Msr::PEBS_DATA_CFG,
            Msr::PEBS_LD_LAT_THRESHOLD,
            Msr::PEBS_FRONTEND,
            Msr::DS_AREA,
        ];
        let mut msrs: Vec<Msr> = families
            .into_iter()
            .flat_map(|(base, count)| (0..count).map(move |n| base.plus(n)))
            .chain(singles)
            .filter(|msr| self.register(*msr).is_some())
            .collect();
        msrs.sort_unstable();
        msrs
    }
}

/// Every bit from the sign bit of a linear address on is equal.
fn canonical(address: u64, bits: u8) -> bool {
    let shift = 64 - u32::from(bits);
    ((address << shift) as i64 >> shift) as u64 == address
}
