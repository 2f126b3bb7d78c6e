//! RDMSR, WRMSR, RDPMC.

use std::collections::BTreeMap;

use vlbr_arch::{Cpl, Msr, PebsEnable, PerfEvtSel};

use super::Pmu;
use crate::{
    Access, Counter, Environment, GpFault, GpReason, PmuError, Quirk, Refusal, ReservedWrite, Unfed,
};

/// How a register takes values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    ReadOnly,
    /// 32 bits, sign-extended to the counter's width.
    Narrow(Counter),
    /// As wide as the counter.
    Wide(Counter),
    /// Bits that may be set, and of them those that are dropped.
    Bits {
        may: u64,
        dropped: u64,
    },
    Address,
}

fn bits(positions: impl IntoIterator<Item = u32>) -> u64 {
    positions.into_iter().fold(0, |word, bit| word | 1 << bit)
}

const fn plain(may: u64) -> Rule {
    Rule::Bits { may, dropped: 0 }
}

impl Pmu {
    /// Every register of the part with its rule.
    fn rules(&self) -> BTreeMap<u32, Rule> {
        let mut rules = BTreeMap::new();
        let mut add = |msr: Msr, rule: Rule| {
            rules.insert(msr.value(), rule);
        };
        let version = self.version();
        let metrics = self.has_metrics();
        for counter in self.counters() {
            match counter {
                Counter::Gp(n) => {
                    add(Self::home(counter), Rule::Narrow(counter));
                    add(Self::evtsel(n), self.evtsel_rule(u32::from(n)));
                    if self.capability(13) {
                        add(Msr::A_PMC0.plus(u32::from(n)), Rule::Wide(counter));
                    }
                    if self.capability(16) {
                        add(
                            Msr::RELOAD_PMC0.plus(u32::from(n)),
                            plain(self.largest(counter)),
                        );
                    }
                }
                Counter::Fixed(i) => {
                    add(Self::home(counter), Rule::Wide(counter));
                    if self.capability(16) {
                        let msr = Msr::RELOAD_FIXED_CTR0.plus(u32::from(i));
                        add(msr, plain(self.largest(counter)));
                    }
                }
            }
        }
        add(Msr::PERF_CAPABILITIES, Rule::ReadOnly);
        if version >= 2 {
            add(Msr::FIXED_CTR_CTRL, self.fixed_rule());
            add(Msr::PERF_GLOBAL_STATUS, Rule::ReadOnly);
            let counters: Vec<u32> = self.counters().into_iter().map(Counter::bit).collect();
            let metric = metrics.then_some(48);
            add(
                Msr::PERF_GLOBAL_CTRL,
                plain(bits(counters.iter().copied().chain(metric))),
            );
            let mut status = counters;
            status.extend(metric);
            status.push(62);
            if version >= 3 {
                status.push(61);
            }
            if version >= 4 {
                status.extend([55, 60]);
            }
            if self.has_freeze_bits() {
                status.extend([58, 59]);
            }
            if version >= 4 {
                add(
                    Msr::PERF_GLOBAL_STATUS_SET,
                    plain(bits(status.iter().copied())),
                );
                add(Msr::PERF_GLOBAL_INUSE, Rule::ReadOnly);
            }
            status.push(63);
            add(Msr::PERF_GLOBAL_OVF_CTRL, plain(bits(status)));
        }
        if metrics {
            add(Msr::PERF_METRICS, plain(u64::MAX));
        }
        for (n, mask) in (0..).zip(&self.profile.offcore_rsp) {
            add(Msr::OFFCORE_RSP_0.plus(n), plain(*mask));
        }
        if let Some(pebs) = &self.profile.pebs {
            add(Msr::DS_AREA, Rule::Address);
            add(Msr::PEBS_ENABLE, plain(self.pebs_enable_bits()));
            if self.adaptive() {
                add(Msr::PEBS_DATA_CFG, plain(self.data_cfg_bits()));
            }
            if pebs.load_latency {
                add(Msr::PEBS_LD_LAT_THRESHOLD, plain(bits(0..16)));
            }
            if let Some(mask) = pebs.frontend_mask {
                add(Msr::PEBS_FRONTEND, plain(mask));
            }
        }
        rules
    }

    fn largest(&self, counter: Counter) -> u64 {
        bits(0..self.width(counter))
    }

    /// How AnyThread bits are taken.
    fn any_rule(&self) -> ReservedWrite {
        if self.version() < 3 {
            ReservedWrite::Fault
        } else if self.leaf().edx >> 15 & 1 == 1 {
            self.options.any_thread_deprecated
        } else {
            ReservedWrite::Keep
        }
    }

    fn evtsel_rule(&self, n: u32) -> Rule {
        let mut may = bits((0..19).chain(24..32).chain([20, 22, 23]));
        let mut dropped = 0;
        let pin = match self.profile.pin_control {
            true => ReservedWrite::Keep,
            false => self.options.pin_control_reserved,
        };
        for (bit, how) in [(19, pin), (21, self.any_rule())] {
            if how != ReservedWrite::Fault {
                may |= 1 << bit;
            }
            if how == ReservedWrite::Drop {
                dropped |= 1 << bit;
            }
        }
        if self.tsx() {
            may |= 1 << 32;
            if n == 2 {
                may |= 1 << 33;
            }
        }
        if self.adaptive() {
            may |= 1 << 34;
        }
        if u32::from(self.profile.event_logging) >> n & 1 == 1 {
            may |= 1 << 35;
        }
        Rule::Bits { may, dropped }
    }

    fn fixed_rule(&self) -> Rule {
        let (mut may, mut dropped) = (0, 0);
        for i in (0..4).filter(|i| self.has_fixed(*i)) {
            may |= bits([4 * i, 4 * i + 1, 4 * i + 3]);
            let any = 1 << (4 * i + 2);
            match self.any_rule() {
                ReservedWrite::Fault => {}
                ReservedWrite::Keep => may |= any,
                ReservedWrite::Drop => {
                    may |= any;
                    dropped |= any;
                }
            }
            if self.adaptive() {
                may |= 1 << (32 + 4 * i);
            }
        }
        Rule::Bits { may, dropped }
    }

    /// Whether the part can make PEBS records for the counter.
    pub(super) fn can_sample(&self, counter: Counter) -> bool {
        let Some(pebs) = &self.profile.pebs else {
            return false;
        };
        match counter {
            Counter::Gp(n) => pebs.counters >> n & 1 == 1,
            Counter::Fixed(i) => pebs.fixed_counters >> i & 1 == 1,
        }
    }

    fn pebs_enable_bits(&self) -> u64 {
        let counters = self.counters().into_iter();
        let mut may = bits(counters.filter(|c| self.can_sample(*c)).map(Counter::bit));
        let Some(pebs) = &self.profile.pebs else {
            return may;
        };
        if pebs.load_latency && !self.adaptive() {
            may |= bits(32..36);
        }
        if pebs.precise_store {
            may |= 1 << 63;
        }
        if self.capability(16) {
            may |= bits([60, 61]);
        }
        may
    }

    fn data_cfg_bits(&self) -> u64 {
        let mut may = bits((0..4).chain(24..32));
        if self.pebs_format() == 6 {
            may |= 1 << 4;
            if self.has_metrics() {
                may |= 1 << 5;
            }
            for counter in self.counters() {
                may |= match counter {
                    Counter::Gp(n) => 1 << (32 + n),
                    Counter::Fixed(i) => 1 << (48 + i),
                };
            }
        }
        may
    }

    pub(super) fn pebs_format(&self) -> u64 {
        self.profile.perf_capabilities().bits() >> 8 & 0xf
    }

    pub(super) fn existing(&self) -> Vec<Msr> {
        self.rules().into_keys().map(Msr::new).collect()
    }

    pub(super) fn reserved(&self, msr: Msr) -> u64 {
        match self.rules().get(&msr.value()) {
            None | Some(Rule::ReadOnly) => u64::MAX,
            Some(Rule::Narrow(_) | Rule::Address) => 0,
            Some(Rule::Wide(counter)) => !self.largest(*counter),
            Some(Rule::Bits { may, .. }) => !may,
        }
    }

    pub(super) fn read(&self, msr: Msr, environment: &dyn Environment) -> Result<u64, GpFault> {
        let no_such = GpFault {
            access: Access::Rdmsr(msr),
            reason: GpReason::NoSuchMsr,
        };
        let rules = self.rules();
        let rule = rules.get(&msr.value()).ok_or(no_such)?;
        Ok(match (msr, rule) {
            (_, Rule::Narrow(counter) | Rule::Wide(counter)) => self.get(Self::home(*counter)),
            (Msr::PERF_CAPABILITIES, _) => self.profile.perf_capabilities().bits(),
            (Msr::PERF_GLOBAL_STATUS, _) => self.status(environment),
            (Msr::PERF_GLOBAL_INUSE, _) => self.in_use(),
            (Msr::PERF_GLOBAL_OVF_CTRL | Msr::PERF_GLOBAL_STATUS_SET, _) => 0,
            _ => self.get(msr),
        })
    }

    pub(super) fn status(&self, environment: &dyn Environment) -> u64 {
        let mut status = self.get(Msr::PERF_GLOBAL_STATUS);
        if self.has_freeze_bits() && environment.lbr_frz() {
            status |= 1 << 58;
        }
        status
    }

    fn in_use(&self) -> u64 {
        let mut word = 0;
        for counter in self.counters() {
            let (used, interrupts) = match counter {
                Counter::Gp(n) => {
                    let select = self.get(Self::evtsel(n));
                    (select & 0xff != 0, select >> 20 & 1 == 1)
                }
                Counter::Fixed(i) => (
                    self.fixed_bit(i, 0) || self.fixed_bit(i, 1),
                    self.fixed_bit(i, 3),
                ),
            };
            if used {
                word |= 1 << counter.bit();
            }
            if interrupts || self.samples(counter) {
                word |= 1 << 63;
            }
        }
        word
    }

    /// PEBS is on for the counter.
    pub(super) fn samples(&self, counter: Counter) -> bool {
        self.can_sample(counter) && self.bit(Msr::PEBS_ENABLE, counter.bit())
    }

    pub(super) fn write(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), PmuError> {
        let access = Access::Wrmsr(msr, value);
        let fault = |reason| Err(PmuError::Gp(GpFault { access, reason }));
        match self.rules().get(&msr.value()) {
            None => fault(GpReason::NoSuchMsr),
            Some(Rule::ReadOnly) => fault(GpReason::ReadOnly),
            Some(Rule::Narrow(counter)) => {
                let extended = i64::from(value as i32) as u64;
                self.load(*counter, extended & self.largest(*counter));
                Ok(())
            }
            Some(Rule::Wide(counter)) => {
                if value & !self.largest(*counter) != 0 {
                    return fault(GpReason::Width(self.width(*counter)));
                }
                self.load(*counter, value);
                Ok(())
            }
            Some(Rule::Address) => {
                let bits = self.profile.linear_address_bits;
                let top = value >> (bits - 1);
                if top != 0 && top != u64::MAX >> (bits - 1) {
                    return fault(GpReason::NonCanonical(bits));
                }
                self.put(msr, value);
                Ok(())
            }
            Some(Rule::Bits { may, dropped }) => {
                if value & !may != 0 {
                    return fault(GpReason::Reserved(value & !may));
                }
                self.effect(msr, value & !dropped, environment)
                    .map_err(|refusal| PmuError::Refused { access, refusal })
            }
        }
    }

    fn load(&mut self, counter: Counter, value: u64) {
        self.put(Self::home(counter), value);
        if counter == Counter::Gp(2) {
            self.before = None;
        }
    }

    /// The model's own limits, tried on a copy.
    fn try_controls(&self, msr: Msr, value: u64) -> Result<(), Refusal> {
        if self.options.unfed == Unfed::Hold {
            return Ok(());
        }
        let mut tried = self.clone();
        tried.put(msr, value);
        for counter in self.counters() {
            let concerned = match counter {
                Counter::Gp(n) => msr == Self::evtsel(n),
                Counter::Fixed(_) => msr == Msr::FIXED_CTR_CTRL,
            };
            if concerned && tried.is_set_to_count(counter) {
                tried.sources(counter)?;
            }
        }
        Ok(())
    }

    fn effect(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), Refusal> {
        self.try_controls(msr, value)?;
        match msr {
            Msr::PERF_GLOBAL_CTRL if value >> 48 & 1 == 1 => return Err(Refusal::Metrics),
            Msr::PEBS_ENABLE if value >> 60 & 3 != 0 => {
                return Err(Refusal::PebsToPt(PebsEnable::from_bits(value)));
            }
            Msr::PERF_GLOBAL_OVF_CTRL => {
                for bit in (0..64).filter(|bit| value >> bit & 1 == 1) {
                    let acted_too_early =
                        bit == 59 && self.has(Quirk::EarlyAckFreezes) && self.lvtpc >> 16 & 1 == 1;
                    if bit == 58 {
                        environment.set_lbr_frz(false);
                    } else if !acted_too_early {
                        self.set_bit(Msr::PERF_GLOBAL_STATUS, bit, false);
                    }
                }
            }
            Msr::PERF_GLOBAL_STATUS_SET => {
                for bit in (0..64).filter(|bit| value >> bit & 1 == 1) {
                    if bit == 58 {
                        environment.set_lbr_frz(true);
                    } else {
                        self.set_bit(Msr::PERF_GLOBAL_STATUS, bit, true);
                    }
                }
            }
            _ => {
                self.put(msr, value);
                self.armed = self
                    .armed
                    .iter()
                    .copied()
                    .filter(|counter| self.samples(*counter))
                    .collect();
                for counter in self.counters() {
                    if let Counter::Gp(n) = counter
                        && msr == Self::evtsel(n)
                    {
                        self.held_high.retain(|other| *other != counter);
                        if n == 2 {
                            self.before = None;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_pmc(&self, ecx: u32, cpl: Cpl, pce: bool) -> Result<u64, GpFault> {
        let fault = |reason| {
            Err(GpFault {
                access: Access::Rdpmc(ecx),
                reason,
            })
        };
        if cpl != Cpl::Ring0 && !pce {
            return fault(GpReason::Privilege);
        }
        for counter in self.counters() {
            let named = match counter {
                Counter::Gp(n) => u32::from(n),
                Counter::Fixed(i) => 0x4000_0000 + u32::from(i),
            };
            if named == ecx {
                return Ok(self.get(Self::home(counter)));
            }
        }
        if ecx == 0x2000_0000 && self.has_metrics() {
            return Ok(self.get(Msr::PERF_METRICS));
        }
        fault(GpReason::NoSuchCounter)
    }

    /// The event select of a general-purpose counter.
    pub(super) fn select_of(&self, counter: Counter) -> Option<PerfEvtSel> {
        match counter {
            Counter::Gp(n) => Some(PerfEvtSel::from_bits(self.get(Self::evtsel(n)))),
            Counter::Fixed(_) => None,
        }
    }
}
