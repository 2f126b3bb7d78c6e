//! Restoring a task's stack: `__intel_pmu_lbr_restore`.

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;

use super::{LbrContext, LbrDataId};
use crate::hardware::{Entry, Hardware, Word};
use crate::perf::{Perf, StackCause, StackState};
use crate::{CpuId, Owned};

const BY: Actor = Actor::HostRestore;

impl Perf {
    pub(super) fn lbr_restore(&mut self, hw: &mut Hardware, cpu: CpuId, id: LbrDataId) {
        let users = self.has_call_stack_users(id);
        let Some(mut data) = self.data.remove(&id) else {
            return;
        };
        if !users || data.state == StackState::None {
            self.lbr_reset(hw, cpu);
        } else if self.cpu(cpu).lbr.last == Some((id, data.log_id))
            && !self.was_reset_in_c_state(hw, cpu, &data)
        {
            data.change(StackCause::Kept);
        } else {
            if self.model.xsaves {
                self.xrstors(hw, cpu, &data);
            } else if self.model.arch {
                self.restore_arch(hw, cpu, &data);
            } else {
                self.restore_legacy(hw, cpu, &data);
            }
            data.change(StackCause::Restored);
        }
        self.data.insert(id, data);
    }

    /// `lbr_is_reset_in_cstate`: FROM of the saved TOS is 0. Of architectural LBR asked only where
    /// CPUID says that deep C-states reset it.
    fn was_reset_in_c_state(&mut self, hw: &mut Hardware, cpu: CpuId, data: &LbrContext) -> bool {
        let slot = match self.model.arch {
            true if !self.model.deep_c_reset => return false,
            true => 0,
            false => data.tos.value as u32,
        };
        let msr = self.model.msrs.from.plus(slot);
        let from = self.rdmsr(hw, cpu, BY, msr).value;
        self.model.from_after_read(from) == 0
    }

    fn xrstors(&mut self, hw: &mut Hardware, cpu: CpuId, data: &LbrContext) {
        let (processor, _, ledger) = hw.split(cpu);
        let done = data
            .image
            .as_ref()
            .map(|image| processor.xrstors(ledger, BY, image));
        if !matches!(done, Some(Ok(()))) {
            self.unchecked += 1;
        }
    }

    /// `intel_pmu_arch_lbr_restore`: emptied first if the last entry is empty, then written up to
    /// the first empty one. What older saves left above that one is written, too, if nothing empty
    /// stands between.
    fn restore_arch(&mut self, hw: &mut Hardware, cpu: CpuId, data: &LbrContext) {
        let full = data
            .entries
            .last()
            .is_some_and(|last| last.from().value != 0);
        if !full {
            self.lbr_reset_depth(hw, cpu);
        }
        let valid = data
            .entries
            .iter()
            .take_while(|entry| entry.from().value != 0);
        let entries: Vec<Entry> = valid.copied().collect();
        self.write_entries(hw, cpu, 0, &entries);
    }

    /// `intel_pmu_lbr_restore`.
    fn restore_legacy(&mut self, hw: &mut Hardware, cpu: CpuId, data: &LbrContext) {
        let mut entries = data.entries.clone();
        entries.resize(self.model.nr as usize, Entry::default());
        self.write_entries(hw, cpu, data.tos.value as u32, &entries);
        if let Some(tos) = self.model.msrs.tos {
            self.wrmsr_of(hw, cpu, BY, tos, data.tos);
        }
        if self.select_is_saved(cpu) {
            self.wrmsr_of(hw, cpu, BY, Msr::LBR_SELECT, data.select);
        }
    }

    /// Writes entries from slot `first` down, with what FROM needs for the sign quirk.
    fn write_entries(&mut self, hw: &mut Hardware, cpu: CpuId, first: u32, entries: &[Entry]) {
        let model = &self.model;
        let fixed = entries.iter().map(|entry| {
            let (mut entry, from) = (*entry, entry.from());
            let value = model.from_for_write(from.value);
            entry.set(Word::From, Owned::new(value, from.owner));
            entry
        });
        if model.words() == model.msrs.words() && model.nr == model.msrs.nr {
            let (processor, _, ledger) = hw.split(cpu);
            if processor.write_entries(ledger, BY, first, fixed).is_err() {
                self.unchecked += 1;
            }
            return;
        }
        let words: Vec<Word> = model
            .msrs
            .words_of_entry()
            .take(model.words() as usize)
            .collect();
        let fixed: Vec<Entry> = fixed.collect();
        for (i, entry) in (0u32..).zip(fixed) {
            let slot = self.model.msrs.older(first, i);
            for word in &words {
                if let Some(msr) = self.model.msrs.entry(*word, slot) {
                    self.wrmsr_of(hw, cpu, BY, msr, entry.get(*word));
                }
            }
        }
    }
}
