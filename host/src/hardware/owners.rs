//! Whose what stands in the LBR registers is.

use vlbr_lbr::Verdict;

use super::{LbrMsrs, LbrRegister};
use crate::Owner;

/// Owners of the registers of one LBR, kept beside the device and never read by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owners {
    /// Of FROM, TO and INFO of each physical slot.
    entries: Vec<[Owner; 3]>,
    /// Slot of the youngest entry of architectural LBR, whose entries are numbered from there.
    youngest: u32,
    arch: bool,
    /// Words of an entry; INFO of others is nobody's.
    words: usize,
    tos: Owner,
    filter: Owner,
    debugctl: Owner,
    ler: [Owner; 3],
    frozen: Owner,
}

impl Owners {
    pub(super) fn new(msrs: &LbrMsrs) -> Self {
        Self {
            entries: vec![[Owner::Nobody; 3]; msrs.nr as usize],
            youngest: 0,
            arch: msrs.arch,
            words: msrs.words() as usize,
            tos: Owner::Nobody,
            filter: Owner::Nobody,
            debugctl: Owner::Nobody,
            ler: [Owner::Nobody; 3],
            frozen: Owner::Nobody,
        }
    }

    fn slot(&self, entry: u32) -> usize {
        let nr = self.entries.len() as u32;
        if !self.arch {
            return entry as usize;
        }
        let slot = (self.youngest + nr).wrapping_sub(entry);
        (if slot < nr { slot } else { slot % nr.max(1) }) as usize
    }

    /// Owner of a register.
    #[must_use]
    pub fn of(&self, register: LbrRegister) -> Owner {
        match register {
            LbrRegister::Entry(word, n) => self
                .entries
                .get(self.slot(n))
                .map_or(Owner::Nobody, |entry| entry[word as usize]),
            LbrRegister::Tos => self.tos,
            LbrRegister::Filter => self.filter,
            LbrRegister::Depth => Owner::Nobody,
            LbrRegister::DebugCtl => self.debugctl,
            LbrRegister::Ler(word) => self.ler[word as usize],
        }
    }

    /// Who caused `LBR_FRZ` to be set or cleared last.
    #[must_use]
    pub const fn frozen(&self) -> Owner {
        self.frozen
    }

    /// Owners of FROM, TO and INFO of entry n.
    #[must_use]
    pub fn entry(&self, n: u32) -> [Owner; 3] {
        self.entries.get(self.slot(n)).copied().unwrap_or_default()
    }

    pub(super) fn set_entry(&mut self, n: u32, owners: [Owner; 3]) {
        let slot = self.slot(n);
        if let Some(entry) = self.entries.get_mut(slot) {
            // Whole words, so that no call copies them.
            let info = if self.words == 3 { owners[2] } else { entry[2] };
            *entry = [owners[0], owners[1], info];
        }
    }

    /// Owners of every entry, as [`Owners::entry`] gives them.
    pub(super) fn read_stack(&self, owners: &mut [[Owner; 3]]) {
        if self.arch {
            for (n, of) in owners.iter_mut().enumerate().take(self.entries.len()) {
                *of = self.entry(n as u32);
            }
        } else {
            let entries = owners.iter_mut().zip(&self.entries);
            entries.for_each(|(of, entry)| *of = *entry);
        }
    }

    /// Sets the owners of every entry, as [`Owners::set_entry`] does.
    pub(super) fn write_stack(&mut self, owners: &[[Owner; 3]]) {
        if self.arch || self.words != 3 {
            for (n, of) in owners.iter().enumerate().take(self.entries.len()) {
                self.set_entry(n as u32, *of);
            }
        } else {
            let entries = self.entries.iter_mut().zip(owners);
            entries.for_each(|(entry, of)| *entry = *of);
        }
    }

    pub(super) fn write(&mut self, register: LbrRegister, owner: Owner) {
        match register {
            LbrRegister::Entry(word, n) => {
                let slot = self.slot(n);
                if let Some(entry) = self.entries.get_mut(slot) {
                    entry[word as usize] = owner;
                }
            }
            LbrRegister::Tos => self.tos = owner,
            LbrRegister::Filter => self.filter = owner,
            // Writing the depth clears every entry.
            LbrRegister::Depth => self.clear(),
            LbrRegister::DebugCtl => self.debugctl = owner,
            LbrRegister::Ler(word) => self.ler[word as usize] = owner,
        }
    }

    pub(super) const fn set_frozen(&mut self, owner: Owner) {
        self.frozen = owner;
    }

    /// Every entry is nobody's.
    pub(super) fn clear(&mut self) {
        self.entries.fill([Owner::Nobody; 3]);
        self.youngest = 0;
    }

    /// The device recorded on behalf of `owner`; `tos` is the youngest slot afterwards, as the
    /// device has it.
    pub(super) fn record(&mut self, verdict: Verdict, tos: u32, owner: Owner) {
        let nr = self.entries.len() as u32;
        match verdict {
            Verdict::Ignore => return,
            Verdict::Push => {
                self.youngest = if self.arch {
                    (self.youngest + 1) % nr.max(1)
                } else {
                    tos
                };
                let youngest = self.youngest as usize;
                if let Some(entry) = self.entries.get_mut(youngest) {
                    entry[..self.words].fill(owner);
                }
            }
            Verdict::Pop => {
                let popped = if self.arch {
                    let popped = self.youngest;
                    self.youngest = (self.youngest + nr).wrapping_sub(1) % nr.max(1);
                    popped
                } else {
                    (tos + 1) % nr.max(1)
                };
                if let Some(entry) = self.entries.get_mut(popped as usize) {
                    entry[..self.words].fill(owner);
                }
            }
        }
        self.tos = owner;
    }
}
