//! What a retired transfer does.

use vlbr_arch::{BranchClass, CodeSize, Cycles, DebugCtl, FarKind, LbrCtl, LbrInfo, Transfer};

use super::gate::class_bit;
use super::{Lbr, Undo};
use crate::{InsertsEvent, Quirk, Verdict};

/// Architectural LBR puts this in place of a FROM whose privilege is filtered.
const MASKED_FROM: u64 = 0xffff_ffff;
/// One past the lower canonical half of 48 bits.
const EDGE: u64 = 0x0000_8000_0000_0000;

impl Lbr {
    /// See [`crate::Device::retire`].
    #[inline]
    pub fn retire(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        let bit = class_bit(transfer.class);
        if self.config.special & bit != 0 {
            return self.retire_special(transfer, now);
        }
        let verdict = self.judge(transfer, bit);
        match verdict {
            Verdict::Push => self.push(transfer, now),
            Verdict::Pop => self.pop(),
            Verdict::Ignore => {}
        }
        verdict
    }

    /// Whether `transfer` at most pushes or pops a record: no event that changes registers, no quirk.
    #[must_use]
    pub fn is_plain(&self, transfer: &Transfer) -> bool {
        self.config.special & class_bit(transfer.class) == 0
    }

    /// If true, [`Lbr::verdict`] is the same as that of `other`, which was made alike, on every transfer.
    #[must_use]
    pub fn judges_as(&self, other: &Self) -> bool {
        self.gate == other.gate
    }

    /// Passes over so many records of plain transfers (see [`Lbr::is_plain`]), the last of which retired at
    /// `last`. What they leave in the entries is not there: before anything is read or popped as many are to be
    /// pushed as the stack has entries, by which all is as if none had been passed over.
    pub fn pass_over(&mut self, records: u64, last: Cycles) {
        if records == 0 {
            return;
        }
        self.head = self.head.wrapping_add(records as u32) & (self.depth - 1);
        self.inserts = self.inserts.wrapping_add(records);
        self.last_insert = Some(last);
        self.pending_events = 0;
    }

    #[cold]
    fn retire_special(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        let mut transfer = *transfer;
        let BranchClass::Far(kind) = transfer.class else {
            self.note_taken(&transfer);
            return self.retire_noted(&transfer, now);
        };
        match kind {
            FarKind::DebugException => {
                self.debug_exception();
                return Verdict::Ignore;
            }
            FarKind::Smi => {
                let verdict = self.retire_noted(&transfer, now);
                self.enter_smm();
                return verdict;
            }
            FarKind::Rsm => {
                self.leave_smm();
                self.note_taken(&transfer);
                let verdict = self.retire_noted(&transfer, now);
                self.garble_after_rsm();
                return verdict;
            }
            _ => {}
        }
        if self.config.ler_kinds & class_bit(transfer.class) != 0 && self.recording() {
            self.copy_to_ler(transfer.from_size);
        }
        if matches!(kind, FarKind::Exception | FarKind::Interrupt)
            && self.config.quirk(Quirk::CanonicalEdge)
            && transfer.from_size == CodeSize::Bits64
            && transfer.from == EDGE
        {
            transfer.from = EDGE.wrapping_neg();
        }
        self.note_taken(&transfer);
        let verdict = self.retire_noted(&transfer, now);
        if kind == FarKind::TsxAbort
            && verdict == Verdict::Push
            && self.config.quirk(Quirk::DoubleAbort)
        {
            transfer.tx_abort = false;
            self.retire_noted(&transfer, now);
        }
        verdict
    }

    /// Keeps a branch for LER, if that is not filtered.
    fn note_taken(&mut self, transfer: &Transfer) {
        let zero_call = transfer.class == BranchClass::NearRelCallZero;
        if self.config.ler_unfiltered && self.recording() && !zero_call {
            let layout = &self.config.layout;
            self.last_taken = layout.encode(transfer, layout.source(transfer), 0, false, 0);
        }
    }

    /// Retires with the quirks that watch every update of the array.
    fn retire_noted(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        let verdict = self.judge(transfer, class_bit(transfer.class));
        match verdict {
            Verdict::Push => {
                self.note_undo(self.head.wrapping_add(1));
                self.push(transfer, now);
                self.duplicate_top();
            }
            Verdict::Pop => {
                self.note_undo(self.head);
                self.pop();
            }
            Verdict::Ignore => {}
        }
        verdict
    }

    #[inline]
    fn push(&mut self, transfer: &Transfer, now: Cycles) {
        let (cycles, valid) = match self.last_insert {
            None => (0, false),
            Some(last) => {
                let limit = u64::from(self.config.cycle_saturation);
                (now.since(last).min(limit) as u16, true)
            }
        };
        let from_filtered = self.gate.mask_from[usize::from(!transfer.cpl_before.is_kernel())];
        let layout = &self.config.layout;
        let from = if from_filtered {
            MASKED_FROM
        } else {
            layout.source(transfer)
        };
        let words = layout.encode(transfer, from, cycles, valid, self.pending_events);
        self.last_insert = Some(now);
        self.pending_events = 0;
        self.insert(words);
    }

    #[inline]
    fn insert(&mut self, words: [u64; 3]) {
        self.head = self.head.wrapping_add(1) & (self.depth - 1);
        self.inserts = self.inserts.wrapping_add(1);
        self.set_words(self.head, words);
    }

    #[inline]
    fn pop(&mut self) {
        let empty = self.words(self.head)[0] == 0;
        if self.config.inserts == InsertsEvent::PushesAndPops
            && (!empty || self.config.inserts_empty_pops)
        {
            self.inserts = self.inserts.wrapping_add(1);
        }
        if empty && self.config.saturate {
            return;
        }
        if self.config.pops_clear {
            self.set_words(self.head, [0; 3]);
        }
        self.head = self.head.wrapping_sub(1) & (self.depth - 1);
    }

    fn note_undo(&mut self, slot: u32) {
        let early = self.config.quirk(Quirk::EarlyFreeze) && self.config.legacy().is_some();
        if !early || self.config.early_freeze == 0 {
            return;
        }
        if self.undo.len() == self.config.early_freeze {
            self.undo.remove(0);
        }
        let slot = slot & (self.depth - 1);
        self.undo.push(Undo {
            slot,
            words: self.words(slot),
            head: self.head,
            last_insert: self.last_insert,
        });
    }

    fn duplicate_top(&mut self) {
        if !self.config.quirk(Quirk::DuplicateTop) || self.control.call_stack() {
            return;
        }
        if self
            .draw()
            .is_multiple_of(u64::from(self.config.duplicate_one_in.get()))
        {
            let words = self.words(self.head);
            self.note_undo(self.head.wrapping_add(1));
            self.insert(words);
        }
    }

    /// `#DB`: recording and BTF end, nothing is recorded.
    fn debug_exception(&mut self) {
        let cleared = DebugCtl::LBR | DebugCtl::BTF;
        self.control.debugctl = self.control.debugctl.without(cleared);
        self.control.ctl = self.control.ctl.without(LbrCtl::LBR_EN);
        self.undo.clear();
        self.refresh();
    }

    /// LER takes the youngest record. `size` is the code size of what was interrupted.
    pub(super) fn copy_to_ler(&mut self, size: CodeSize) {
        let [from, to, info] = if self.config.ler_unfiltered {
            self.last_taken
        } else {
            self.words(self.head)
        };
        let layout = &self.config.layout;
        match self.config.legacy() {
            None => {
                let kept = LbrInfo::BR_TYPE_MASK
                    | (LbrInfo::TSX_ABORT | LbrInfo::IN_TSX | LbrInfo::MISPRED).bits();
                self.ler = [from, to, info & kept];
            }
            Some(legacy) if legacy.ler => {
                let pair = if legacy.ler_addresses_only {
                    [layout.decode_from(from), layout.decode_to(to)]
                } else {
                    [from, to]
                };
                let width = if size == CodeSize::Bits64 {
                    !0
                } else {
                    0xffff_ffff
                };
                self.ler = [pair[0] & width, pair[1] & width, 0];
            }
            Some(_) => {}
        }
    }

    fn garble_after_rsm(&mut self) {
        if !self.config.quirk(Quirk::RsmGarbage) || !self.recording() {
            return;
        }
        let garbage = [self.draw(), self.draw()].map(|word| word & (EDGE - 1));
        let info = self.words(self.head)[2];
        self.set_words(self.head, [garbage[0], garbage[1], info]);
        self.undo.clear();
    }
}
