//! What perf does when the host boots and when processors come.

use vlbr_arch::{DebugCtl, Msr};
use vlbr_cpu::ledger::Actor;

use super::{Behaviour, Perf};
use crate::CpuId;
use crate::hardware::{Hardware, Word};

const BY: Actor = Actor::Host;

impl Perf {
    /// perf after boot: the probe of the LBR if the host is itself a guest, then every processor
    /// starts.
    #[must_use]
    pub fn boot(behaviour: Behaviour, hw: &mut Hardware) -> Self {
        let mut perf = Self::new(behaviour, hw);
        if behaviour.under_hypervisor {
            perf.probe(hw);
        }
        for cpu in 0..hw.cpus() {
            perf.cpu_starting(hw, CpuId(cpu as u16));
        }
        perf
    }

    /// A processor comes online: `intel_pmu_cpu_starting`.
    pub fn cpu_starting(&mut self, hw: &mut Hardware, cpu: CpuId) {
        if self.cpus.get(cpu.index()).is_none() {
            return;
        }
        self.cpu_mut(cpu).online = true;
        self.lbr_reset(hw, cpu);
        if self.pmu.version > 1 {
            // flip_smm_bit
            let freeze = self.behaviour.freeze_on_smi;
            self.change_debugctl(hw, cpu, DebugCtl::FREEZE_WHILE_SMM, freeze);
        }
        if self.behaviour.counter_freezing && self.pmu.version >= 4 {
            self.change_debugctl(hw, cpu, DebugCtl::FREEZE_PERFMON_ON_PMI, true);
        }
    }

    /// `msr_set_bit`, `msr_clear_bit`: reads, and writes if something changes.
    fn change_debugctl(&mut self, hw: &mut Hardware, cpu: CpuId, bit: DebugCtl, set: bool) {
        let before = DebugCtl::from_bits(self.rdmsr(hw, cpu, BY, Msr::DEBUGCTL).value);
        let value = if set {
            before | bit
        } else {
            before.without(bit)
        };
        if value != before {
            self.wrmsr(hw, cpu, BY, Msr::DEBUGCTL, value.bits());
        }
    }

    /// `intel_pmu_init`: whether TOS, FROM, TO and `LBR_SELECT` hold what is written to them.
    fn probe(&mut self, hw: &mut Hardware) {
        let msrs = self.model.msrs;
        let tos = msrs.tos.is_none_or(|tos| check_msr(hw, tos, 0x3));
        let mut works = tos;
        for n in 0..self.model.nr {
            for word in [Word::From, Word::To] {
                let entry = msrs.entry(word, n);
                works = works && entry.is_some_and(|entry| check_msr(hw, entry, 0xffff));
            }
        }
        if let Some(select) = msrs.select.filter(|_| works) {
            let holds = check_msr(hw, select, 0x11);
            if !holds && self.behaviour.probe_drops_select {
                self.model.select_map = false;
                self.model.call_stack = false;
            }
        }
        if !works {
            self.model.nr = 0;
        }
    }
}

/// `check_msr`: reads, flips bits, writes, reads back, and puts the old value back.
fn check_msr(hw: &mut Hardware, msr: Msr, mask: u64) -> bool {
    let cpu = CpuId(0);
    let Ok(old) = hw.rdmsr(cpu, BY, msr) else {
        return false;
    };
    let mut tried = old;
    tried.value ^= mask;
    let written = hw.wrmsr(cpu, BY, msr, tried);
    let read = hw.rdmsr(cpu, BY, msr);
    if written.is_err() || !read.is_ok_and(|read| read.value == tried.value) {
        return false;
    }
    hw.wrmsr(cpu, BY, msr, old).is_ok()
}
