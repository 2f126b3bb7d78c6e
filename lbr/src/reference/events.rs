//! Freezing, resets, sleep, SMM and Intel PT.

use vlbr_arch::{CodeSize, DebugCtl, LbrCtl};

use super::{Lbr, Smm};
use crate::{FreezeFlavour, Pmi, Quirk, Reset};

impl Lbr {
    fn clear_debugctl(&mut self, bits: &[DebugCtl]) {
        for bit in bits {
            self.debugctl &= !bit.bits();
        }
    }

    fn set_lbr_en(&mut self, on: bool) {
        self.ctl &= !LbrCtl::LBR_EN.bits();
        if on {
            self.ctl |= LbrCtl::LBR_EN.bits();
        }
    }

    pub(super) fn debug_exception(&mut self) {
        self.clear_debugctl(&[DebugCtl::LBR, DebugCtl::BTF]);
        self.set_lbr_en(false);
        self.forget_history();
    }

    pub(super) fn freeze(&mut self, pmi: Pmi) {
        if !self.debugctl().contains(DebugCtl::FREEZE_LBRS_ON_PMI) {
            return;
        }
        if self.has(Quirk::FreezeBroken) {
            return;
        }
        let recording = self.is_recording();
        if recording && pmi == Pmi::Pebs && !self.before.is_empty() {
            let earliest = self.before.remove(0);
            self.slots = earliest.slots;
            self.tos = earliest.tos;
            self.last_insert = earliest.last_insert;
        }
        if recording
            && self.has(Quirk::FreezeCallStackTos)
            && self.legacy().is_some()
            && self.in_call_stack_mode()
        {
            let depth = self.slots.len();
            match self.draw() % 3 {
                0 => self.tos = (self.tos + depth - 1) % depth,
                1 => {}
                _ => self.tos = (self.tos + 1) % depth,
            }
        }
        match self.freeze_flavour() {
            FreezeFlavour::Legacy => self.clear_debugctl(&[DebugCtl::LBR]),
            FreezeFlavour::Streamlined => self.frz = true,
        }
        self.forget_history();
    }

    pub(super) fn software_frz(&mut self, frozen: bool) {
        if self.has_frz_bit() {
            self.frz = frozen;
            self.forget_history();
        }
    }

    pub(super) fn sleep(&mut self) {
        let resets = match (self.options.deep_c_state_reset, self.legacy(), self.arch()) {
            (Some(resets), _, _) => resets,
            (None, Some(legacy), _) => legacy.deep_c_state_reset,
            (None, None, Some(arch)) => arch.eax >> 30 & 1 == 1,
            (None, None, None) => false,
        };
        if !resets {
            return;
        }
        self.lose_array();
        if self.legacy().is_some() {
            self.ler = [0; 3];
        }
    }

    /// FROM, TO, INFO, TOS and what cycle and event counts refer to.
    fn lose_array(&mut self) {
        self.wipe_entries();
        self.tos = 0;
        self.last_insert = None;
        self.logged = [0; 4];
        self.forget_history();
    }

    pub(super) fn do_reset(&mut self, reset: Reset) {
        if reset == Reset::Init {
            if self.options.init_clears_control {
                self.debugctl = 0;
                self.ctl = 0;
                self.forget_history();
            }
            return;
        }
        self.debugctl = 0;
        self.select = 0;
        self.frz = false;
        self.trace_en = false;
        self.smm = None;
        self.forget_history();
        let survives = match self.legacy() {
            Some(legacy) => legacy.survives_warm_reset,
            None => true,
        };
        if survives && reset == Reset::Warm {
            self.set_lbr_en(false);
            return;
        }
        let full = self.profile.max_depth() as usize;
        self.slots.resize(full, Default::default());
        self.lose_array();
        self.ler = [0; 3];
        self.ctl = 0;
    }

    pub(super) fn trace(&mut self, enabled: bool) {
        if enabled != self.trace_en {
            self.forget_history();
            if !enabled && self.locked_out() {
                self.lose_array();
            }
        }
        self.trace_en = enabled;
    }

    pub(super) fn smi(&mut self) {
        self.forget_history();
        if self.smm.is_some() {
            return;
        }
        let freezes = self.debugctl().contains(DebugCtl::FREEZE_WHILE_SMM);
        self.smm = Some(Smm {
            debugctl: if freezes { Some(self.debugctl) } else { None },
            lbr_en: self.controlled(LbrCtl::LBR_EN),
        });
        if freezes {
            self.clear_debugctl(&[DebugCtl::LBR, DebugCtl::BTF, DebugCtl::TR, DebugCtl::BTS]);
        }
        self.set_lbr_en(false);
    }

    pub(super) fn rsm(&mut self) {
        self.forget_history();
        let Some(saved) = self.smm.take() else { return };
        if let Some(debugctl) = saved.debugctl {
            self.debugctl = debugctl;
        }
        self.set_lbr_en(saved.lbr_en);
    }

    pub(super) fn segment_test(&mut self) {
        if self.has(Quirk::SpuriousLer) && self.is_recording() {
            self.update_ler(CodeSize::Bits64);
        }
    }

    pub(super) fn log(&mut self, pmc: u8) {
        let Some(arch) = self.arch() else { return };
        let logged_counters = arch.ecx >> 16 & 0xf;
        if pmc < 4 && logged_counters >> pmc & 1 == 1 {
            let count = &mut self.logged[usize::from(pmc)];
            *count = (*count + 1).min(3);
        }
    }
}
