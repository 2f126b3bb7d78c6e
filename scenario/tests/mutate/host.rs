//! Expectations of host scenarios made wrong.

use vlbr_host::perf::{Errno, EventState};
use vlbr_scenario::host_step::{
    HostAct, HostCheck, HostStep, MsrStep, MsrWant, OwnerName, SampleEntry,
};
use vlbr_scenario::{Check, Expr};

use super::{more, values};

/// Every step that differs in one expectation.
pub(super) fn changed(step: &HostStep) -> Vec<HostStep> {
    match step {
        HostStep::Act(act) => acts(act).into_iter().map(HostStep::Act).collect(),
        HostStep::Check(check) => checks(check).into_iter().map(HostStep::Check).collect(),
    }
}

fn acts(act: &HostAct) -> Vec<HostAct> {
    match act {
        HostAct::Guest(vcpu, step) => accesses(step)
            .into_iter()
            .map(|step| HostAct::Guest(vcpu.clone(), step))
            .collect(),
        HostAct::User(task, vcpu, step) => accesses(step)
            .into_iter()
            .map(|step| HostAct::User(task.clone(), vcpu.clone(), step))
            .collect(),
        HostAct::Branch(cpu, branch, pmi) => {
            vec![HostAct::Branch(*cpu, branch.clone(), !pmi)]
        }
        HostAct::Retire(cpu, amounts, cpl, pmi) => {
            vec![HostAct::Retire(*cpu, amounts.clone(), *cpl, !pmi)]
        }
        HostAct::Open(name, text, errno) => {
            let others: &[Option<Errno>] = match errno {
                None => &[Some(Errno::EINVAL)],
                Some(Errno::EINVAL) => &[None, Some(Errno::EOPNOTSUPP)],
                Some(_) => &[None, Some(Errno::EINVAL)],
            };
            let others = others.iter();
            others
                .map(|errno| HostAct::Open(name.clone(), text.clone(), *errno))
                .collect()
        }
        HostAct::Capability(vm, on, good, stack) => {
            let others = match stack {
                None => vec![Some([0; 5])],
                Some(words) => {
                    let mut others = vec![None];
                    for n in 0..5 {
                        let mut other = *words;
                        other[n] ^= 1;
                        others.push(Some(other));
                    }
                    others
                }
            };
            let others = others.into_iter();
            others
                .map(|stack| HostAct::Capability(vm.clone(), *on, *good, stack))
                .collect()
        }
        HostAct::EnterL2(vcpu, vmcs12, fails) => {
            vec![HostAct::EnterL2(vcpu.clone(), *vmcs12, !fails)]
        }
        _ => Vec::new(),
    }
}

fn accesses(step: &MsrStep) -> Vec<MsrStep> {
    let with = |want| MsrStep {
        want,
        ..step.clone()
    };
    let mut others = match &step.want {
        MsrWant::Value(check) => {
            let values = values(check).into_iter().map(MsrWant::Value).map(with);
            values.chain([with(MsrWant::ReadRefused)]).collect()
        }
        MsrWant::Written(value) => vec![with(MsrWant::WriteRefused(value.clone()))],
        MsrWant::WriteRefused(value) => vec![with(MsrWant::Written(value.clone()))],
        MsrWant::ReadRefused => {
            let any = Check {
                equal: true,
                value: Expr::Number(0),
                mask: Some(Expr::Number(0)),
            };
            vec![with(MsrWant::Value(any))]
        }
    };
    others.extend(step.exits.map(|exits| MsrStep {
        exits: Some(!exits),
        ..step.clone()
    }));
    others.extend(step.owner.as_ref().map(|owner| MsrStep {
        owner: Some(another_owner(owner)),
        ..step.clone()
    }));
    others
}

fn another_owner(owner: &OwnerName) -> OwnerName {
    match owner {
        OwnerName::Nobody => OwnerName::Kernel,
        _ => OwnerName::Nobody,
    }
}

fn checks(check: &HostCheck) -> Vec<HostCheck> {
    match check {
        HostCheck::Number(number, check) => values(check)
            .into_iter()
            .map(|check| HostCheck::Number(number.clone(), check))
            .collect(),
        HostCheck::State(event, state, on) => {
            let states = [
                (Some(EventState::Active), Some(0)),
                (Some(EventState::Active), Some(1)),
                (Some(EventState::Inactive), None),
                (Some(EventState::Error), None),
                (Some(EventState::Off), None),
                (None, None),
            ];
            states
                .into_iter()
                .filter(|other| *other != (*state, *on))
                .map(|(state, on)| HostCheck::State(event.clone(), state, on))
                .collect()
        }
        HostCheck::Eof(event) => vec![HostCheck::State(event.clone(), None, None)],
        HostCheck::Passes(vcpu, register, count, passes) => {
            let (vcpu, register) = (vcpu.clone(), register.clone());
            vec![HostCheck::Passes(vcpu, register, count.clone(), !passes)]
        }
        HostCheck::Register(cpu, register, check, owner) => {
            let others = values(check).into_iter();
            let others = others
                .map(|check| HostCheck::Register(*cpu, register.clone(), check, owner.clone()));
            let owners = owner.iter().map(|owner| {
                let owner = Some(another_owner(owner));
                HostCheck::Register(*cpu, register.clone(), check.clone(), owner)
            });
            others.chain(owners).collect()
        }
        HostCheck::Entry(cpu, index, None) => {
            let ends = (
                Expr::Number(0x40_1000),
                Expr::Number(0x40_1040),
                OwnerName::Nobody,
            );
            vec![HostCheck::Entry(*cpu, index.clone(), Some(ends))]
        }
        HostCheck::Entry(cpu, index, Some((from, to, owner))) => {
            let others = [
                None,
                Some((more(from), to.clone(), owner.clone())),
                Some((from.clone(), more(to), owner.clone())),
                Some((from.clone(), to.clone(), another_owner(owner))),
            ];
            let others = others.into_iter();
            others
                .map(|ends| HostCheck::Entry(*cpu, index.clone(), ends))
                .collect()
        }
        HostCheck::Holds(cpu, count) => vec![HostCheck::Holds(*cpu, more(count))],
        HostCheck::Sample(event, index, entry) => samples(entry)
            .into_iter()
            .map(|entry| HostCheck::Sample(event.clone(), index.clone(), entry))
            .collect(),
        // There is no finding that could be invented.
        HostCheck::NoFindings => Vec::new(),
    }
}

fn samples(entry: &SampleEntry) -> Vec<SampleEntry> {
    let mut others = Vec::new();
    let mut push = |change: &dyn Fn(&mut SampleEntry)| {
        let mut other = entry.clone();
        change(&mut other);
        others.push(other);
    };
    push(&|entry| entry.from = more(&entry.from));
    push(&|entry| entry.to = more(&entry.to));
    push(&|entry| entry.mispredicted = !entry.mispredicted);
    push(&|entry| entry.predicted = !entry.predicted);
    push(&|entry| entry.cycles = more(&entry.cycles));
    if entry.class.is_some() {
        push(&|entry| entry.class = entry.class.map(|class| class ^ 1));
    }
    others
}
