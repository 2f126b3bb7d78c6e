//! PMIs, system-management mode, resets.

use vlbr_arch::{DebugCtl, Msr};

use super::Pmu;
use crate::{Counter, Environment, Interrupt, Pending, PmiCause, Quirk, Reset, SmmRestore};

impl Pmu {
    pub(super) fn raise_pmi(&mut self, cause: PmiCause, environment: &mut dyn Environment) {
        environment.freeze_lbr(cause);
        let wanted = environment
            .debugctl()
            .contains(DebugCtl::FREEZE_PERFMON_ON_PMI);
        if wanted && self.version() > 1 && !self.has(Quirk::FreezeBroken) {
            if self.streamlined() {
                self.set_bit(Msr::PERF_GLOBAL_STATUS, 59, true);
            } else {
                self.put(Msr::PERF_GLOBAL_CTRL, 0);
            }
        }
        self.tell_apic(cause);
    }

    fn tell_apic(&mut self, cause: PmiCause) {
        let masked = self.lvtpc >> 16 & 1 == 1;
        let vector = self.lvtpc % 0x100;
        let interrupt = match self.lvtpc >> 8 & 7 {
            0b000 if vector > 15 => Interrupt::Fixed(vector as u8),
            0b010 => Interrupt::Smi,
            0b100 => Interrupt::Nmi,
            0b101 => Interrupt::Init,
            0b111 => Interrupt::ExtInt,
            _ => return,
        };
        if !masked && self.pending.is_none() {
            self.pending = Some(Pending {
                interrupt,
                cause,
                remaining: self.options.skid,
            });
        }
    }

    pub(super) fn hand_over(&mut self) -> Option<Interrupt> {
        if self.pending?.remaining > 0 {
            return None;
        }
        self.lvtpc |= 1 << 16;
        self.pending.take().map(|pending| pending.interrupt)
    }

    pub(super) fn write_lvt(&mut self, value: u32) {
        let was_masked = self.lvtpc >> 16 & 1 == 1;
        // Vector, delivery mode, mask.
        self.lvtpc = value & (0xff | 0x700 | 0x1_0000);
        if !self.options.lvtpc_pend_on_unmask || !was_masked {
            return;
        }
        let buffer = self.bit(Msr::PERF_GLOBAL_STATUS, 62);
        let overflow = self
            .counters()
            .into_iter()
            .any(|counter| self.bit(Msr::PERF_GLOBAL_STATUS, Counter::bit(counter)));
        if buffer {
            self.tell_apic(PmiCause::Pebs);
        } else if overflow {
            self.tell_apic(PmiCause::Counter);
        }
    }

    pub(super) fn enter_smm(&mut self, environment: &dyn Environment) {
        if self.in_smm {
            return;
        }
        self.in_smm = true;
        let wanted = environment.debugctl().contains(DebugCtl::FREEZE_WHILE_SMM);
        if wanted && self.capability(12) && self.version() > 1 {
            self.put_aside = Some(self.get(Msr::PERF_GLOBAL_CTRL));
            self.put(Msr::PERF_GLOBAL_CTRL, 0);
        }
    }

    pub(super) fn leave_smm(&mut self) {
        self.in_smm = false;
        let Some(previous) = self.put_aside.take() else {
            return;
        };
        let every = self
            .counters()
            .into_iter()
            .fold(0, |set, c| set | 1 << c.bit());
        self.put(
            Msr::PERF_GLOBAL_CTRL,
            match self.options.smm_restore {
                SmmRestore::Previous => previous,
                SmmRestore::AllOnes => every,
            },
        );
    }

    pub(super) fn do_reset(&mut self, reset: Reset) {
        match reset {
            Reset::Reset => *self = Self::new(&self.profile, self.options.clone()),
            Reset::Init => {
                self.lvtpc = 0x1_0000;
                self.pending = None;
            }
        }
    }
}
