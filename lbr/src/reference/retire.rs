//! The steps of a retired transfer.

use vlbr_arch::{BranchClass, CodeSize, Cycles, FarKind, Transfer};

use super::words::{Cell, Slot, Taken};
use super::{Before, Lbr, bit, set_bit};
use crate::{InsertsEvent, Quirk, Verdict};

impl Lbr {
    pub(super) fn retire_literally(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        let mut t = *transfer;
        if t.class == BranchClass::Far(FarKind::DebugException) {
            self.debug_exception();
            return Verdict::Ignore;
        }
        if t.class == BranchClass::Far(FarKind::Rsm) {
            self.rsm();
        }
        // Step 3: LER takes the youngest record before the event gives its own.
        let updates_ler = match t.class {
            BranchClass::Far(FarKind::Exception | FarKind::Interrupt) => true,
            BranchClass::Far(FarKind::SoftwareInterrupt) => {
                self.arch().is_some() || self.options.ler_software_interrupts
            }
            _ => false,
        };
        if updates_ler && self.is_recording() {
            self.update_ler(t.from_size);
        }
        if let BranchClass::Far(FarKind::Exception | FarKind::Interrupt) = t.class {
            let at_edge = t.from == 0x7fff_ffff_ffff + 1 && t.from_size == CodeSize::Bits64;
            if at_edge && self.has(Quirk::CanonicalEdge) {
                t.from += 0xffff << 48;
            }
        }
        if self.is_recording() && self.is_recordable(&t) {
            self.last_taken = Slot::hardware(Taken {
                transfer: t,
                hidden_source: false,
                cycles: None,
                logged: [0; 4],
            });
        }
        let verdict = self.decide(&t);
        match verdict {
            Verdict::Ignore => {}
            Verdict::Pop => self.pop(),
            Verdict::Push => {
                self.record(&t, now);
                if t.class == BranchClass::Far(FarKind::TsxAbort) && self.has(Quirk::DoubleAbort) {
                    t.tx_abort = false;
                    self.record(&t, now);
                }
            }
        }
        match t.class {
            BranchClass::Far(FarKind::Smi) => self.smi(),
            BranchClass::Far(FarKind::Rsm) => self.garbage_of_rsm(),
            _ => {}
        }
        verdict
    }

    fn record(&mut self, t: &Transfer, now: Cycles) {
        let mut cycles = None;
        if let Some(last) = self.last_insert {
            let elapsed = if now > last {
                now.value() - last.value()
            } else {
                0
            };
            let limit = self.options.cycle_saturation;
            cycles = Some(u16::try_from(elapsed).map_or(limit, |elapsed| elapsed.min(limit)));
        }
        let hidden_source = self.arch().is_some()
            && self.options.arch_mask_from
            && !self.arch_level_enabled(t.cpl_before.is_kernel());
        let taken = Taken {
            transfer: *t,
            hidden_source,
            cycles,
            logged: self.logged,
        };
        self.remember();
        self.last_insert = Some(now);
        self.logged = [0; 4];
        self.insert(Slot::hardware(taken));
        if self.has(Quirk::DuplicateTop) && !self.in_call_stack_mode() {
            let one_in = u64::from(self.options.duplicate_top_one_in.get());
            if self.draw().is_multiple_of(one_in) {
                let copy = self.slots[self.top()];
                self.remember();
                self.insert(copy);
            }
        }
    }

    fn insert(&mut self, slot: Slot) {
        self.inserts = self.inserts.wrapping_add(1);
        if self.arch().is_some() {
            self.slots.pop();
            self.slots.insert(0, slot);
        } else {
            self.tos = (self.tos + 1) % self.slots.len();
            self.slots[self.tos] = slot;
        }
    }

    fn pop(&mut self) {
        self.remember();
        let top = self.top();
        let empty = self.slot_words(&self.slots[top])[0] == 0;
        let counts = self.profile.lbr_inserts == InsertsEvent::PushesAndPops;
        if counts && (self.options.inserts_count_empty_pops || !empty) {
            self.inserts = self.inserts.wrapping_add(1);
        }
        if self.arch().is_some() {
            self.slots.remove(0);
            self.slots.push(Slot::default());
            return;
        }
        if empty && self.options.callstack_saturate {
            return;
        }
        if self.options.pops_clear_slots {
            self.slots[top] = Slot::default();
        }
        let depth = self.slots.len();
        self.tos = (self.tos + depth - 1) % depth;
    }

    /// E6 needs the array as it was some updates ago.
    fn remember(&mut self) {
        if self.arch().is_some() || !self.has(Quirk::EarlyFreeze) {
            return;
        }
        self.before.push(Before {
            slots: self.slots.clone(),
            tos: self.tos,
            last_insert: self.last_insert,
        });
        let wanted = usize::from(self.options.early_freeze_branches).min(self.slots.len());
        while self.before.len() > wanted {
            self.before.remove(0);
        }
    }

    pub(super) fn update_ler(&mut self, size: CodeSize) {
        let mut source = &self.slots[self.top()];
        if self.arch().is_some() && !self.options.arch_ler_filtered {
            source = &self.last_taken;
        }
        let [from, to, info] = self.slot_words(source);
        let Some(legacy) = self.legacy() else {
            let mut kept = 0;
            for n in [56, 57, 58, 59, 61, 62, 63] {
                set_bit(&mut kept, n, bit(info, n));
            }
            self.ler = [from, to, kept];
            return;
        };
        if !legacy.ler {
            return;
        }
        let mut pair = [from, to];
        if self.options.ler_addresses_only {
            pair = [self.address_in_from(from), self.address_in_to(to)];
        }
        if size != CodeSize::Bits64 {
            pair = pair.map(|word| word % (1 << 32));
        }
        self.ler = [pair[0], pair[1], 0];
    }

    fn garbage_of_rsm(&mut self) {
        if self.has(Quirk::RsmGarbage) && self.is_recording() {
            let from = self.draw() % (1 << 47);
            let to = self.draw() % (1 << 47);
            let top = self.top();
            self.slots[top].from = Cell::Software(from);
            self.slots[top].to = Cell::Software(to);
            self.forget_history();
        }
    }
}
