//! All processors, with the memory and the ledger they share.

use core::hash::{Hash, Hasher};

use vlbr_arch::Msr;
use vlbr_cpu::ledger::{Actor, Ledger, Prices};
use vlbr_cpu::processor::{LogicalProcessor, MsrFault, Options, ProcessorError};
use vlbr_vmx::{Vmx, VmxProfile};

use super::{Memory, Processor};
use crate::{CpuId, Owned};

/// Processors that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HardwareError {
    /// The part, or its options.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// Their number.
    #[error("{0} processors: between 1 and 4096 are possible")]
    Cpus(usize),
}

/// The processors of one host, all of one part.
#[derive(Clone, Debug)]
pub struct Hardware {
    fresh: LogicalProcessor,
    cpus: Vec<Processor>,
    memory: Memory,
    ledger: Ledger,
}

impl PartialEq for Hardware {
    /// Equal in their state; what was accessed so far is none.
    fn eq(&self, other: &Self) -> bool {
        self.cpus == other.cpus && self.memory == other.memory
    }
}

impl Eq for Hardware {}

impl Hash for Hardware {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cpus.hash(state);
        self.memory.hash(state);
    }
}

impl Hardware {
    /// `cpus` processors of the part with this name.
    ///
    /// # Errors
    /// No such part, or not so many processors.
    pub fn new(part: &str, cpus: usize, options: &Options) -> Result<Self, HardwareError> {
        if !(1..=4096).contains(&cpus) {
            return Err(HardwareError::Cpus(cpus));
        }
        let logical = LogicalProcessor::by_name(part, options.clone())?;
        let name = logical.lbr().profile().name();
        let vmx = VmxProfile::of_processor(name).ok();
        let vmx = vmx.map(|profile| Vmx::new(profile, vlbr_vmx::Options::default()));
        Ok(Self {
            cpus: vec![Processor::new(logical.clone(), vmx); cpus],
            fresh: logical,
            memory: Memory::default(),
            ledger: Ledger::new(),
        })
    }

    /// A processor of this part after power-up.
    #[must_use]
    pub const fn fresh(&self) -> &LogicalProcessor {
        &self.fresh
    }

    /// How many processors there are.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// A processor.
    ///
    /// # Panics
    /// There is none with this number: the host's own numbers are always of one.
    #[must_use]
    pub fn cpu(&self, cpu: CpuId) -> &Processor {
        &self.cpus[cpu.index()]
    }

    /// A processor and what all share.
    ///
    /// # Panics
    /// As [`Hardware::cpu`].
    #[must_use]
    pub fn split(&mut self, cpu: CpuId) -> (&mut Processor, &mut Memory, &mut Ledger) {
        self.ledger.charge_to(cpu.index());
        (
            &mut self.cpus[cpu.index()],
            &mut self.memory,
            &mut self.ledger,
        )
    }

    /// A processor.
    ///
    /// # Panics
    /// As [`Hardware::cpu`].
    #[must_use]
    pub fn cpu_mut(&mut self, cpu: CpuId) -> &mut Processor {
        &mut self.cpus[cpu.index()]
    }

    /// Physical memory.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Physical memory.
    #[must_use]
    pub const fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// What was accessed.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The ledger begins anew.
    pub fn forget_accesses(&mut self) {
        self.ledger = Ledger::new();
    }

    /// From now on what is counted takes time on its processor: see [`Hardware::take_spent`].
    pub fn set_prices(&mut self, prices: Prices) {
        self.ledger.set_prices(prices, self.cpus.len());
    }

    /// [`Ledger::take_spent`].
    pub fn take_spent(&mut self, spent: &mut Vec<(usize, u64)>) {
        self.ledger.take_spent(spent);
    }

    /// RDMSR on a processor.
    ///
    /// # Errors
    /// `#GP(0)`; it is counted.
    pub fn rdmsr(&mut self, cpu: CpuId, actor: Actor, msr: Msr) -> Result<Owned, MsrFault> {
        self.ledger.charge_to(cpu.index());
        self.cpus[cpu.index()].rdmsr(&mut self.ledger, actor, msr)
    }

    /// WRMSR on a processor.
    ///
    /// # Errors
    /// `#GP(0)`; it is counted.
    pub fn wrmsr(
        &mut self,
        cpu: CpuId,
        actor: Actor,
        msr: Msr,
        value: Owned,
    ) -> Result<(), MsrFault> {
        self.ledger.charge_to(cpu.index());
        self.cpus[cpu.index()].wrmsr(&mut self.ledger, actor, msr, value)
    }
}
