//! Ownership over inputs: what samples, entries and the end of a run are tested for.

use vlbr_cpu::ledger::{Actor, Event as Row};

use super::checks::foreign_entry;
use super::{Checking, Input, Machine, Rule, Violation};
use crate::hardware::{LbrRegister, Running};
use crate::kvm::{Note, Place};
use crate::perf::{Event, LbrContext, PmiSample};
use crate::policy::Standing;
use crate::{CpuId, Owner, TaskId, VcpuId};

impl Machine {
    pub(super) fn check_samples(&mut self, cpu: Option<CpuId>, samples: &[PmiSample]) {
        if self.checking == Checking::Off {
            return;
        }
        for sample in samples {
            if let Some(owner) = foreign_entry(sample) {
                self.findings.add(Violation {
                    rule: Rule::Leak,
                    input: self.inputs,
                    cpu,
                    owner,
                    actor: Owner::Kernel,
                    msr: None,
                    path: format!("a sample of {} holds a guest's branches", sample.event),
                });
            }
        }
    }

    /// VM entry happened: what passes is the guest's here.
    fn check_entry(&mut self, vcpu: VcpuId) {
        let state = self.host.vcpu(vcpu);
        if !state.lbr.open {
            return;
        }
        let standing = match state.lbr.event {
            Some(_) => Standing::Event,
            None => self.policy.standing(),
        };
        let path = match standing {
            Standing::Nothing => return,
            Standing::Event => {
                let event = state
                    .lbr
                    .event
                    .and_then(|event| self.host.perf.event(event));
                match event.map(Event::oncpu) {
                    Some(on) if on.is_some() && on == state.cpu => return,
                    Some(Some(on)) => {
                        format!("pass-through is open and the event is active on {on}")
                    }
                    Some(None) => "pass-through is open and the event is not active".to_owned(),
                    None => "pass-through is open and there is no event".to_owned(),
                }
            }
            Standing::Lent => {
                let here = state.cpu.map(|cpu| self.host.perf.lbr_cpu(cpu));
                if here.is_some_and(|lbr| lbr.lent() && lbr.guest() == Some(vcpu)) {
                    return;
                }
                "pass-through is open and the LBR is not lent to the guest here".to_owned()
            }
        };
        self.findings.add(Violation {
            rule: Rule::PassThrough,
            input: self.inputs,
            cpu: state.cpu,
            owner: Owner::Guest(vcpu),
            actor: Owner::Guest(vcpu),
            msr: None,
            path,
        });
    }

    /// The vCPU whose own doing an input is: what it does to its records is no loss.
    fn acting(&self, input: &Input) -> Option<VcpuId> {
        match input {
            Input::GuestWrite(vcpu, ..)
            | Input::Reset(vcpu)
            | Input::SetCpuid(vcpu, _)
            | Input::UserWrite(_, vcpu, ..)
            | Input::SetMsrs(_, vcpu, _) => Some(*vcpu),
            Input::Retire(cpu, ..) if cpu.index() < self.host.hardware.cpus() => {
                match self.host.hardware.cpu(*cpu).running() {
                    Running::Guest(vcpu) => Some(vcpu),
                    Running::Host(_) => None,
                }
            }
            _ => None,
        }
    }

    pub(super) fn before(&self, input: &Input) -> Option<Before> {
        if self.checking == Checking::Off {
            return None;
        }
        let acting = self.acting(input);
        let records = self.host.vcpus.iter().map(|vcpu| {
            let looked = acting != Some(vcpu.id);
            looked.then(|| self.host.records_of(vcpu.id))
        });
        Some(Before {
            records: records.collect(),
            exits: self.exits(),
            cpu: self.acts_on(input),
            owning: self.owning(),
            // Of what retires the PMI alone is the host's doing, and it is looked at apart.
            touched: (!matches!(input, Input::Retire(..))).then(|| self.touched()),
        })
    }

    /// What a PMI must not take away that comes now on a processor; `records`: nobody else looks at those.
    pub(super) fn before_pmi(&self, cpu: CpuId, records: bool) -> Option<Before> {
        if self.checking == Checking::Off {
            return None;
        }
        let vcpus = self.host.vcpus.iter();
        Some(Before {
            records: vcpus
                .map(|vcpu| records.then(|| self.host.records_of(vcpu.id)))
                .collect(),
            exits: Vec::new(),
            cpu: Some(cpu),
            owning: self.owning(),
            touched: Some(self.touched()),
        })
    }

    /// Exits of each vCPU.
    fn exits(&self) -> Vec<u64> {
        let journal = &self.host.journal;
        let vcpus = self.host.vcpus.iter();
        let exits = vcpus.map(|vcpu| {
            let levels = [Note::FastPath, Note::RunLoop, Note::UserSpace];
            levels.map(|note| journal.count(vcpu.id, note)).iter().sum()
        });
        exits.collect()
    }

    /// The processor on which all of an input is done; `None`: on several, or not known.
    fn acts_on(&self, input: &Input) -> Option<CpuId> {
        match input {
            Input::Switch(cpu, _)
            | Input::Rotate(cpu)
            | Input::DeepCState(cpu)
            | Input::Retire(cpu, ..) => Some(*cpu),
            Input::Leave(vcpu)
            | Input::Enter(vcpu, _)
            | Input::Exit(vcpu, ..)
            | Input::GuestRead(vcpu, ..)
            | Input::GuestWrite(vcpu, ..)
            | Input::EnterL2(vcpu, _)
            | Input::LeaveL2(vcpu) => self.host.vcpus.get(vcpu.index())?.cpu,
            Input::Open(_, target, ..) => self.host.perf.interrupts(*target),
            Input::Close(event) | Input::Enable(event) | Input::Disable(event) => {
                self.host.perf.interrupts_for(*event)
            }
            _ => None,
        }
    }

    /// Processors whose LBR perf leaves to a guest, with the thread that runs there.
    fn owning(&self) -> Vec<(CpuId, Option<TaskId>)> {
        let cpus = (0..self.host.hardware.cpus()).map(|cpu| CpuId(cpu as u16));
        cpus.filter(|cpu| self.host.perf.guest_owns_lbr(*cpu))
            .map(|cpu| (cpu, self.host.current(cpu)))
            .collect()
    }

    /// What the host accessed of records, TOS and filter, but to save, restore and reset them.
    fn touched(&self) -> u64 {
        let msrs = self.host.lbr_msrs();
        let of_records = |msr| {
            let register = msrs.register(msr);
            matches!(
                register,
                Some(LbrRegister::Entry(..) | LbrRegister::Tos | LbrRegister::Filter)
            )
        };
        let actors = [Actor::Host, Actor::HostPmi];
        let ledger = self.host.hardware.ledger();
        let counts = actors.map(|actor| {
            let whole = [Row::Xsaves, Row::Xrstors].map(|row| ledger.count(actor, row));
            ledger.accesses(actor, of_records) + whole.iter().sum::<u64>()
        });
        counts.iter().sum()
    }

    /// What became of it; `name` is what happened.
    pub(super) fn after(&mut self, input: &Input, before: &Before) {
        let name = format!("{input:?}");
        let name = name.split(['(', '{', ' ']).next().unwrap_or_default();
        self.after_named(name, before);
        let entered = match input {
            Input::Enter(vcpu, _) => Some(*vcpu),
            _ => None,
        };
        let exits = self.exits();
        for (n, exits) in exits.into_iter().enumerate() {
            let vcpu = VcpuId(n as u16);
            let again = before.exits.get(n) != Some(&exits) || entered == Some(vcpu);
            if again && self.host.vcpu(vcpu).place == Place::Guest {
                self.check_entry(vcpu);
            }
        }
    }

    pub(super) fn after_named(&mut self, name: &str, before: &Before) {
        // Whose LBR changed hands in between was not the same guest's all the time.
        let now = self.owning();
        let all_along = match before.cpu {
            Some(cpu) => {
                let of = |owning: &[(CpuId, Option<TaskId>)]| {
                    owning.iter().find(|(on, _)| *on == cpu).copied()
                };
                of(&now).is_some() && of(&now) == of(&before.owning)
            }
            None => now == before.owning && now.len() == self.host.hardware.cpus(),
        };
        let touched = before.touched.filter(|_| all_along);
        if touched.is_some_and(|touched| self.touched() != touched) {
            self.findings.add(Violation {
                rule: Rule::HostAccess,
                input: self.inputs,
                cpu: before.cpu.or(before.owning.first().map(|(cpu, _)| *cpu)),
                owner: Owner::Kernel,
                actor: Owner::Kernel,
                msr: None,
                path: format!("{name}: the host accesses records that it has left to the guest"),
            });
        }
        for (n, records) in before.records.iter().enumerate() {
            let Some(records) = *records else {
                continue;
            };
            let vcpu = VcpuId(n as u16);
            let now = self.host.records_of(vcpu);
            if now < records {
                self.findings.add(Violation {
                    rule: Rule::Loss,
                    input: self.inputs,
                    cpu: self.host.vcpu(vcpu).cpu,
                    owner: Owner::Guest(vcpu),
                    actor: Owner::Kernel,
                    msr: None,
                    path: format!(
                        "{} of {records} records are gone after {name}",
                        records - now
                    ),
                });
            }
        }
    }

    /// The rules for when no event with a branch stack is left, that of a guest included: then nothing
    /// counts as a user of the LBR. Says nothing before.
    pub fn finish(&mut self) {
        let mut events = self.host.perf.events();
        if self.checking == Checking::Off
            || events.any(|(_, event)| event.attr().branch_sample_type.is_some())
        {
            return;
        }
        let mut found = Vec::new();
        let perf = &self.host.perf;
        let users = perf.lbr_callstack_users();
        if users != 0 {
            found.push((None, format!("lbr_callstack_users is {users}")));
        }
        for (n, task) in self.host.tasks.iter().enumerate() {
            let context = perf.lbr_context(TaskId(n as u32));
            let users = context.map_or(0, LbrContext::callstack_users);
            if users != 0 {
                let what = format!("lbr_callstack_users of {} is {users}", task.name);
                found.push((None, what));
            }
        }
        for cpu in 0..self.host.hardware.cpus() {
            let cpu = CpuId(cpu as u16);
            let lbr = perf.lbr_cpu(cpu);
            let (users, pebs, slot) = (lbr.users(), lbr.pebs_users(), perf.shared_slot(cpu).refs);
            if (users, pebs, slot) != (0, 0, 0) {
                let what = format!(
                    "lbr_users is {users}, lbr_pebs_users {pebs}, the shared register has {slot} references"
                );
                found.push((Some(cpu), what));
            }
        }
        for (cpu, what) in found {
            self.findings.add(Violation {
                rule: Rule::References,
                input: self.inputs,
                cpu,
                owner: Owner::Kernel,
                actor: Owner::Kernel,
                msr: None,
                path: format!("no event with a branch stack is left, {what}"),
            });
        }
    }
}

/// What an input must not take away.
#[derive(Debug)]
pub(super) struct Before {
    /// Of each vCPU but the one that acts.
    records: Vec<Option<usize>>,
    exits: Vec<u64>,
    /// Where the input acts, if on one processor.
    cpu: Option<CpuId>,
    owning: Vec<(CpuId, Option<TaskId>)>,
    /// `None`: that is not looked at.
    touched: Option<u64>,
}
