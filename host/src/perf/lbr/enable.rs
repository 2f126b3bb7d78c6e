//! Recording on and off, and emptying: `__intel_pmu_lbr_enable`, `__intel_pmu_lbr_disable`,
//! `intel_pmu_lbr_reset`.

use vlbr_arch::{DebugCtl, LbrCtl, LbrSelect, Msr};
use vlbr_cpu::ledger::Actor;

use crate::hardware::Hardware;
use crate::perf::{CallStackFreeze, Perf, SelectSave};
use crate::{CpuId, Owned};

/// `ARCH_LBR_CTL_MASK`.
const CTL_MASK: u64 = 0x7f_000e;
/// `LBR_SEL_MASK`.
const SELECT_MASK: u64 = 0x3ff;

impl Perf {
    /// The value of the filter register, as it stands in the slot; `None` without one.
    pub(super) fn select_value(&self, cpu: CpuId) -> Option<u64> {
        let config = self.shared_slot(cpu).config;
        self.model.select_map.then_some(config)
    }

    /// The slot's last value asks for the call stack.
    pub(super) fn call_stack_config(&self, cpu: CpuId) -> bool {
        let bit = if self.model.arch {
            LbrCtl::CALL_STACK.bits()
        } else {
            LbrSelect::EN_CALLSTACK.bits()
        };
        self.select_value(cpu).is_some_and(|value| value & bit != 0)
    }

    /// `intel_pmu_lbr_enable_all`.
    pub(crate) fn lbr_enable_all(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        actor: Actor,
        pmi: bool,
    ) {
        if self.cpu(cpu).lbr.users == 0 || self.guest_owns_lbr(cpu) {
            return;
        }
        // Acknowledging the status has unfrozen it.
        if pmi && self.model.version >= 4 {
            return;
        }
        let select = self.select_value(cpu);
        if let Some(value) = select.filter(|_| !pmi && !self.model.arch) {
            self.wrmsr(hw, cpu, actor, Msr::LBR_SELECT, value & SELECT_MASK);
        }
        let read = self.rdmsr(hw, cpu, actor, Msr::DEBUGCTL).value;
        let before = DebugCtl::from_bits(read);
        let mut value = before;
        if !self.model.arch {
            value = value | DebugCtl::LBR;
        }
        value = match (
            self.call_stack_config(cpu),
            self.behaviour.call_stack_freeze,
        ) {
            (false, _) => value | DebugCtl::FREEZE_LBRS_ON_PMI,
            (true, CallStackFreeze::Cleared) => value.without(DebugCtl::FREEZE_LBRS_ON_PMI),
            (true, CallStackFreeze::LeftAlone) => value,
        };
        if value != before {
            self.wrmsr(hw, cpu, actor, Msr::DEBUGCTL, value.bits());
        }
        if self.model.arch {
            let control = select.unwrap_or(0) & CTL_MASK | LbrCtl::LBR_EN.bits();
            self.wrmsr(hw, cpu, actor, Msr::LBR_CTL, control);
        }
    }

    /// `intel_pmu_lbr_disable_all`.
    pub(crate) fn lbr_disable_all(&mut self, hw: &mut Hardware, cpu: CpuId, actor: Actor) {
        if self.cpu(cpu).lbr.users == 0 || self.guest_owns_lbr(cpu) {
            return;
        }
        if self.model.arch {
            self.wrmsr(hw, cpu, actor, Msr::LBR_CTL, 0);
            return;
        }
        let value = self.rdmsr(hw, cpu, actor, Msr::DEBUGCTL).value;
        let both = DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI;
        let value = DebugCtl::from_bits(value).without(both).bits();
        self.wrmsr(hw, cpu, actor, Msr::DEBUGCTL, value);
    }

    /// `intel_pmu_lbr_reset`. TOS is never written.
    pub(crate) fn lbr_reset(&mut self, hw: &mut Hardware, cpu: CpuId) {
        const BY: Actor = Actor::HostReset;
        if self.model.nr == 0 {
            return;
        }
        if self.model.arch {
            self.lbr_reset_depth(hw, cpu);
        } else {
            let words = if self.model.format_32 {
                1
            } else {
                self.model.words()
            };
            for n in 0..self.model.nr {
                for word in self.model.msrs.words_of_entry().take(words as usize) {
                    if let Some(msr) = self.model.msrs.entry(word, n) {
                        self.wrmsr_of(hw, cpu, BY, msr, Owned::CLEARED);
                    }
                }
            }
        }
        let lbr = &mut self.cpu_mut(cpu).lbr;
        lbr.last = None;
        lbr.of_guest = false;
        let clears = lbr.select && self.behaviour.reset_clears_select;
        if clears && !self.model.arch {
            self.wrmsr_of(hw, cpu, BY, Msr::LBR_SELECT, Owned::CLEARED);
        }
    }

    /// `intel_pmu_arch_lbr_reset`: writing the depth zeroes every entry.
    pub(super) fn lbr_reset_depth(&mut self, hw: &mut Hardware, cpu: CpuId) {
        let depth = u64::from(self.model.nr);
        self.wrmsr(hw, cpu, Actor::HostReset, Msr::LBR_DEPTH, depth);
    }

    /// Whether `LBR_SELECT` is saved and restored with the records now.
    pub(super) fn select_is_saved(&self, cpu: CpuId) -> bool {
        let lbr = &self.cpu(cpu).lbr;
        match self.behaviour.select_save {
            SelectSave::Never => false,
            SelectSave::GuestOwns => lbr.vcpu_lbr,
            SelectSave::Flagged => lbr.select,
        }
    }
}
