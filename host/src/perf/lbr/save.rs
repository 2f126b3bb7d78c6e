//! Saving a task's stack: `__intel_pmu_lbr_save`.

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;

use super::LbrDataId;
use crate::hardware::{Entry, Hardware, Word};
use crate::perf::{Perf, StackCause};
use crate::{CpuId, Owned};

const BY: Actor = Actor::HostSave;

impl Perf {
    pub(super) fn lbr_save(&mut self, hw: &mut Hardware, cpu: CpuId, id: LbrDataId) {
        let users = self.has_call_stack_users(id);
        let Some(mut data) = self.data.remove(&id) else {
            return;
        };
        if users {
            if self.model.xsaves {
                let (processor, _, ledger) = hw.split(cpu);
                match processor.xsaves(ledger, BY) {
                    Ok(image) => data.image = Some(image),
                    Err(_) => self.unchecked += 1,
                }
            } else if self.model.arch {
                // Entries behind the first empty one are not overwritten, but for the last.
                let read = self.read_valid(hw, cpu, 0);
                data.entries
                    .resize(self.model.nr as usize, Entry::default());
                data.entries[..read.len()].copy_from_slice(&read);
                if let Some(last) = data
                    .entries
                    .last_mut()
                    .filter(|_| read.len() < self.model.nr as usize)
                {
                    last.set(Word::From, Owned::CLEARED);
                }
            } else {
                data.tos = self
                    .model
                    .msrs
                    .tos
                    .map_or(Owned::CLEARED, |tos| self.rdmsr(hw, cpu, BY, tos));
                data.entries = self.read_valid(hw, cpu, data.tos.value as u32);
                data.valid = data.entries.len() as u32;
                if self.select_is_saved(cpu) {
                    data.select = self.rdmsr(hw, cpu, BY, Msr::LBR_SELECT);
                }
            }
            data.change(StackCause::Saved);
            data.log_id += 1;
            self.cpu_mut(cpu).lbr.last = Some((id, data.log_id));
        } else {
            data.change(StackCause::SavedWithoutUsers);
        }
        self.data.insert(id, data);
    }

    /// Entries from `first` on, until FROM of one is 0: that one was read.
    fn read_valid(&mut self, hw: &mut Hardware, cpu: CpuId, first: u32) -> Vec<Entry> {
        let nr = self.model.nr;
        let mut entries = Vec::with_capacity(nr as usize);
        if self.model.words() == self.model.msrs.words() {
            let (processor, _, ledger) = hw.split(cpu);
            if processor
                .read_entries(ledger, BY, (first, nr), true, &mut entries)
                .is_err()
            {
                self.unchecked += 1;
            }
        } else {
            for i in 0..nr {
                let slot = self.model.msrs.older(first, i);
                let entry = self.read_entry(hw, cpu, BY, slot);
                let Some(entry) = entry else {
                    break;
                };
                entries.push(entry);
            }
        }
        if self.model.sign_quirk {
            for entry in &mut entries {
                let from = entry.from();
                let value = self.model.from_after_read(from.value);
                entry.set(Word::From, Owned::new(value, from.owner));
            }
        }
        entries
    }

    /// One entry with the words the driver knows; `None` if its FROM is 0.
    fn read_entry(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        actor: Actor,
        slot: u32,
    ) -> Option<Entry> {
        let mut entry = Entry::default();
        let words = self.model.msrs.words_of_entry();
        for word in words.take(self.model.words() as usize) {
            if let Some(msr) = self.model.msrs.entry(word, slot) {
                let read = self.rdmsr(hw, cpu, actor, msr);
                if word == Word::From && read.value == 0 {
                    return None;
                }
                entry.set(word, read);
            }
        }
        Some(entry)
    }
}
