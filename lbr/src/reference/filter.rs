//! Whether a transfer pushes, pops or does nothing.

use vlbr_arch::{BranchClass, DebugCtl, FarKind, LbrCtl, LbrSelect, Transfer};

use super::Lbr;
use crate::{Quirk, ReturnGate, SelectLayout, Verdict};

impl Lbr {
    pub(super) fn debugctl(&self) -> DebugCtl {
        DebugCtl::from_bits(self.debugctl)
    }

    pub(super) fn selected(&self, bit: LbrSelect) -> bool {
        LbrSelect::from_bits(self.select).contains(bit)
    }

    pub(super) fn controlled(&self, bit: LbrCtl) -> bool {
        LbrCtl::from_bits(self.ctl).contains(bit)
    }

    /// Step 1: recording is enabled, not frozen, not locked out.
    pub(super) fn is_recording(&self) -> bool {
        let enabled = if self.arch().is_some() {
            self.controlled(LbrCtl::LBR_EN)
        } else {
            self.debugctl().contains(DebugCtl::LBR)
                || self.options.tr_records && self.debugctl().contains(DebugCtl::TR)
        };
        if !enabled || self.locked_out() {
            return false;
        }
        !self.frz
    }

    pub(super) fn in_call_stack_mode(&self) -> bool {
        if self.arch().is_some() {
            self.controlled(LbrCtl::CALL_STACK)
        } else {
            self.selected(LbrSelect::EN_CALLSTACK)
        }
    }

    /// The verdict, with RSM judged by the state it restores.
    pub(super) fn decide(&self, t: &Transfer) -> Verdict {
        if t.class == BranchClass::Far(FarKind::Rsm) {
            let mut resumed = self.clone();
            resumed.rsm();
            return resumed.decide_now(t);
        }
        self.decide_now(t)
    }

    fn decide_now(&self, t: &Transfer) -> Verdict {
        if !self.is_recording() || !self.is_recordable(t) || !self.level_passes(t) {
            return Verdict::Ignore;
        }
        let passes = if self.arch().is_some() {
            self.arch_type_passes(t)
        } else {
            self.legacy_type_passes(t)
        };
        if !passes {
            return Verdict::Ignore;
        }
        if !self.in_call_stack_mode() {
            return Verdict::Push;
        }
        match t.class {
            BranchClass::NearRelCall | BranchClass::NearIndCall => Verdict::Push,
            BranchClass::NearRet => Verdict::Pop,
            _ => Verdict::Ignore,
        }
    }

    /// Step 2: transfers that no setting records.
    pub(super) fn is_recordable(&self, t: &Transfer) -> bool {
        let arch = self.arch().is_some();
        match t.class {
            BranchClass::Far(FarKind::DebugException) => false,
            BranchClass::Far(FarKind::Smi) => !arch && self.options.legacy_smi_recorded,
            BranchClass::Far(FarKind::Rsm) => arch || self.options.legacy_rsm_recorded,
            BranchClass::Far(FarKind::Init | FarKind::Sipi) => {
                arch || self.options.legacy_init_recorded
            }
            BranchClass::NearRelCallZero => !arch,
            _ => true,
        }
    }

    /// Step 4: the privilege filter.
    fn level_passes(&self, t: &Transfer) -> bool {
        match self.arch() {
            None => {
                let dropping = if t.cpl_after.is_kernel() {
                    LbrSelect::CPL_EQ_0
                } else {
                    LbrSelect::CPL_NEQ_0
                };
                !self.selected(dropping)
            }
            Some(_) => {
                let tested = if self.options.arch_cpl_before {
                    t.cpl_before
                } else {
                    t.cpl_after
                };
                self.arch_level_enabled(tested.is_kernel())
            }
        }
    }

    /// Whether CTL records this privilege; all of them without a CPL filter.
    pub(super) fn arch_level_enabled(&self, kernel: bool) -> bool {
        let filters = self.arch().is_some_and(|arch| arch.ebx % 2 == 1);
        !filters || self.controlled(if kernel { LbrCtl::OS } else { LbrCtl::USR })
    }

    /// Step 5 on legacy parts: bits that are set suppress.
    fn legacy_type_passes(&self, t: &Transfer) -> bool {
        let Some(legacy) = self.legacy() else {
            return false;
        };
        let jmp_ind = self.selected(LbrSelect::NEAR_IND_JMP);
        let jmp_rel = self.selected(LbrSelect::NEAR_REL_JMP);
        let overlaps = legacy.select == SelectLayout::Nehalem && self.has(Quirk::NehalemOverlap);
        match t.class {
            BranchClass::Jcc => !self.selected(LbrSelect::JCC),
            BranchClass::NearRelJmp => !jmp_rel,
            BranchClass::NearIndJmp => !jmp_ind,
            BranchClass::NearRelCall | BranchClass::NearRelCallZero => {
                !(self.selected(LbrSelect::NEAR_REL_CALL) || overlaps && jmp_rel)
            }
            BranchClass::NearIndCall => {
                !(self.selected(LbrSelect::NEAR_IND_CALL) || overlaps && jmp_ind)
            }
            BranchClass::NearRet => {
                let gated = match self.options.nehalem_return_gate {
                    ReturnGate::Either => jmp_ind || jmp_rel,
                    ReturnGate::Both => jmp_ind && jmp_rel,
                    ReturnGate::Indirect => jmp_ind,
                    ReturnGate::Relative => jmp_rel,
                };
                !(self.selected(LbrSelect::NEAR_RET) || overlaps && gated)
            }
            BranchClass::Far(FarKind::TsxAbort) if self.options.tsx_abort_ignores_far => true,
            BranchClass::Far(_) => !self.selected(LbrSelect::FAR_BRANCH),
        }
    }

    /// Step 5 on architectural parts: bits that are set record.
    fn arch_type_passes(&self, t: &Transfer) -> bool {
        let filters = self.arch().is_some_and(|arch| arch.ebx / 2 % 2 == 1);
        !filters
            || self.controlled(match t.class {
                BranchClass::Jcc => LbrCtl::JCC,
                BranchClass::NearRelJmp => LbrCtl::NEAR_REL_JMP,
                BranchClass::NearIndJmp => LbrCtl::NEAR_IND_JMP,
                BranchClass::NearRelCall | BranchClass::NearRelCallZero => LbrCtl::NEAR_REL_CALL,
                BranchClass::NearIndCall => LbrCtl::NEAR_IND_CALL,
                BranchClass::NearRet => LbrCtl::NEAR_RET,
                BranchClass::Far(_) => LbrCtl::OTHER_BRANCH,
            })
    }
}
