//! The fast device behind [`Device`].

use vlbr_arch::{Cpl, LvtPc, Msr};

use super::Pmu;
use crate::{
    Counter, CounterSet, Device, Environment, GpFault, Horizon, Increments, Interrupt, Options,
    Outcome, Pending, PmiCause, PmuError, Profile, Refusal, Reset, Selector, Source,
};

impl Pmu {
    /// See [`Device::active`].
    #[must_use]
    pub fn active(&self) -> Vec<(Counter, Selector)> {
        self.active
            .iter()
            .map(|active| (active.counter, active.selector))
            .collect()
    }

    /// Whether a counter counts now.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.active.is_empty()
    }
}

impl Device for Pmu {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn rdmsr(&self, msr: Msr, environment: &dyn Environment) -> Result<u64, GpFault> {
        self.rdmsr(msr, environment)
    }

    fn wrmsr(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), PmuError> {
        self.wrmsr(msr, value, environment)
    }

    fn msrs(&self) -> Vec<Msr> {
        self.every_msr()
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.reserved_bits(msr)
    }

    fn rdpmc(&self, ecx: u32, cpl: Cpl, cr4_pce: bool) -> Result<u64, GpFault> {
        self.rdpmc(ecx, cpl, cr4_pce)
    }

    fn retire(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        self.retire(run, environment)
    }

    fn retire_sibling(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        self.retire_sibling(run, environment)
    }

    fn abort_transaction(&mut self) {
        self.abort_transaction();
    }

    fn raise(&mut self, cause: PmiCause, environment: &mut dyn Environment) {
        self.raise(cause, environment);
    }

    fn pending(&self) -> Option<Pending> {
        self.pending()
    }

    fn deliver(&mut self) -> Option<Interrupt> {
        self.deliver()
    }

    fn lvtpc(&self) -> LvtPc {
        self.lvtpc()
    }

    fn set_lvtpc(&mut self, entry: LvtPc) {
        self.set_lvtpc(entry);
    }

    fn smi(&mut self, environment: &dyn Environment) {
        self.smi(environment);
    }

    fn rsm(&mut self) {
        self.rsm();
    }

    fn reset(&mut self, reset: Reset) {
        self.reset(reset);
    }

    fn horizon(&self) -> Horizon {
        self.horizon()
    }

    fn watches(&self, source: Source) -> bool {
        let mut active = self.active.iter();
        active.any(|active| active.selector.sources.contains(source))
    }

    fn active(&self) -> Vec<(Counter, Selector)> {
        self.active()
    }

    fn held(&self) -> Vec<Refusal> {
        self.held.iter().flatten().cloned().collect()
    }

    fn armed(&self) -> CounterSet {
        CounterSet(self.armed)
    }
}
