//! What changes the LBR besides branches and MSR writes.

use vlbr_arch::{CodeSize, DebugCtl, LbrCtl, LbrSelect};

use super::config::Kind;
use super::{Lbr, MAX_DEPTH, SavedBySmi};
use crate::{FreezeFlavour, Pmi, Quirk, Reset};

impl Lbr {
    pub(super) fn freeze(&mut self, pmi: Pmi) {
        if !self.control.debugctl.contains(DebugCtl::FREEZE_LBRS_ON_PMI)
            || self.config.quirk(Quirk::FreezeBroken)
        {
            return;
        }
        if self.recording() {
            if pmi == Pmi::Pebs {
                while let Some(undo) = self.undo.pop() {
                    self.set_words(undo.slot, undo.words);
                    self.head = undo.head;
                    self.last_insert = undo.last_insert;
                }
            }
            let legacy = self.config.legacy().is_some();
            if legacy && self.config.quirk(Quirk::FreezeCallStackTos) && self.control.call_stack() {
                // 0, 1, 2: one down, right, one up.
                let step = (self.draw() % 3) as u32;
                self.head = self.head.wrapping_add(step).wrapping_sub(1) & (self.depth - 1);
            }
        }
        match self.config.freeze {
            FreezeFlavour::Legacy => {
                self.control.debugctl = self.control.debugctl.without(DebugCtl::LBR);
            }
            FreezeFlavour::Streamlined => self.control.lbr_frz = true,
        }
        self.undo.clear();
        self.refresh();
    }

    pub(super) fn write_lbr_frz(&mut self, frozen: bool) {
        if self.config.has_frz {
            self.control.lbr_frz = frozen;
            self.undo.clear();
            self.refresh();
        }
    }

    /// Entries, LER if `ler`, TOS and the history behind cycle and event counts become 0.
    fn clear_stack(&mut self, ler: bool) {
        self.clear_entries();
        self.head = 0;
        if ler {
            self.ler = [0; 3];
        }
        self.last_insert = None;
        self.pending_events = 0;
        self.undo.clear();
    }

    pub(super) fn clear_entries(&mut self) {
        self.from = [0; MAX_DEPTH];
        self.to = [0; MAX_DEPTH];
        self.info = [0; MAX_DEPTH];
        self.last_taken = [0; 3];
    }

    pub(super) fn leave_deep_c_state(&mut self) {
        if self.config.deep_c_state_reset {
            self.clear_stack(self.config.legacy().is_some());
        }
    }

    pub(super) fn do_reset(&mut self, reset: Reset) {
        if reset == Reset::Init {
            if self.config.init_clears_control {
                self.control.debugctl = DebugCtl::default();
                self.control.ctl = LbrCtl::default();
                self.undo.clear();
                self.refresh();
            }
            return;
        }
        self.control.debugctl = DebugCtl::default();
        self.control.select = LbrSelect::default();
        self.control.lbr_frz = false;
        self.control.locked_out = false;
        self.trace_en = false;
        self.smm = None;
        self.undo.clear();
        let kept = match &self.config.kind {
            Kind::Legacy(legacy) => legacy.survives_warm_reset,
            Kind::Arch(_) => true,
        };
        if reset == Reset::Warm && kept {
            self.control.ctl = self.control.ctl.without(LbrCtl::LBR_EN);
        } else {
            self.control.ctl = LbrCtl::default();
            self.depth = self.config.max_depth;
            self.clear_stack(true);
        }
        self.refresh();
    }

    pub(super) fn write_trace_en(&mut self, enabled: bool) {
        if self.config.quirk(Quirk::PtExclusive) && self.config.legacy().is_some() {
            if self.trace_en && !enabled {
                self.clear_stack(false);
            }
            self.control.locked_out = enabled;
        }
        if self.trace_en != enabled {
            self.undo.clear();
        }
        self.trace_en = enabled;
        self.refresh();
    }

    pub(super) fn enter_smm(&mut self) {
        self.undo.clear();
        // SMI is blocked in SMM: what the first one saved stays.
        if self.smm.is_some() {
            return;
        }
        let debugctl = self.control.debugctl;
        let freezes = debugctl.contains(DebugCtl::FREEZE_WHILE_SMM);
        let lbr_en = if self.control.ctl.contains(LbrCtl::LBR_EN) {
            LbrCtl::LBR_EN
        } else {
            LbrCtl::default()
        };
        self.smm = Some(SavedBySmi {
            debugctl: freezes.then_some(debugctl),
            lbr_en,
        });
        if freezes {
            let stopped = DebugCtl::LBR | DebugCtl::BTF | DebugCtl::TR | DebugCtl::BTS;
            self.control.debugctl = debugctl.without(stopped);
        }
        self.control.ctl = self.control.ctl.without(LbrCtl::LBR_EN);
        self.refresh();
    }

    pub(super) fn leave_smm(&mut self) {
        self.undo.clear();
        if let Some(saved) = self.smm.take() {
            saved.restore(&mut self.control);
            self.refresh();
        }
    }

    pub(super) fn fail_segment_test(&mut self) {
        if self.config.quirk(Quirk::SpuriousLer) && self.recording() {
            self.copy_to_ler(CodeSize::Bits64);
        }
    }

    pub(super) fn count_event(&mut self, pmc: u8) {
        let Some(arch) = self.config.arch() else {
            return;
        };
        if pmc > 3 || arch.ecx & 1 << (16 + pmc) == 0 {
            return;
        }
        let shift = 2 * pmc;
        if self.pending_events >> shift & 3 != 3 {
            self.pending_events += 1 << shift;
        }
    }
}
