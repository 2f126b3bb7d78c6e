//! Running host scenarios: a machine under one policy in one kernel.

mod act;
mod attr;
mod check;
mod kernel;

use std::collections::BTreeMap;

use vlbr_arch::{Cycles, Msr};
use vlbr_cpu::ledger::Ledger;
use vlbr_cpu::processor::Options;
use vlbr_host::hardware::Word;
use vlbr_host::kvm::Journal;
use vlbr_host::machine::{
    Checking, Findings, HostConfig, HostError, Machine, Migration, MsrValues,
};
use vlbr_host::perf::{EventId, PmiSample};
use vlbr_host::{CpuId, Owner, TaskId, VcpuId, VmId};
use vlbr_lbr::Profile;

use crate::compare::{Mismatch, Outcome, eval, mismatch};
use crate::expr::Scope;
use crate::host_step::{CarriedField, EventName, HostStep, OwnerName};
use crate::{Expr, Register};

pub use kernel::HostKernel;

/// What a scenario's host has, beside its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostSetup {
    /// Logical processors.
    pub(crate) cpus: usize,
    /// `kvm.ignore_msrs`.
    pub(crate) ignore_msrs: bool,
}

/// A host with the names that the scenario gave.
pub(crate) struct HostMachine {
    machine: Machine,
    /// Its part.
    profile: &'static Profile,
    tasks: BTreeMap<String, TaskId>,
    vms: BTreeMap<String, VmId>,
    vcpus: BTreeMap<String, VcpuId>,
    events: BTreeMap<String, EventId>,
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
            profile,
            tasks: BTreeMap::new(),
            vms: BTreeMap::new(),
            vcpus: BTreeMap::new(),
            events: BTreeMap::new(),
            samples: Vec::new(),
            ledger: Ledger::new(),
            journal: Journal::default(),
            findings: Findings::default(),
            carried: Migration::default(),
            values: MsrValues::new(),
            clock: 0,
        })
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
        if usize::from(cpu) < self.machine.host().hardware().cpus() {
            Ok(CpuId(cpu))
        } else {
            Err(absent("processor", &format!("cpu{cpu}")))
        }
    }

    /// A task; the thread of a vCPU has its name.
    fn task(&self, name: &str) -> Result<TaskId, Mismatch> {
        if let Some(vcpu) = self.vcpus.get(name) {
            return Ok(self.machine.host().vcpu(*vcpu).thread);
        }
        let task = self.tasks.get(name).copied();
        task.ok_or_else(|| absent("task", name))
    }

    fn vcpu(&self, name: &str) -> Result<VcpuId, Mismatch> {
        let vcpu = self.vcpus.get(name).copied();
        vcpu.ok_or_else(|| absent("vCPU", name))
    }

    /// The number of an event; `None`: a vCPU has no such event now.
    fn event(&self, name: &EventName) -> Result<Option<EventId>, Mismatch> {
        match name {
            EventName::Opened(name) => match self.events.get(name) {
                Some(event) => Ok(Some(*event)),
                None => Err(absent("event", name)),
            },
            EventName::Lbr(vcpu) => {
                let vcpu = self.vcpu(vcpu)?;
                Ok(self.machine.host().vcpu(vcpu).lbr.event)
            }
            EventName::Counter(vcpu, n) => {
                let vcpu = self.vcpu(vcpu)?;
                let counters = &self.machine.host().vcpu(vcpu).pmu.gp;
                let counter = counters.get(*n);
                Ok(counter
                    .ok_or_else(|| absent("counter", &format!("pmc{n}")))?
                    .event)
            }
        }
    }

    fn existing(&self, name: &EventName) -> Result<EventId, Mismatch> {
        self.event(name)?
            .ok_or_else(|| mismatch("the event", "none"))
    }

    fn owner(&self, owner: &OwnerName) -> Result<Owner, Mismatch> {
        Ok(match owner {
            OwnerName::Nobody => Owner::Nobody,
            OwnerName::Kernel => Owner::Kernel,
            OwnerName::Named(name) => match self.vcpus.get(name) {
                Some(vcpu) => Owner::Guest(*vcpu),
                None => Owner::Task(self.task(name)?),
            },
        })
    }

    fn msr(&self, register: &Register, scope: Scope) -> Result<Msr, Mismatch> {
        let msrs = self.machine.host().lbr_msrs();
        let (base, index) = match register {
            Register::At(msr) => return Ok(*msr),
            Register::From(index) => (msrs.entry(Word::From, 0), index),
            Register::To(index) => (msrs.entry(Word::To, 0), index),
            Register::Info(index) => (msrs.entry(Word::Info, 0), index),
        };
        let base = base.ok_or_else(|| mismatch("a part with this register", "none"))?;
        let index = u32::try_from(eval(index, scope)?).ok();
        // One behind the last entry may be asked for.
        let index = index.filter(|index| *index < 0x100);
        let index = index.ok_or_else(|| mismatch("an entry below 256", "another"))?;
        Ok(base.plus(index))
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
