//! The reference behind [`Device`].

use vlbr_arch::{Cpl, LvtPc, Msr};

use super::Pmu;
use crate::{
    Counter, CounterSet, Device, Environment, GpFault, Horizon, Increments, Interrupt, Options,
    Outcome, Pending, PmiCause, PmuError, Profile, Refusal, Reset, Selector,
};

impl Device for Pmu {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn rdmsr(&self, msr: Msr, environment: &dyn Environment) -> Result<u64, GpFault> {
        self.read(msr, environment)
    }

    fn wrmsr(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), PmuError> {
        self.write(msr, value, environment)
    }

    fn msrs(&self) -> Vec<Msr> {
        self.existing()
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.reserved(msr)
    }

    fn rdpmc(&self, ecx: u32, cpl: Cpl, cr4_pce: bool) -> Result<u64, GpFault> {
        self.read_pmc(ecx, cpl, cr4_pce)
    }

    fn retire(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        self.run(run, environment)
    }

    fn retire_sibling(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        self.boundary(run, true, environment)
    }

    fn abort_transaction(&mut self) {
        self.take_back();
    }

    fn raise(&mut self, cause: PmiCause, environment: &mut dyn Environment) {
        self.raise_pmi(cause, environment);
    }

    fn pending(&self) -> Option<Pending> {
        self.pending
    }

    fn deliver(&mut self) -> Option<Interrupt> {
        self.hand_over()
    }

    fn lvtpc(&self) -> LvtPc {
        LvtPc::from_bits(self.lvtpc)
    }

    fn set_lvtpc(&mut self, entry: LvtPc) {
        self.write_lvt(entry.bits());
    }

    fn smi(&mut self, environment: &dyn Environment) {
        self.enter_smm(environment);
    }

    fn rsm(&mut self) {
        self.leave_smm();
    }

    fn reset(&mut self, reset: Reset) {
        self.do_reset(reset);
    }

    fn horizon(&self) -> Horizon {
        self.limits()
    }

    fn active(&self) -> Vec<(Counter, Selector)> {
        let counting = self.counting().into_iter();
        counting
            .map(|counter| (counter, self.selector(counter)))
            .collect()
    }

    fn held(&self) -> Vec<Refusal> {
        self.counters()
            .into_iter()
            .filter(|counter| self.is_set_to_count(*counter))
            .filter_map(|counter| self.sources(counter).err())
            .collect()
    }

    fn armed(&self) -> CounterSet {
        CounterSet(
            self.armed
                .iter()
                .fold(0, |set, counter| set | 1 << counter.bit()),
        )
    }
}
