//! Accesses of registers that do not exist, when they are ignored.

use std::collections::BTreeMap;

use vlbr_arch::Msr;

/// Registers told apart; accesses of further ones are summed.
const MOST_REGISTERS: usize = 1024;

/// How often a register that does not exist was accessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IgnoredAccesses {
    /// RDMSR that gave 0.
    pub reads: u64,
    /// WRMSR that did nothing.
    pub writes: u64,
}

/// What [`super::UnknownMsrs::Ignore`] has let pass, as KVM's `report_ignored_msrs` logs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    registers: BTreeMap<Msr, IgnoredAccesses>,
    others: IgnoredAccesses,
}

impl Ignored {
    /// The registers with their accesses, ascending.
    pub fn registers(&self) -> impl Iterator<Item = (Msr, IgnoredAccesses)> + '_ {
        self.registers.iter().map(|(msr, times)| (*msr, *times))
    }

    /// Accesses of registers beyond the 1024 that are told apart.
    #[must_use]
    pub const fn others(&self) -> IgnoredAccesses {
        self.others
    }

    fn of(&mut self, msr: Msr) -> &mut IgnoredAccesses {
        if self.registers.len() >= MOST_REGISTERS && !self.registers.contains_key(&msr) {
            return &mut self.others;
        }
        self.registers.entry(msr).or_default()
    }

    pub(super) fn read(&mut self, msr: Msr) {
        let times = self.of(msr);
        times.reads = times.reads.saturating_add(1);
    }

    pub(super) fn written(&mut self, msr: Msr) {
        let times = self.of(msr);
        times.writes = times.writes.saturating_add(1);
    }
}
