//! What happens to a host.

use vlbr_cpu::ledger::Ledger;
use vlbr_host::kvm::Answer;
use vlbr_host::machine::{HostError, Input, Migration, Output};
use vlbr_host::perf::Errno;
use vlbr_host::{Owned, Owner};
use vlbr_pmu::Source;

use super::attr::guest_cpu;
use super::{HostMachine, failed};
use crate::compare::{Mismatch, Outcome, compare, eval, hex, mismatch};
use crate::expr::Scope;
use crate::host_step::{HostAct, MsrStep, MsrWant, VcpuModel};

/// Most tasks, vCPUs and events of a scenario.
const MAX_NAMES: usize = 256;

impl HostMachine {
    fn apply(&mut self, input: &Input) -> Result<Output, Mismatch> {
        self.machine.apply(input).map_err(failed)
    }

    /// A name that is not taken yet.
    fn free(&self, name: &str) -> Outcome {
        let taken = self.names.tasks.contains_key(name) || self.names.vcpus.contains_key(name);
        let many = self.names.tasks.len() + self.names.vcpus.len() >= MAX_NAMES;
        if taken || many {
            return Err(mismatch("a new name, of at most 256", name));
        }
        Ok(())
    }

    pub(super) fn act(&mut self, act: &HostAct, scope: Scope) -> Outcome {
        match act {
            HostAct::Task(name, kernel_thread) => {
                self.free(name)?;
                let task = self.machine.add_task(name, *kernel_thread);
                self.names.tasks.insert(name.clone(), task);
                return Ok(());
            }
            HostAct::Vcpu(name, vm, model) => return self.add_vcpu(name, vm, model),
            HostAct::Guest(_, step) => return self.guest(act, step, scope),
            HostAct::User(.., step) => return self.user(act, step, scope),
            HostAct::GetMsrs(..) => {
                let Output::Msrs(values, refused) = self.plain(act, scope)? else {
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
            HostAct::Migrate(..) => {
                let Output::Migrated(migration) = self.plain(act, scope)? else {
                    return Err(mismatch("a migration", "none"));
                };
                self.carried = *migration;
                return Ok(());
            }
            HostAct::Branch(_, branch, pmi) => {
                self.now(branch.after);
                return self.retire(act, *pmi, scope);
            }
            HostAct::Retire(_, amounts, _, pmi) => {
                for (amount, source) in amounts {
                    if *source == Source::CoreCycles {
                        let amount = eval(amount, scope)?;
                        self.now(amount);
                    }
                }
                return self.retire(act, *pmi, scope);
            }
            HostAct::PebsRecord(_) => {
                let Output::Samples(samples) = self.plain(act, scope)? else {
                    return Err(mismatch("a sample", "none"));
                };
                self.samples.extend(samples);
                return Ok(());
            }
            HostAct::Open(name, _, errno) => return self.open(name, act, *errno, scope),
            HostAct::Capability(.., expected) => {
                let input = self.input(act, scope)?;
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
            HostAct::EnterL2(.., fails) => {
                let found = matches!(self.plain(act, scope)?, Output::NestedFailed(_));
                let told = |fails| if fails { "fails" } else { "ok" };
                return same(*fails, found, told);
            }
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
            _ => {}
        }
        self.plain(act, scope).map(drop)
    }

    fn input(&mut self, act: &HostAct, scope: Scope) -> Result<Input, Mismatch> {
        let now = self.now(0);
        let input = self.names.plain(&self.machine, act, scope, now)?;
        input.ok_or_else(|| mismatch("an input of the machine", "another step"))
    }

    fn plain(&mut self, act: &HostAct, scope: Scope) -> Result<Output, Mismatch> {
        let input = self.input(act, scope)?;
        self.apply(&input)
    }

    fn add_vcpu(&mut self, name: &str, vm: &str, model: &VcpuModel) -> Outcome {
        self.free(name)?;
        let vm = match self.names.vms.get(vm) {
            Some(vm) => *vm,
            None => {
                let id = self.machine.add_vm();
                self.names.vms.insert(vm.to_owned(), id);
                id
            }
        };
        let guest_cpu = guest_cpu(self.names.profile, model)?;
        let vcpu = self.machine.add_vcpu(vm, guest_cpu).map_err(failed)?;
        self.names.vcpus.insert(name.to_owned(), vcpu);
        Ok(())
    }

    fn open(
        &mut self,
        name: &str,
        act: &HostAct,
        expected: Option<Errno>,
        scope: Scope,
    ) -> Outcome {
        if self.names.events.contains_key(name) || self.names.events.len() >= MAX_NAMES {
            return Err(mismatch("a new event, of at most 256", name));
        }
        let input = self.input(act, scope)?;
        let found = match self.machine.apply(&input) {
            Ok(Output::Event(event)) => {
                self.names.events.insert(name.to_owned(), event);
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

    fn retire(&mut self, act: &HostAct, pmi: bool, scope: Scope) -> Outcome {
        let found = match self.plain(act, scope)? {
            Output::Pmi { samples, .. } => {
                self.samples.extend(samples);
                true
            }
            _ => false,
        };
        same(pmi, found, |pmi| if pmi { "a PMI" } else { "no PMI" })
    }

    fn guest(&mut self, act: &HostAct, step: &MsrStep, scope: Scope) -> Outcome {
        let Output::Guest(access) = self.plain(act, scope)? else {
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

    fn user(&mut self, act: &HostAct, step: &MsrStep, scope: Scope) -> Outcome {
        let found = match self.plain(act, scope)? {
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
