//! What the names of a host scenario stand for.

use std::collections::BTreeMap;

use vlbr_arch::{Cpl, Cycles, Msr, Transfer};
use vlbr_host::hardware::Word;
use vlbr_host::kvm::Vmcs12;
use vlbr_host::machine::{FastPath, Input, Machine};
use vlbr_host::perf::EventId;
use vlbr_host::{CpuId, Owner, TaskId, VcpuId, VmId};
use vlbr_lbr::Profile;
use vlbr_pmu::Increments;

use super::absent;
use super::attr::guest_cpu;
use crate::compare::{Mismatch, eval, mismatch, transfer};
use crate::expr::Scope;
use crate::host_step::{EventName, EventText, HostAct, MsrStep, MsrWant, OwnerName};
use crate::{Branch, Expr, Register};

/// The tasks, VMs, vCPUs and events of a host, by the names that a scenario gave them.
#[derive(Clone, Debug)]
pub struct HostNames {
    pub(super) profile: &'static Profile,
    pub(super) tasks: BTreeMap<String, TaskId>,
    pub(super) vms: BTreeMap<String, VmId>,
    pub(super) vcpus: BTreeMap<String, VcpuId>,
    pub(super) events: BTreeMap<String, EventId>,
}

impl HostNames {
    pub(super) const fn new(profile: &'static Profile) -> Self {
        Self {
            profile,
            tasks: BTreeMap::new(),
            vms: BTreeMap::new(),
            vcpus: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// The name of a VM.
    #[must_use]
    pub fn vm_name(&self, vm: VmId) -> Option<&str> {
        let mut vms = self.vms.iter();
        vms.find(|(_, id)| **id == vm)
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn cpu(&self, machine: &Machine, cpu: u16) -> Result<CpuId, Mismatch> {
        if usize::from(cpu) < machine.host().hardware().cpus() {
            Ok(CpuId(cpu))
        } else {
            Err(absent("processor", &format!("cpu{cpu}")))
        }
    }

    /// A task; the thread of a vCPU has its name.
    ///
    /// # Errors
    /// There is none.
    pub fn task(&self, machine: &Machine, name: &str) -> Result<TaskId, Mismatch> {
        if let Some(vcpu) = self.vcpus.get(name) {
            return Ok(machine.host().vcpu(*vcpu).thread);
        }
        let task = self.tasks.get(name).copied();
        task.ok_or_else(|| absent("task", name))
    }

    /// A vCPU.
    ///
    /// # Errors
    /// There is none.
    pub fn vcpu(&self, name: &str) -> Result<VcpuId, Mismatch> {
        let vcpu = self.vcpus.get(name).copied();
        vcpu.ok_or_else(|| absent("vCPU", name))
    }

    /// The number of an event; `None`: a vCPU has no such event now.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn event(&self, machine: &Machine, name: &EventName) -> Result<Option<EventId>, Mismatch> {
        match name {
            EventName::Opened(name) => match self.events.get(name) {
                Some(event) => Ok(Some(*event)),
                None => Err(absent("event", name)),
            },
            EventName::Lbr(vcpu) => {
                let vcpu = self.vcpu(vcpu)?;
                Ok(machine.host().vcpu(vcpu).lbr.event)
            }
            EventName::Counter(vcpu, n) => {
                let vcpu = self.vcpu(vcpu)?;
                let counters = &machine.host().vcpu(vcpu).pmu.gp;
                let counter = counters.get(*n);
                Ok(counter
                    .ok_or_else(|| absent("counter", &format!("pmc{n}")))?
                    .event)
            }
        }
    }

    pub(super) fn existing(
        &self,
        machine: &Machine,
        name: &EventName,
    ) -> Result<EventId, Mismatch> {
        self.event(machine, name)?
            .ok_or_else(|| mismatch("the event", "none"))
    }

    pub(super) fn owner(&self, machine: &Machine, owner: &OwnerName) -> Result<Owner, Mismatch> {
        Ok(match owner {
            OwnerName::Nobody => Owner::Nobody,
            OwnerName::Kernel => Owner::Kernel,
            OwnerName::Named(name) => match self.vcpus.get(name) {
                Some(vcpu) => Owner::Guest(*vcpu),
                None => Owner::Task(self.task(machine, name)?),
            },
        })
    }

    pub(super) fn msr(
        &self,
        machine: &Machine,
        register: &Register,
        scope: Scope,
    ) -> Result<Msr, Mismatch> {
        let msrs = machine.host().lbr_msrs();
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

    /// What a step is to the machine at time 0, whatever it should lead to.
    ///
    /// # Errors
    /// A name that stands for nothing, or a step that is none of the machine's inputs: those that
    /// make tasks and vCPUs or set what no input sets, and those that need what was carried before.
    pub fn input(&self, machine: &Machine, act: &HostAct) -> Result<Input, Mismatch> {
        let depth = machine.host().lbr_msrs().nr.into();
        let scope = Scope { depth, n: 0 };
        match self.plain(machine, act, scope, Cycles::new(0))? {
            Some(input) => Ok(input),
            None => Err(mismatch("an input of the machine", "another step")),
        }
    }

    /// The same at any time; `None`: it is none.
    pub(super) fn plain(
        &self,
        machine: &Machine,
        act: &HostAct,
        scope: Scope,
        now: Cycles,
    ) -> Result<Option<Input>, Mismatch> {
        let fast = |fast| if fast { FastPath::Yes } else { FastPath::No };
        Ok(Some(match act {
            HostAct::Cpuid(vcpu, model) => {
                let guest_cpu = guest_cpu(self.profile, model)?;
                Input::SetCpuid(self.vcpu(vcpu)?, Box::new(guest_cpu))
            }
            HostAct::Fork(parent, child) => {
                Input::Fork(self.task(machine, parent)?, self.task(machine, child)?)
            }
            HostAct::Switch(cpu, next) => {
                let next = next.as_deref().map(|name| self.task(machine, name));
                Input::Switch(self.cpu(machine, *cpu)?, next.transpose()?)
            }
            HostAct::Run(vcpu) => Input::Run(self.vcpu(vcpu)?),
            HostAct::Leave(vcpu) => Input::Leave(self.vcpu(vcpu)?),
            HostAct::Enter(vcpu, from) => Input::Enter(self.vcpu(vcpu)?, fast(*from)),
            HostAct::Exit(vcpu, cause, level) => Input::Exit(self.vcpu(vcpu)?, *cause, *level),
            HostAct::Guest(vcpu, step) => {
                let (vcpu, msr) = (self.vcpu(vcpu)?, self.msr(machine, &step.register, scope)?);
                match written(step, scope)? {
                    None => Input::GuestRead(vcpu, msr, Cpl::Ring0),
                    Some(value) => Input::GuestWrite(vcpu, msr, value, Cpl::Ring0),
                }
            }
            HostAct::User(task, vcpu, step) => {
                let (task, vcpu) = (self.task(machine, task)?, self.vcpu(vcpu)?);
                let msr = self.msr(machine, &step.register, scope)?;
                match written(step, scope)? {
                    None => Input::UserRead(task, vcpu, msr),
                    Some(value) => Input::UserWrite(task, vcpu, msr, value),
                }
            }
            HostAct::GetMsrs(task, vcpu, carried) => {
                Input::GetMsrs(self.task(machine, task)?, self.vcpu(vcpu)?, *carried)
            }
            HostAct::Migrate(vcpu, carried) => Input::Migrate(self.vcpu(vcpu)?, *carried),
            HostAct::Branch(cpu, branch, _) => {
                let (run, transfer) = retired(branch, scope)?;
                let retired = Box::new((run, Some(transfer)));
                Input::Retire(self.cpu(machine, *cpu)?, retired, now)
            }
            HostAct::Retire(cpu, amounts, cpl, _) => {
                let run = amount(amounts, *cpl, scope)?;
                Input::Retire(self.cpu(machine, *cpu)?, Box::new((run, None)), now)
            }
            HostAct::Open(_, text, _) => self.open(machine, text)?,
            HostAct::Close(event) => Input::Close(self.existing(machine, event)?),
            HostAct::Enable(event) => Input::Enable(self.existing(machine, event)?),
            HostAct::Disable(event) => Input::Disable(self.existing(machine, event)?),
            HostAct::Rotate(cpu) => Input::Rotate(self.cpu(machine, *cpu)?),
            HostAct::PebsRecord(event) => Input::PebsRecord(self.existing(machine, event)?),
            HostAct::DeepCState(cpu) => Input::DeepCState(self.cpu(machine, *cpu)?),
            HostAct::Reset(vcpu) => Input::Reset(self.vcpu(vcpu)?),
            HostAct::Capability(vm, on, good, _) => {
                let known = self.vms.get(vm).copied();
                Input::EnableCapability(known.ok_or_else(|| absent("VM", vm))?, *on, *good)
            }
            HostAct::EnterL2(vcpu, vmcs12, _) => {
                let vmcs12: Vmcs12 = *vmcs12;
                Input::EnterL2(self.vcpu(vcpu)?, vmcs12)
            }
            HostAct::LeaveL2(vcpu) => Input::LeaveL2(self.vcpu(vcpu)?),
            HostAct::Task(..)
            | HostAct::Vcpu(..)
            | HostAct::SetMsrs(..)
            | HostAct::Set(..)
            | HostAct::Code(..) => return Ok(None),
        }))
    }

    fn open(&self, machine: &Machine, text: &EventText) -> Result<Input, Mismatch> {
        let (attr, target) = (self.attr(machine, text)?, self.target(machine, text)?);
        let group = text.group.as_ref();
        let leader = group.map(|leader| self.existing(machine, leader));
        let (attr, leader) = (Box::new(attr), leader.transpose()?);
        Ok(Input::Open(attr, target, text.creator, leader))
    }
}

/// What an access writes, if it does.
fn written(step: &MsrStep, scope: Scope) -> Result<Option<u64>, Mismatch> {
    match &step.want {
        MsrWant::Value(_) | MsrWant::ReadRefused => Ok(None),
        MsrWant::Written(value) | MsrWant::WriteRefused(value) => eval(value, scope).map(Some),
    }
}

/// What retires with a branch.
fn retired(branch: &Branch, scope: Scope) -> Result<(Increments, Transfer), Mismatch> {
    let transfer = transfer(branch, scope)?;
    let (class, mispredicted) = (branch.class, branch.mispredicted);
    let mut run = Increments::branch(class, true, mispredicted, branch.cpl.0);
    run.in_tx = branch.in_tx;
    Ok((run, transfer))
}

fn amount(
    amounts: &[(Expr, vlbr_pmu::Source)],
    cpl: Cpl,
    scope: Scope,
) -> Result<Increments, Mismatch> {
    let mut run = Increments::new();
    for (amount, source) in amounts {
        run.add(*source, cpl, eval(amount, scope)?);
    }
    Ok(run)
}
