//! What happens to a host.

use vlbr_arch::{Cpl, Transfer};
use vlbr_cpu::ledger::Ledger;
use vlbr_host::kvm::Answer;
use vlbr_host::machine::{FastPath, HostError, Input, Migration, Output};
use vlbr_host::perf::Errno;
use vlbr_host::{Owned, Owner};
use vlbr_pmu::{Increments, Source};

use super::attr::guest_cpu;
use super::{HostMachine, absent, failed};
use crate::Branch;
use crate::compare::{Mismatch, Outcome, compare, eval, hex, mismatch};
use crate::expr::Scope;
use crate::host_step::{EventText, HostAct, MsrStep, MsrWant, VcpuModel};

/// Most tasks, vCPUs and events of a scenario.
const MAX_NAMES: usize = 256;

impl HostMachine {
    fn apply(&mut self, input: &Input) -> Result<Output, Mismatch> {
        self.machine.apply(input).map_err(failed)
    }

    fn done(&mut self, input: &Input) -> Outcome {
        self.apply(input).map(drop)
    }

    /// A name that is not taken yet.
    fn free(&self, name: &str) -> Outcome {
        let taken = self.tasks.contains_key(name) || self.vcpus.contains_key(name);
        let many = self.tasks.len() + self.vcpus.len() >= MAX_NAMES;
        if taken || many {
            return Err(mismatch("a new name, of at most 256", name));
        }
        Ok(())
    }

    pub(super) fn act(&mut self, act: &HostAct, scope: Scope) -> Outcome {
        let input = match act {
            HostAct::Task(name, kernel_thread) => {
                self.free(name)?;
                let task = self.machine.add_task(name, *kernel_thread);
                self.tasks.insert(name.clone(), task);
                return Ok(());
            }
            HostAct::Vcpu(name, vm, model) => return self.add_vcpu(name, vm, model),
            HostAct::Cpuid(vcpu, model) => {
                let guest_cpu = guest_cpu(self.profile, model)?;
                Input::SetCpuid(self.vcpu(vcpu)?, Box::new(guest_cpu))
            }
            HostAct::Fork(parent, child) => Input::Fork(self.task(parent)?, self.task(child)?),
            HostAct::Switch(cpu, next) => {
                let next = next.as_deref().map(|name| self.task(name)).transpose()?;
                Input::Switch(self.cpu(*cpu)?, next)
            }
            HostAct::Run(vcpu) => Input::Run(self.vcpu(vcpu)?),
            HostAct::Leave(vcpu) => Input::Leave(self.vcpu(vcpu)?),
            HostAct::Enter(vcpu, true) => Input::Enter(self.vcpu(vcpu)?, FastPath::Yes),
            HostAct::Enter(vcpu, false) => Input::Enter(self.vcpu(vcpu)?, FastPath::No),
            HostAct::Exit(vcpu, cause, level) => Input::Exit(self.vcpu(vcpu)?, *cause, *level),
            HostAct::Guest(vcpu, step) => return self.guest(vcpu, step, scope),
            HostAct::User(task, vcpu, step) => return self.user(task, vcpu, step, scope),
            HostAct::GetMsrs(task, vcpu, carried) => {
                let input = Input::GetMsrs(self.task(task)?, self.vcpu(vcpu)?, *carried);
                let Output::Msrs(values, refused) = self.apply(&input)? else {
                    return Err(mismatch("MSRs", "none"));
                };
                self.carried = Migration {
                    read: values.len(),
                    refused,
                    ..Migration::default()
                };
                self.values = values;
                return Ok(());
            }
            HostAct::SetMsrs(task, vcpu) => {
                let (task, vcpu) = (self.task(task)?, self.vcpu(vcpu)?);
                let input = Input::SetMsrs(task, vcpu, self.values.clone());
                let Output::Refused(refused) = self.apply(&input)? else {
                    return Err(mismatch("MSRs", "none"));
                };
                self.carried = Migration {
                    written: self.values.len() - refused.len(),
                    refused,
                    ..Migration::default()
                };
                return Ok(());
            }
            HostAct::Migrate(vcpu, carried) => {
                let input = Input::Migrate(self.vcpu(vcpu)?, *carried);
                let Output::Migrated(migration) = self.apply(&input)? else {
                    return Err(mismatch("a migration", "none"));
                };
                self.carried = *migration;
                return Ok(());
            }
            HostAct::Branch(cpu, branch, pmi) => return self.branch(*cpu, branch, *pmi, scope),
            HostAct::Retire(cpu, amounts, cpl, pmi) => {
                let mut run = Increments::new();
                for (amount, source) in amounts {
                    let amount = eval(amount, scope)?;
                    run.add(*source, *cpl, amount);
                    if *source == Source::CoreCycles {
                        self.now(amount);
                    }
                }
                return self.retire(*cpu, run, None, *pmi);
            }
            HostAct::Open(name, text, errno) => return self.open(name, text, *errno),
            HostAct::Close(event) => Input::Close(self.existing(event)?),
            HostAct::Enable(event) => Input::Enable(self.existing(event)?),
            HostAct::Disable(event) => Input::Disable(self.existing(event)?),
            HostAct::Rotate(cpu) => Input::Rotate(self.cpu(*cpu)?),
            HostAct::PebsRecord(event) => {
                let input = Input::PebsRecord(self.existing(event)?);
                let Output::Samples(samples) = self.apply(&input)? else {
                    return Err(mismatch("a sample", "none"));
                };
                self.samples.extend(samples);
                return Ok(());
            }
            HostAct::DeepCState(cpu) => Input::DeepCState(self.cpu(*cpu)?),
            HostAct::Reset(vcpu) => Input::Reset(self.vcpu(vcpu)?),
            HostAct::Capability(vm, on, good, expected) => {
                let known = self.vms.get(vm).copied();
                let vm = known.ok_or_else(|| absent("VM", vm))?;
                let input = Input::EnableCapability(vm, *on, *good);
                let found = match self.machine.apply(&input) {
                    Ok(Output::Stack(s)) => Some([s.nr, s.tos, s.from, s.to, s.info]),
                    Err(HostError::Errno(Errno::EINVAL)) => None,
                    Ok(other) => return Err(mismatch("the structure", format!("{other:?}"))),
                    Err(error) => return Err(failed(error)),
                };
                let told = |stack: Option<[u32; 5]>| match stack {
                    None => "-EINVAL".to_owned(),
                    Some(words) => format!("{words:#x?}"),
                };
                return same(*expected, found, told);
            }
            HostAct::EnterL2(vcpu, vmcs12, fails) => {
                let input = Input::EnterL2(self.vcpu(vcpu)?, *vmcs12);
                let found = matches!(self.apply(&input)?, Output::NestedFailed(_));
                let told = |fails| if fails { "fails" } else { "ok" };
                return same(*fails, found, told);
            }
            HostAct::LeaveL2(vcpu) => Input::LeaveL2(self.vcpu(vcpu)?),
            HostAct::Set(cpu, register, value, owner) => {
                let (cpu, msr) = (self.cpu(*cpu)?, self.msr(register, scope)?);
                let value = Owned::new(eval(value, scope)?, self.owner(owner)?);
                let processor = self.machine.host_mut().hardware_mut().cpu_mut(cpu);
                // Nobody's access: it stands in no ledger.
                let done = processor.wrmsr(&mut Ledger::new(), ACTOR, msr, value);
                return done.map_err(|fault| mismatch("ok", fault));
            }
            HostAct::Code(task, address, bytes) => {
                let task = task.as_deref().map(|name| self.task(name)).transpose()?;
                let address = eval(address, scope)?;
                let code = self.machine.host_mut().code_mut();
                code.set(task, address, bytes.clone());
                return Ok(());
            }
        };
        self.done(&input)
    }

    fn add_vcpu(&mut self, name: &str, vm: &str, model: &VcpuModel) -> Outcome {
        self.free(name)?;
        let vm = match self.vms.get(vm) {
            Some(vm) => *vm,
            None => {
                let id = self.machine.add_vm();
                self.vms.insert(vm.to_owned(), id);
                id
            }
        };
        let guest_cpu = guest_cpu(self.profile, model)?;
        let vcpu = self.machine.add_vcpu(vm, guest_cpu).map_err(failed)?;
        self.vcpus.insert(name.to_owned(), vcpu);
        Ok(())
    }

    fn open(&mut self, name: &str, text: &EventText, expected: Option<Errno>) -> Outcome {
        if self.events.contains_key(name) || self.events.len() >= MAX_NAMES {
            return Err(mismatch("a new event, of at most 256", name));
        }
        let (attr, target) = (self.attr(text)?, self.target(text)?);
        let group = text.group.as_ref();
        let leader = group.map(|leader| self.existing(leader)).transpose()?;
        let input = Input::Open(Box::new(attr), target, text.creator, leader);
        let found = match self.machine.apply(&input) {
            Ok(Output::Event(event)) => {
                self.events.insert(name.to_owned(), event);
                None
            }
            Err(HostError::Errno(errno)) => Some(errno),
            Ok(other) => return Err(mismatch("an event", format!("{other:?}"))),
            Err(error) => return Err(failed(error)),
        };
        let told = |errno: Option<Errno>| match errno {
            None => "ok".to_owned(),
            Some(errno) => format!("-{}", errno.name()),
        };
        same(expected, found, told)
    }

    fn branch(&mut self, cpu: u16, branch: &Branch, pmi: bool, scope: Scope) -> Outcome {
        self.now(branch.after);
        let transfer = Transfer {
            from: eval(&branch.from, scope)?,
            to: eval(&branch.to, scope)?,
            from_cs_base: branch.cs_base.0,
            to_cs_base: branch.cs_base.1,
            from_size: branch.size.0,
            to_size: branch.size.1,
            class: branch.class,
            cpl_before: branch.cpl.0,
            cpl_after: branch.cpl.1,
            mispredicted: branch.mispredicted,
            in_tx: branch.in_tx,
            tx_abort: branch.abort,
            fused: branch.fused,
        };
        let (class, mispredicted) = (branch.class, branch.mispredicted);
        let mut run = Increments::branch(class, true, mispredicted, branch.cpl.0);
        run.in_tx = branch.in_tx;
        self.retire(cpu, run, Some(transfer), pmi)
    }

    fn retire(
        &mut self,
        cpu: u16,
        run: Increments,
        transfer: Option<Transfer>,
        pmi: bool,
    ) -> Outcome {
        let now = self.now(0);
        let input = Input::Retire(self.cpu(cpu)?, Box::new((run, transfer)), now);
        let found = match self.apply(&input)? {
            Output::Pmi { samples, .. } => {
                self.samples.extend(samples);
                true
            }
            _ => false,
        };
        same(pmi, found, |pmi| if pmi { "a PMI" } else { "no PMI" })
    }

    fn guest(&mut self, vcpu: &str, step: &MsrStep, scope: Scope) -> Outcome {
        let vcpu = self.vcpu(vcpu)?;
        let msr = self.msr(&step.register, scope)?;
        let input = match &step.want {
            MsrWant::Value(_) | MsrWant::ReadRefused => Input::GuestRead(vcpu, msr, Cpl::Ring0),
            MsrWant::Written(value) | MsrWant::WriteRefused(value) => {
                Input::GuestWrite(vcpu, msr, eval(value, scope)?, Cpl::Ring0)
            }
        };
        let Output::Guest(access) = self.apply(&input)? else {
            return Err(mismatch("an access", "something else"));
        };
        self.compare(step, access.result.ok(), "#GP", scope)?;
        match step.exits {
            Some(exits) => same(exits, access.exited, |exits| {
                if exits { "a VM exit" } else { "no VM exit" }
            }),
            None => Ok(()),
        }
    }

    fn user(&mut self, task: &str, vcpu: &str, step: &MsrStep, scope: Scope) -> Outcome {
        let (task, vcpu) = (self.task(task)?, self.vcpu(vcpu)?);
        let msr = self.msr(&step.register, scope)?;
        let input = match &step.want {
            MsrWant::Value(_) | MsrWant::ReadRefused => Input::UserRead(task, vcpu, msr),
            MsrWant::Written(value) | MsrWant::WriteRefused(value) => {
                Input::UserWrite(task, vcpu, msr, eval(value, scope)?)
            }
        };
        let found = match self.apply(&input)? {
            Output::User(Answer::Value(value)) => Some(value),
            Output::User(Answer::Done) => Some(Owned::CLEARED),
            _ => None,
        };
        self.compare(step, found, "error", scope)
    }

    /// What an access gave against what it should.
    fn compare(
        &self,
        step: &MsrStep,
        found: Option<Owned>,
        refusal: &str,
        scope: Scope,
    ) -> Outcome {
        match (&step.want, found) {
            (MsrWant::Value(check), Some(found)) => {
                compare(check, found.value, scope)?;
                match &step.owner {
                    Some(owner) => same_owner(self.owner(owner)?, found.owner),
                    None => Ok(()),
                }
            }
            (MsrWant::Value(check), None) => {
                Err(mismatch(hex(eval(&check.value, scope)?), refusal))
            }
            (MsrWant::Written(_), Some(_))
            | (MsrWant::ReadRefused | MsrWant::WriteRefused(_), None) => Ok(()),
            (MsrWant::Written(_), None) => Err(mismatch("ok", refusal)),
            (MsrWant::ReadRefused | MsrWant::WriteRefused(_), Some(found)) => {
                Err(mismatch(refusal, hex(found.value)))
            }
        }
    }
}

const ACTOR: vlbr_cpu::ledger::Actor = vlbr_cpu::ledger::Actor::Guest;

fn same<T: PartialEq + Copy, S: ToString>(expected: T, found: T, told: impl Fn(T) -> S) -> Outcome {
    if expected == found {
        Ok(())
    } else {
        Err(mismatch(told(expected), told(found)))
    }
}

pub(super) fn same_owner(expected: Owner, found: Owner) -> Outcome {
    if expected == found {
        return Ok(());
    }
    Err(mismatch(
        format!("a value of {expected}"),
        format!("one of {found}"),
    ))
}
