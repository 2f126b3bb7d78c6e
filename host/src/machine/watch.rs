//! Ownership over inputs: what samples, entries and the end of a run are tested for.

use vlbr_cpu::ledger::Actor;

use super::checks::foreign_entry;
use super::{Checking, Input, Machine, Rule, Violation};
use crate::hardware::LbrRegister;
use crate::perf::PmiSample;
use crate::{CpuId, Owner, VcpuId};

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

    pub(super) fn check_entry(&mut self, vcpu: VcpuId) {
        let state = self.host.vcpu(vcpu);
        let Some(event) = state.lbr.event.filter(|_| state.lbr.open) else {
            return;
        };
        let on = self.host.perf.event(event).and_then(|event| event.oncpu());
        if self.checking == Checking::On && on != state.cpu {
            let path = match on {
                Some(on) => format!("pass-through is open and the event is active on {on}"),
                None => "pass-through is open and the event is not active".to_owned(),
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
    }

    pub(super) fn before(&self, input: &Input) -> Option<Before> {
        // What a guest does to its own records is no loss.
        let own = matches!(
            input,
            Input::GuestWrite(..)
                | Input::Retire(..)
                | Input::Reset(_)
                | Input::SetCpuid(..)
                | Input::UserWrite(..)
                | Input::SetMsrs(..)
        );
        if self.checking == Checking::Off || own {
            return None;
        }
        let vcpus = self.host.vcpus.iter();
        Some(Before {
            records: vcpus.map(|vcpu| self.host.records_of(vcpu.id)).collect(),
            cpu: self.acts_on(input),
            owning: self.owning(),
            touched: self.touched(),
        })
    }

    /// The processor on which all of an input is done; `None`: on several, or not known.
    fn acts_on(&self, input: &Input) -> Option<CpuId> {
        match input {
            Input::Switch(cpu, _) | Input::Rotate(cpu) | Input::DeepCState(cpu) => Some(*cpu),
            Input::Leave(vcpu)
            | Input::Enter(vcpu, _)
            | Input::Exit(vcpu, ..)
            | Input::GuestRead(vcpu, ..)
            | Input::EnterL2(vcpu, _)
            | Input::LeaveL2(vcpu) => self.host.vcpus.get(vcpu.index())?.cpu,
            Input::Open(_, target, ..) => self.host.perf.interrupts(*target),
            Input::Close(event) | Input::Enable(event) | Input::Disable(event) => {
                self.host.perf.interrupts_for(*event)
            }
            _ => None,
        }
    }

    /// Processors whose LBR perf leaves to a guest.
    fn owning(&self) -> Vec<CpuId> {
        let cpus = (0..self.host.hardware.cpus()).map(|cpu| CpuId(cpu as u16));
        cpus.filter(|cpu| self.host.perf.guest_owns_lbr(*cpu))
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
        let counts = actors.map(|actor| ledger.accesses(actor, of_records));
        counts.iter().sum()
    }

    pub(super) fn after(&mut self, input: &Input, before: &Before) {
        // Whose LBR changed hands in between was not the guest's all the time.
        let now = self.owning();
        let all_along = match before.cpu {
            Some(cpu) => now.contains(&cpu) && before.owning.contains(&cpu),
            None => now == before.owning && now.len() == self.host.hardware.cpus(),
        };
        if all_along && self.touched() != before.touched {
            let name = format!("{input:?}");
            let name = name.split(['(', '{', ' ']).next().unwrap_or_default();
            self.findings.add(Violation {
                rule: Rule::HostAccess,
                input: self.inputs,
                cpu: before.cpu.or(before.owning.first().copied()),
                owner: Owner::Kernel,
                actor: Owner::Kernel,
                msr: None,
                path: format!("{name}: the host accesses records that it has left to the guest"),
            });
        }
        for (n, &records) in before.records.iter().enumerate() {
            let vcpu = VcpuId(n as u16);
            let now = self.host.records_of(vcpu);
            if now < records {
                let name = format!("{input:?}");
                let name = name.split(['(', '{', ' ']).next().unwrap_or_default();
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

    /// The rules for the end of a run: with all events gone nothing is referenced.
    pub fn finish(&mut self) {
        if self.checking == Checking::Off || self.host.perf.events().next().is_some() {
            return;
        }
        let users = self.host.perf.lbr_callstack_users();
        if users != 0 {
            self.findings.add(Violation {
                rule: Rule::References,
                input: self.inputs,
                cpu: None,
                owner: Owner::Kernel,
                actor: Owner::Kernel,
                msr: None,
                path: format!("no event is left, lbr_callstack_users is {users}"),
            });
        }
        for cpu in 0..self.host.hardware.cpus() {
            let cpu = CpuId(cpu as u16);
            let (users, slot) = (
                self.host.perf.lbr_cpu(cpu).users(),
                self.host.perf.shared_slot(cpu).refs,
            );
            if users != 0 || slot != 0 {
                let what = format!(
                    "no event is left, lbr_users is {users}, the shared register has {slot} references"
                );
                self.findings.add(Violation {
                    rule: Rule::References,
                    input: self.inputs,
                    cpu: Some(cpu),
                    owner: Owner::Kernel,
                    actor: Owner::Kernel,
                    msr: None,
                    path: what,
                });
            }
        }
    }
}

/// What an input must not take away.
#[derive(Debug)]
pub(super) struct Before {
    records: Vec<usize>,
    /// Where the input acts, if on one processor.
    cpu: Option<CpuId>,
    owning: Vec<CpuId>,
    touched: u64,
}
