//! What a host is compared with.

use vlbr_arch::vmx::MsrArea;
use vlbr_cpu::ledger::{Actor, Event as Row};
use vlbr_host::hardware::Word;
use vlbr_host::machine::Rule;
use vlbr_host::perf::{EventState, PmiSample, StackState, perf_branch_type};
use vlbr_host::{CpuId, Owned, Owner};
use vlbr_vmx::Access;

use super::act::same_owner;
use super::{HostMachine, failed};
use crate::Expr;
use crate::compare::{Mismatch, Outcome, compare, eval, mismatch};
use crate::expr::Scope;
use crate::host_step::{
    ContextField, CpuField, EventName, HostCheck, HostNumber, LedgerKind, LedgerRegisters,
    OwnerName, SampleEntry,
};

impl HostMachine {
    pub(super) fn check(&mut self, check: &HostCheck, scope: Scope) -> Outcome {
        match check {
            HostCheck::Number(number, check) => {
                let found = self.number(number, scope)?;
                compare(check, found, scope)
            }
            HostCheck::State(event, state, on) => self.state(event, *state, *on),
            HostCheck::Eof(event) => match self.read(event)? {
                None => Ok(()),
                Some(count) => Err(mismatch("eof", count)),
            },
            HostCheck::Passes(vcpu, register, count, passes) => {
                let vcpu = self.vcpu(vcpu)?;
                let first = self.msr(register, scope)?;
                for n in 0..Self::index(count, scope)?.min(0x1000) {
                    for access in [Access::Read, Access::Write] {
                        let msr = first.plus(n);
                        let exits = self.machine.host().intercepts(vcpu, msr, access);
                        if exits == *passes {
                            let told = |exits| if exits { "exits" } else { "passes" };
                            let expected = format!("{access:?} of {msr} {}", told(!exits));
                            return Err(mismatch(expected, told(exits)));
                        }
                    }
                }
                Ok(())
            }
            HostCheck::Register(cpu, register, check, owner) => {
                let (cpu, msr) = (self.cpu(*cpu)?, self.msr(register, scope)?);
                let processor = self.machine.host().hardware().cpu(cpu);
                let found = processor.peek(msr);
                compare(
                    check,
                    found.ok_or_else(|| mismatch("a register", "#GP"))?,
                    scope,
                )?;
                match owner {
                    Some(owner) => same_owner(self.owner(owner)?, processor.owner_of(msr)),
                    None => Ok(()),
                }
            }
            HostCheck::Entry(cpu, index, expected) => {
                let cpu = self.cpu(*cpu)?;
                self.entry(cpu, Self::index(index, scope)?, expected.as_ref(), scope)
            }
            HostCheck::Holds(cpu, count) => {
                let count = eval(count, scope)?;
                let cpu = self.cpu(*cpu)?;
                let found = self.machine.host().lbr_msrs().nr;
                let filled = (0..found).filter(|n| {
                    let from = self.word(cpu, Word::From, *n);
                    from.is_some_and(|from| from.value != 0)
                });
                let filled = filled.count() as u64;
                if filled == count {
                    Ok(())
                } else {
                    Err(mismatch(format!("{count} entries"), filled))
                }
            }
            HostCheck::Sample(event, index, expected) => self.sample(event, index, expected, scope),
            HostCheck::NoFindings => match self.machine.findings().violations().first() {
                None => Ok(()),
                Some(violation) => Err(mismatch("no findings", violation)),
            },
        }
    }

    fn state(&self, event: &EventName, state: Option<EventState>, on: Option<u16>) -> Outcome {
        let found = self.event(event)?;
        let perf = self.machine.host().perf();
        let known = found.and_then(|event| perf.event(event));
        let found = known.map(|event| (event.state(), event.oncpu()));
        let expected = state.map(|state| (state, on.map(CpuId)));
        if found == expected {
            return Ok(());
        }
        let told = |state: Option<(EventState, Option<CpuId>)>| match state {
            None => "none".to_owned(),
            Some((state, None)) => format!("{state:?}"),
            Some((state, Some(cpu))) => format!("{state:?} on {cpu}"),
        };
        Err(mismatch(told(expected), told(found)))
    }

    fn read(&self, event: &EventName) -> Result<Option<u64>, Mismatch> {
        let host = self.machine.host();
        let event = self.existing(event)?;
        host.perf()
            .read(host.hardware(), event)
            .map_err(|errno| failed(errno.into()))
    }

    fn number(&self, number: &HostNumber, scope: Scope) -> Result<u64, Mismatch> {
        let host = self.machine.host();
        Ok(match number {
            HostNumber::Ledger(actor, kind, registers) => {
                self.rows(*actor, *kind, registers, scope)?
            }
            HostNumber::Note(vcpu, note) => {
                let vcpu = self.vcpu(vcpu)?;
                host.journal().count(vcpu, *note) - self.journal.count(vcpu, *note)
            }
            HostNumber::Finding(rule) => self.violations(*rule),
            HostNumber::Carried(field) => self.carried(*field),
            HostNumber::Cpu(cpu, field) => {
                let cpu = self.cpu(*cpu)?;
                match field {
                    CpuField::Users => host.perf().lbr_cpu(cpu).users().into(),
                    CpuField::PebsUsers => host.perf().lbr_cpu(cpu).pebs_users().into(),
                    CpuField::SlotRefs => host.perf().shared_slot(cpu).refs.into(),
                    CpuField::GuestOwns => host.perf().guest_owns_lbr(cpu).into(),
                }
            }
            HostNumber::CallStackUsers => i64::from(host.perf().lbr_callstack_users()) as u64,
            HostNumber::Context(task, field) => {
                let context = host.perf().lbr_context(self.task(task)?);
                let context = context.ok_or_else(|| mismatch("a saved context", "none"))?;
                match field {
                    ContextField::Valid => context.valid_lbrs().into(),
                    ContextField::Tos => context.tos().value,
                    ContextField::Select => context.lbr_sel().value,
                    ContextField::Users => i64::from(context.callstack_users()) as u64,
                    ContextField::LogId => context.log_id(),
                    ContextField::State => (context.stack_state() == StackState::Valid).into(),
                }
            }
            HostNumber::Index(event) => {
                let event = host.perf().event(self.existing(event)?);
                event.map_or(0, |event| i64::from(event.index()) as u64)
            }
            HostNumber::Filter(event) => {
                let event = host.perf().event(self.existing(event)?);
                let config = event.and_then(vlbr_host::perf::Event::branch_config);
                config.ok_or_else(|| mismatch("a branch filter", "none"))?
            }
            HostNumber::Read(event) => self
                .read(event)?
                .ok_or_else(|| mismatch("a count", "eof"))?,
            HostNumber::Samples(event) => self.samples_of(event)?.count() as u64,
            HostNumber::Stale(event) => self
                .samples_of(event)?
                .filter(|sample| sample.stale)
                .count() as u64,
            HostNumber::SampleHolds(event) => {
                let branches = self.last_sample(event)?.branches.as_ref();
                branches.map_or(0, |stack| stack.records.len() as u64)
            }
            HostNumber::Vmcs(vcpu, field) => host.vmcs_field(self.vcpu(vcpu)?, *field),
            HostNumber::Extension => self.machine.policy().check_capability(host).into(),
            HostNumber::Snapshot(vcpu) => host.vcpu(self.vcpu(vcpu)?).host_debugctl,
        })
    }

    fn violations(&self, rule: Rule) -> u64 {
        self.machine.findings().count(rule) - self.findings.count(rule)
    }

    fn rows(
        &self,
        actor: Actor,
        kind: LedgerKind,
        registers: &LedgerRegisters,
        scope: Scope,
    ) -> Result<u64, Mismatch> {
        let since = self.machine.ledger().since(&self.ledger);
        let since = since.ok_or_else(|| mismatch("a ledger that grows", "another"))?;
        let one = match registers {
            LedgerRegisters::One(register) => Some(self.msr(register, scope)?),
            _ => None,
        };
        let msrs = self.machine.host().lbr_msrs();
        let chosen = |msr| match registers {
            LedgerRegisters::All => true,
            LedgerRegisters::Lbr => msrs.register(msr).is_some(),
            LedgerRegisters::One(_) => Some(msr) == one,
        };
        Ok(since.total(|by, row| {
            by == actor
                && match (kind, row) {
                    (LedgerKind::Rdmsr, Row::Rdmsr(msr))
                    | (LedgerKind::Wrmsr, Row::Wrmsr(msr))
                    | (LedgerKind::AreaLoads, Row::Transfer(MsrArea::EntryLoad, msr))
                    | (LedgerKind::AreaStores, Row::Transfer(MsrArea::ExitStore, msr)) => {
                        chosen(msr)
                    }
                    (LedgerKind::Xsaves, Row::Xsaves) | (LedgerKind::Xrstors, Row::Xrstors) => true,
                    (LedgerKind::Exits, Row::VmExit { msr, .. }) => match (registers, msr) {
                        (LedgerRegisters::All, _) => true,
                        (_, Some(msr)) => chosen(msr),
                        (_, None) => false,
                    },
                    _ => false,
                }
        }))
    }

    /// A word of a physical slot with its owner.
    fn word(&self, cpu: CpuId, word: Word, slot: u32) -> Option<Owned> {
        let processor = self.machine.host().hardware().cpu(cpu);
        let msr = processor.lbr_msrs().entry(word, slot)?;
        Some(Owned::new(processor.peek(msr)?, processor.owner_of(msr)))
    }

    fn entry(
        &self,
        cpu: CpuId,
        index: u32,
        expected: Option<&(Expr, Expr, OwnerName)>,
        scope: Scope,
    ) -> Outcome {
        let processor = self.machine.host().hardware().cpu(cpu);
        let msrs = processor.lbr_msrs();
        let record = processor.logical().lbr().stack().nth(index as usize);
        let record = record.ok_or_else(|| mismatch("an entry of the part", index))?;
        let Some((from, to, owner)) = expected else {
            return match record.is_empty() {
                true => Ok(()),
                false => Err(mismatch(
                    "an empty entry",
                    format!("{:#x} -> {:#x}", record.from, record.to),
                )),
            };
        };
        let ends = (eval(from, scope)?, eval(to, scope)?);
        if (record.from, record.to) != ends {
            return Err(mismatch(
                format!("{:#x} -> {:#x}", ends.0, ends.1),
                format!("{:#x} -> {:#x}", record.from, record.to),
            ));
        }
        let tos = msrs.tos.and_then(|tos| processor.peek(tos)).unwrap_or(0);
        let from = self.word(cpu, Word::From, msrs.older(tos as u32, index));
        same_owner(
            self.owner(owner)?,
            from.map_or(Owner::Nobody, |from| from.owner),
        )
    }

    fn samples_of(
        &self,
        event: &EventName,
    ) -> Result<impl DoubleEndedIterator<Item = &PmiSample>, Mismatch> {
        let event = self.existing(event)?;
        let samples = self.samples.iter();
        Ok(samples.filter(move |sample| sample.event == event))
    }

    fn last_sample(&self, event: &EventName) -> Result<&PmiSample, Mismatch> {
        let last = self.samples_of(event)?.next_back();
        last.ok_or_else(|| mismatch("a sample since \"when\"", "none"))
    }

    fn sample(
        &self,
        event: &EventName,
        index: &Expr,
        expected: &SampleEntry,
        scope: Scope,
    ) -> Outcome {
        let stack = self.last_sample(event)?.branches.as_ref();
        let stack = stack.ok_or_else(|| mismatch("a branch stack", "none"))?;
        let index = Self::index(index, scope)?;
        let record = stack.records.get(index as usize);
        let record = record.ok_or_else(|| mismatch("the entry", "no such entry"))?;
        let found = (
            (record.from.value, record.to.value),
            (record.mispredicted, record.predicted),
            u64::from(record.cycles),
            expected.class.map(|_| perf_branch_type(record.kind)),
        );
        let wanted = (
            (eval(&expected.from, scope)?, eval(&expected.to, scope)?),
            (expected.mispredicted, expected.predicted),
            eval(&expected.cycles, scope)?,
            expected.class,
        );
        if found == wanted {
            return Ok(());
        }
        let told = |(ends, flags, cycles, class): ((u64, u64), (bool, bool), u64, Option<u8>)| {
            let mut text = format!("{:#x} -> {:#x}", ends.0, ends.1);
            for (flag, name) in [(flags.0, " mispred"), (flags.1, " predicted")] {
                text.push_str(if flag { name } else { "" });
            }
            text.push_str(&format!(" cycles={cycles}"));
            if let Some(class) = class {
                text.push_str(&format!(" PERF_BR {class}"));
            }
            text
        };
        Err(mismatch(told(wanted), told(found)))
    }
}
