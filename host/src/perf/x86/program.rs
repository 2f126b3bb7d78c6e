//! The counters' registers: enabling and disabling the PMU, starting and stopping counters.

use vlbr_arch::{Cpl, FixedCtrCtrl, Msr, PerfEvtSel};
use vlbr_cpu::ledger::Actor;

use super::{FIXED, PmuModel, VLBR};
use crate::hardware::Hardware;
use crate::perf::{Event, EventId, EventKind, EventState, FixedControl, Perf};
use crate::{CpuId, Owned, Owner};

/// The value of `IA32_PERFEVTSELn` for an event.
pub(super) fn selector(event: &Event, select: PerfEvtSel) -> u64 {
    let mut value = select | PerfEvtSel::EN;
    if !event.attr.exclude_user {
        value = value | PerfEvtSel::USR;
    }
    if !event.attr.exclude_kernel {
        value = value | PerfEvtSel::OS;
    }
    if event.attr.precise_ip == 0 {
        value = value | PerfEvtSel::INT;
    }
    value.bits()
}

/// The field of `FIXED_CTR_CTRL` for an event.
fn fixed_field(event: &Event) -> u64 {
    let mut field = 0;
    if !event.attr.exclude_user {
        field |= FixedCtrCtrl::USR;
    }
    if !event.attr.exclude_kernel {
        field |= FixedCtrCtrl::OS;
    }
    if event.attr.precise_ip == 0 {
        field |= FixedCtrCtrl::PMI;
    }
    field
}

impl Perf {
    /// WRMSR of the kernel's own value. A fault is warned of and passed over.
    pub(crate) fn wrmsr(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        actor: Actor,
        msr: Msr,
        value: u64,
    ) {
        self.wrmsr_of(hw, cpu, actor, msr, Owned::new(value, Owner::Kernel));
    }

    /// WRMSR of somebody's value.
    pub(crate) fn wrmsr_of(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        actor: Actor,
        msr: Msr,
        value: Owned,
    ) {
        match hw.wrmsr(cpu, actor, msr, value) {
            Ok(()) => {}
            Err(fault) if fault.is_gp() => self.unchecked += 1,
            Err(_) => self.not_modelled += 1,
        }
    }

    /// RDMSR. A fault is warned of and gives 0.
    pub(crate) fn rdmsr(&mut self, hw: &mut Hardware, cpu: CpuId, actor: Actor, msr: Msr) -> Owned {
        hw.rdmsr(cpu, actor, msr).unwrap_or_else(|_| {
            self.unchecked += 1;
            Owned::CLEARED
        })
    }

    /// `perf_pmu_disable`. Brackets nest, the outermost counts.
    pub(crate) fn pmu_disable(&mut self, hw: &mut Hardware, cpu: CpuId, actor: Actor) {
        let state = self.cpu_mut(cpu);
        state.disabled += 1;
        if state.disabled != 1 || !state.pmu.enabled {
            return;
        }
        state.pmu.added = 0;
        state.pmu.enabled = false;
        self.disable_counters(hw, cpu, actor);
        self.lbr_disable_all(hw, cpu, actor);
    }

    /// `perf_pmu_enable`, with `x86_pmu_enable`: counters get the events that were added.
    pub(crate) fn pmu_enable(&mut self, hw: &mut Hardware, cpu: CpuId, actor: Actor) {
        let state = self.cpu_mut(cpu);
        state.disabled -= 1;
        if state.disabled != 0 || state.pmu.enabled {
            return;
        }
        if state.pmu.added != 0 {
            self.program(hw, cpu);
        }
        self.cpu_mut(cpu).pmu.enabled = true;
        let pebs = self.cpu(cpu).pmu.pebs_enabled;
        if pebs != 0 {
            self.wrmsr(hw, cpu, actor, Msr::PEBS_ENABLE, pebs);
        }
        self.enable_counters(hw, cpu, actor, false);
    }

    /// `__intel_pmu_disable_all` and `intel_pmu_pebs_disable_all`.
    pub(crate) fn disable_counters(&mut self, hw: &mut Hardware, cpu: CpuId, actor: Actor) {
        self.wrmsr(hw, cpu, actor, Msr::PERF_GLOBAL_CTRL, 0);
        if self.cpu(cpu).pmu.pebs_enabled != 0 {
            self.wrmsr(hw, cpu, actor, Msr::PEBS_ENABLE, 0);
        }
    }

    /// `__intel_pmu_enable_all`.
    pub(crate) fn enable_counters(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        actor: Actor,
        pmi: bool,
    ) {
        self.lbr_enable_all(hw, cpu, actor, pmi);
        let pmu = &self.cpu(cpu).pmu;
        let (control, written) = (pmu.fixed_control, pmu.active_fixed_control);
        let guest = pmu.guest_mask;
        if control != written {
            self.wrmsr(hw, cpu, actor, Msr::FIXED_CTR_CTRL, control);
            self.cpu_mut(cpu).pmu.active_fixed_control = control;
        }
        let counters = self.pmu.counters & !guest;
        self.wrmsr(hw, cpu, actor, Msr::PERF_GLOBAL_CTRL, counters);
    }

    /// `x86_pmu_enable`, both steps: events that move are stopped, then everything that moved or
    /// came is started.
    fn program(&mut self, hw: &mut Hardware, cpu: CpuId) {
        let pmu = &mut self.cpu_mut(cpu).pmu;
        let running = pmu.list.len() - pmu.added;
        pmu.tags.resize(pmu.tags.len().max(pmu.list.len()), 0);
        let places: Vec<(EventId, Option<u8>)> = pmu
            .list
            .iter()
            .map(|listed| (listed.event, listed.assign))
            .collect();
        for (n, (id, assign)) in places[..running].iter().enumerate() {
            if self.event_ref(*id).hw.idx.is_none() || self.stays(cpu, n, *id, *assign) {
                continue;
            }
            let event = &mut self.event_mut(*id).hw;
            event.arch |= event.stopped;
            self.stop(hw, cpu, *id, true);
        }
        for (n, (id, assign)) in places.iter().enumerate() {
            if !self.stays(cpu, n, *id, *assign) {
                let pmu = &mut self.cpu_mut(cpu).pmu;
                pmu.tags[n] = pmu.tags[n].wrapping_add(1);
                let tag = pmu.tags[n];
                let event = &mut self.event_mut(*id).hw;
                event.idx = *assign;
                event.last = Some((cpu, tag));
            } else if n < running {
                continue;
            }
            if !self.event_ref(*id).hw.arch {
                self.start(hw, cpu, *id);
            }
        }
        self.cpu_mut(cpu).pmu.added = 0;
        let lvt = PmuModel::NMI;
        vlbr_pmu::Device::set_lvtpc(hw.cpu_mut(cpu).logical_mut().pmu_mut(), lvt);
    }

    /// `match_prev_assignment`.
    fn stays(&self, cpu: CpuId, n: usize, id: EventId, assign: Option<u8>) -> bool {
        let event = &self.event_ref(id).hw;
        let tag = self.cpu(cpu).pmu.tags.get(n).copied().unwrap_or(0);
        event.idx == assign && event.last == Some((cpu, tag))
    }

    /// `x86_pmu_start` with a reload.
    fn start(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) {
        let Some(idx) = self.event_ref(id).hw.idx else {
            return;
        };
        self.set_period(hw, cpu, id);
        let event = &mut self.event_mut(id).hw;
        (event.stopped, event.uptodate, event.arch) = (false, false, false);
        self.cpu_mut(cpu).pmu.active.insert(idx, id);
        let bit = 1u64 << idx;
        let event = self.event_ref(id);
        let attr = event.attr;
        let (field, value) = (
            fixed_field(event),
            match attr.kind {
                EventKind::Counter { select, .. } => selector(event, select),
                EventKind::VirtualLbr | EventKind::Software => 0,
            },
        );
        let pmu = &mut self.cpu_mut(cpu).pmu;
        if attr.exclude_host {
            pmu.guest_mask |= bit;
        }
        if attr.exclude_guest {
            pmu.host_mask |= bit;
        }
        if attr.precise_ip != 0 && idx != VLBR {
            pmu.pebs_enabled |= bit;
        }
        match idx {
            VLBR => {}
            FIXED.. => self.set_fixed(hw, cpu, idx - FIXED, field),
            _ => {
                let msr = Msr::PERFEVTSEL0.plus(u32::from(idx));
                self.wrmsr(hw, cpu, Actor::Host, msr, value);
            }
        }
    }

    /// `intel_pmu_enable_fixed`, `intel_pmu_disable_fixed`.
    fn set_fixed(&mut self, hw: &mut Hardware, cpu: CpuId, i: u8, field: u64) {
        let shift = 4 * u32::from(i);
        let control = match self.behaviour.fixed_control {
            FixedControl::AtEnable => self.cpu(cpu).pmu.fixed_control,
            FixedControl::ReadModifyWrite => {
                self.rdmsr(hw, cpu, Actor::Host, Msr::FIXED_CTR_CTRL).value
            }
        };
        let control = control & !(0xf << shift) | field << shift;
        let pmu = &mut self.cpu_mut(cpu).pmu;
        pmu.fixed_control = control;
        if self.behaviour.fixed_control == FixedControl::ReadModifyWrite {
            self.cpu_mut(cpu).pmu.active_fixed_control = control;
            self.wrmsr(hw, cpu, Actor::Host, Msr::FIXED_CTR_CTRL, control);
        }
    }

    /// `x86_pmu_stop`, with the last update of the count if asked for.
    pub(crate) fn stop(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId, update: bool) {
        let Some(idx) = self.event_ref(id).hw.idx else {
            return;
        };
        let pmu = &mut self.cpu_mut(cpu).pmu;
        if pmu.active.get(&idx) == Some(&id) {
            pmu.active.remove(&idx);
            let bit = 1u64 << idx;
            pmu.guest_mask &= !bit;
            pmu.host_mask &= !bit;
            pmu.pebs_enabled &= !bit;
            match idx {
                VLBR => {}
                FIXED.. => self.set_fixed(hw, cpu, idx - FIXED, 0),
                _ => {
                    let event = self.event_ref(id);
                    let value = match event.attr.kind {
                        EventKind::Counter { select, .. } => selector(event, select),
                        EventKind::VirtualLbr | EventKind::Software => 0,
                    };
                    let msr = Msr::PERFEVTSEL0.plus(u32::from(idx));
                    let off = value & !PerfEvtSel::EN.bits();
                    self.wrmsr(hw, cpu, Actor::Host, msr, off);
                }
            }
            self.event_mut(id).hw.stopped = true;
        }
        if update && !self.event_ref(id).hw.uptodate {
            self.update(hw, cpu, id);
            self.event_mut(id).hw.uptodate = true;
        }
    }

    /// The counter of an index, as RDPMC has it: `event_base_rdpmc`.
    fn read_counter(hw: &Hardware, cpu: CpuId, idx: u8) -> u64 {
        let ecx = if idx >= FIXED {
            1 << 30 | u32::from(idx - FIXED)
        } else {
            u32::from(idx)
        };
        let logical = hw.cpu(cpu).logical();
        logical.rdpmc(ecx, Cpl::Ring0, true).unwrap_or(0)
    }

    /// What a counter counted that is not in its event's count yet.
    fn delta(&self, hw: &Hardware, cpu: CpuId, id: EventId) -> (u64, u64) {
        let event = &self.event_ref(id).hw;
        match event.idx {
            None | Some(VLBR) => (0, 0),
            Some(idx) => {
                let raw = Self::read_counter(hw, cpu, idx);
                (raw, raw.wrapping_sub(event.prev_count) & self.pmu.mask(idx))
            }
        }
    }

    pub(crate) fn pending_count(&self, hw: &Hardware, id: EventId) -> u64 {
        let event = self.event_ref(id);
        match event.oncpu {
            Some(cpu) if event.state == EventState::Active && !event.hw.stopped => {
                self.delta(hw, cpu, id).1
            }
            _ => 0,
        }
    }

    /// `x86_perf_event_update`.
    pub(crate) fn update(&mut self, hw: &Hardware, cpu: CpuId, id: EventId) {
        let (raw, delta) = self.delta(hw, cpu, id);
        let event = self.event_mut(id);
        event.hw.prev_count = raw;
        event.hw.period_left = event.hw.period_left.wrapping_sub(delta as i64);
        event.count = event.count.wrapping_add(delta);
    }

    /// `x86_perf_event_set_period`. Whether a period ended.
    pub(crate) fn set_period(&mut self, hw: &mut Hardware, cpu: CpuId, id: EventId) -> bool {
        let longest = self.pmu.max_period();
        let event = &mut self.event_mut(id).hw;
        let Some(idx) = event.idx.filter(|idx| *idx != VLBR) else {
            return false;
        };
        let period = i64::try_from(event.sample_period).unwrap_or(i64::MAX);
        let mut left = event.period_left;
        let mut ended = false;
        if left <= -period {
            left = period;
            event.period_left = left;
            event.last_period = event.sample_period;
            ended = true;
        }
        if left <= 0 {
            left += period;
            event.period_left = left;
            event.last_period = event.sample_period;
            ended = true;
        }
        let left = left.clamp(2, i64::try_from(longest).unwrap_or(i64::MAX));
        let wide = left.wrapping_neg() as u64;
        let mask = self.pmu.mask(idx);
        self.event_mut(id).hw.prev_count = wide & mask;
        let (msr, value) = match idx {
            FIXED.. => (Msr::FIXED_CTR0.plus(u32::from(idx - FIXED)), wide & mask),
            _ if self.pmu.full_width => (Msr::A_PMC0.plus(u32::from(idx)), wide & mask),
            _ => (Msr::PMC0.plus(u32::from(idx)), wide & 0xffff_ffff),
        };
        self.wrmsr(hw, cpu, Actor::Host, msr, value);
        ended
    }
}
