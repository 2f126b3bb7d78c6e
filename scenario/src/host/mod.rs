//! Running host scenarios: a machine under one policy in one kernel.

mod act;
mod attr;
mod check;
mod kernel;
mod names;

use vlbr_arch::{Cycles, Msr};
use vlbr_cpu::ledger::Ledger;
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::Journal;
use vlbr_host::machine::{
    Checking, Findings, HostConfig, HostError, Machine, Migration, MsrValues,
};
use vlbr_host::perf::{EventId, PmiSample};
use vlbr_host::{CpuId, Owner, TaskId, VcpuId};
use vlbr_lbr::Profile;

use crate::compare::{Mismatch, Outcome, eval, mismatch};
use crate::expr::Scope;
use crate::host_step::{CarriedField, EventName, HostAct, HostStep, OwnerName};
use crate::{Expr, Register};

pub use kernel::HostKernel;
pub use names::HostNames;

/// What a scenario's host has, beside its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostSetup {
    /// Logical processors.
    pub(crate) cpus: usize,
    /// `kvm.ignore_msrs`.
    pub(crate) ignore_msrs: bool,
}

/// Why there is no host to do steps on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// No such part.
    #[error("there is no part {0:?}")]
    Part(String),
    /// The host cannot be made.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A host with the names that the scenario gave.
#[derive(Debug)]
pub struct HostMachine {
    machine: Machine,
    names: HostNames,
    /// Since the last `when`.
    samples: Vec<PmiSample>,
    ledger: Ledger,
    journal: Journal,
    findings: Findings,
    /// What user space carried last.
    carried: Migration,
    /// What it read last.
    values: MsrValues,
    clock: u64,
}

/// What a name stands for is not there.
fn absent(what: &str, name: &str) -> Mismatch {
    mismatch(format!("a {what} named {name}"), "none")
}

fn failed(error: HostError) -> Mismatch {
    mismatch("the step can be done", error)
}

impl HostMachine {
    /// A host on which nothing runs.
    pub(crate) fn new(
        kernel: &HostKernel,
        profile: &'static Profile,
        options: Options,
        setup: HostSetup,
    ) -> Result<Self, HostError> {
        let config = HostConfig {
            part: profile.name().to_owned(),
            cpus: setup.cpus,
            options,
            behaviour: kernel.behaviour(),
            kvm: kernel.kvm(),
            ignore_msrs: setup.ignore_msrs,
        };
        Ok(Self {
            machine: Machine::new(&config, kernel.policy(), Checking::On)?,
            names: HostNames::new(profile),
            samples: Vec::new(),
            ledger: Ledger::new(),
            journal: Journal::default(),
            findings: Findings::default(),
            carried: Migration::default(),
            values: MsrValues::new(),
            clock: 0,
        })
    }

    /// A host of this part on which nothing runs, every counter source fed, for steps that are done
    /// one by one.
    ///
    /// # Errors
    /// No such part, or its processors cannot be made.
    pub fn stage(kernel: &HostKernel, part: &str, cpus: usize) -> Result<Self, StageError> {
        let profile = Profile::named(part).map_err(|_| StageError::Part(part.to_owned()))?;
        let mut options = Options::default();
        options.pmu.feeds = vlbr_pmu::SourceSet::ALL;
        let setup = HostSetup {
            cpus,
            ignore_msrs: false,
        };
        Ok(Self::new(kernel, profile, options, setup)?)
    }

    /// Does a step as it would stand in a scenario, which says what it leads to.
    ///
    /// # Errors
    /// It leads to something else.
    pub fn perform(&mut self, act: &HostAct) -> Result<(), Mismatch> {
        let depth = self.depth();
        self.act(act, Scope { depth, n: 0 })
    }

    /// The host.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the names stand for.
    #[must_use]
    pub const fn names(&self) -> &HostNames {
        &self.names
    }

    /// The host and what the names stand for.
    #[must_use]
    pub fn into_parts(self) -> (Machine, HostNames) {
        (self.machine, self.names)
    }

    /// A `when` begins: counts start there.
    pub(crate) fn begin_when(&mut self) {
        self.samples.clear();
        self.ledger = self.machine.ledger().clone();
        self.journal = self.machine.host().journal().clone();
        self.findings = self.machine.findings().clone();
    }

    fn carried(&self, field: CarriedField) -> u64 {
        let carried = &self.carried;
        let count = match field {
            CarriedField::Read => carried.read,
            CarriedField::Written => carried.written,
            CarriedField::Refused => carried.refused.len(),
            CarriedField::Records => carried.records.len(),
            CarriedField::RecordsThat(arrival) => carried.count(arrival),
            CarriedField::ControlsThat(arrival) => {
                let controls = carried.controls.iter();
                controls.filter(|(_, found)| *found == arrival).count()
            }
        };
        count as u64
    }

    /// Entries of the LBR.
    pub(crate) fn depth(&self) -> u64 {
        self.machine.host().lbr_msrs().nr.into()
    }

    /// Does or compares what a step says.
    pub(crate) fn step(&mut self, step: &HostStep, scope: Scope) -> Outcome {
        match step {
            HostStep::Act(act) => self.act(act, scope),
            HostStep::Check(check) => self.check(check, scope),
        }
    }

    fn cpu(&self, cpu: u16) -> Result<CpuId, Mismatch> {
        self.names.cpu(&self.machine, cpu)
    }

    fn task(&self, name: &str) -> Result<TaskId, Mismatch> {
        self.names.task(&self.machine, name)
    }

    fn vcpu(&self, name: &str) -> Result<VcpuId, Mismatch> {
        self.names.vcpu(name)
    }

    fn event(&self, name: &EventName) -> Result<Option<EventId>, Mismatch> {
        self.names.event(&self.machine, name)
    }

    fn existing(&self, name: &EventName) -> Result<EventId, Mismatch> {
        self.names.existing(&self.machine, name)
    }

    fn owner(&self, owner: &OwnerName) -> Result<Owner, Mismatch> {
        self.names.owner(&self.machine, owner)
    }

    fn msr(&self, register: &Register, scope: Scope) -> Result<Msr, Mismatch> {
        self.names.msr(&self.machine, register, scope)
    }

    fn now(&mut self, after: u64) -> Cycles {
        self.clock = self.clock.saturating_add(after);
        Cycles::new(self.clock)
    }

    fn index(expr: &Expr, scope: Scope) -> Result<u32, Mismatch> {
        let value = eval(expr, scope)?;
        u32::try_from(value).map_err(|_| mismatch("an index of 32 bits", value))
    }
}
