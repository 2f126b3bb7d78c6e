//! What is read off a machine for the rules, and what a scenario compares to show it.

use std::collections::BTreeMap;

use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;
use vlbr_cpu::ledger::{Actor, Event as Row};
use vlbr_host::hardware::LbrRegister;
use vlbr_host::kvm::Note;
use vlbr_host::machine::{Machine, Output, Rule};
use vlbr_host::perf::{Event, EventId, EventState};
use vlbr_host::{CpuId, TaskId, VcpuId};

use crate::ContractRule;
use crate::start::Start;

/// Events of the host that are enabled and belong on a processor, and wait though no vCPU is loaded there
/// and no event has its LBR.
pub(crate) fn waiting(machine: &Machine, events: &[EventId], cpu: CpuId) -> Vec<EventId> {
    let host = machine.host();
    let waits = |event: &EventId| {
        let Some(event) = host.perf().event(*event) else {
            return false;
        };
        if !matches!(event.state(), EventState::Inactive | EventState::Error) {
            return false;
        }
        let loaded = host.vcpus().iter().any(|vcpu| vcpu.cpu == Some(cpu));
        let free = !loaded && host.perf().lbr_cpu(cpu).users() == 0;
        let (target, here) = (event.target(), host.current(cpu));
        free && target.cpu().is_none_or(|on| on == cpu)
            && (target.task().is_none() || target.task() == here)
    };
    let events = events.iter().copied();
    events.filter(waits).collect()
}

/// Whether an event asks for branches, a guest's too.
pub(crate) fn with_branch_stacks(machine: &Machine) -> bool {
    let mut events = machine.host().perf().events();
    events.any(|(_, event)| event.attr().branch_sample_type.is_some())
}

/// Whether one of these events could be on a processor: it is that processor's, or that of the thread
/// that runs there.
pub(crate) fn may_be_on(machine: &Machine, events: &[EventId], cpu: Option<CpuId>) -> bool {
    let host = machine.host();
    events.iter().any(|event| {
        let on = host.perf().event(*event);
        let on = on.filter(|event| event.state() != EventState::Off);
        let Some(target) = on.map(Event::target) else {
            return false;
        };
        let Some(cpu) = cpu else {
            return true;
        };
        let here = host.current(cpu);
        target.cpu().is_none_or(|on| on == cpu)
            && (target.task().is_none() || target.task() == here)
    })
}

/// A guest that asks is served if its access acts on the register: no fault, no 0 instead of a value,
/// no write that vanishes.
pub(crate) fn is_served(machine: &Machine, vcpu: VcpuId, output: Option<&Output>) -> bool {
    let journal = machine.host().journal();
    let dummies = [Note::DummyRead, Note::DummyWrite, Note::HostFault];
    matches!(output, Some(Output::Guest(access)) if access.result.is_ok())
        && machine.findings().count(Rule::Denial) == 0
        && dummies.iter().all(|note| journal.count(vcpu, *note) == 0)
}

pub(crate) fn running(machine: &Machine, thread: TaskId) -> bool {
    let host = machine.host();
    let cpus = (0..host.hardware().cpus()).map(|cpu| CpuId(cpu as u16));
    cpus.into_iter()
        .any(|cpu| host.current(cpu) == Some(thread))
}

/// Whether it is a register that a hypervisor can let pass: entries, TOS and the filter. DEBUGCTL and
/// `IA32_LBR_CTL` are fields of the VMCS, and hosts put DEBUGCTL back after every exit as it is.
pub(crate) fn passable(machine: &Machine, msr: Msr) -> bool {
    let register = machine.host().lbr_msrs().register(msr);
    let kind = matches!(
        register,
        Some(LbrRegister::Entry(..) | LbrRegister::Tos | LbrRegister::Filter)
    );
    // With architectural LBR the filter is part of the control register.
    kind && msr != Msr::LBR_CTL
}

/// By which words scenarios name a row of the ledger that is an access to such a register.
pub(crate) fn access(machine: &Machine, row: Row) -> Option<String> {
    let lbr = |word: &str, msr: Msr| passable(machine, msr).then(|| format!("{word} {msr}"));
    match row {
        Row::Rdmsr(msr) => lbr("rdmsr", msr),
        Row::Wrmsr(msr) => lbr("wrmsr", msr),
        Row::Transfer(MsrArea::EntryLoad, msr) => lbr("area-loads", msr),
        Row::Transfer(MsrArea::ExitStore, msr) => lbr("area-stores", msr),
        Row::Xsaves => Some("xsaves".to_owned()),
        Row::Xrstors => Some("xrstors".to_owned()),
        _ => None,
    }
}

/// What a scenario compares to show that the last step breaks a rule that is no finding of the host's,
/// or one that the host finds at the end alone.
pub(crate) fn evidence(rule: ContractRule, machine: &Machine, start: &Start) -> Vec<String> {
    let mut counts: BTreeMap<(Actor, String), u64> = BTreeMap::new();
    for (actor, row, count) in machine.ledger().rows() {
        let word = match (rule, row) {
            (ContractRule::UnusedCostsNothing, row) => access(machine, row),
            (ContractRule::OneExitASlice, Row::VmExit { msr: Some(msr), .. }) => {
                passable(machine, msr).then(|| format!("exits {msr}"))
            }
            _ => None,
        };
        if let Some(word) = word {
            *counts.entry((actor, word)).or_default() += count;
        }
    }
    let rows = counts.iter().map(|((actor, word), count)| {
        format!(
            "count {} {word} = {count}",
            actor.to_string().replace(' ', "-").to_lowercase()
        )
    });
    // A few are enough to see it.
    let mut lines: Vec<_> = rows.take(4).collect();
    if rule == ContractRule::ReferencesReturn {
        let perf = machine.host().perf();
        lines.push(format!(
            "perf callstack_users = {}",
            perf.lbr_callstack_users()
        ));
        for cpu in 0..machine.host().hardware().cpus() as u16 {
            let lbr = perf.lbr_cpu(CpuId(cpu));
            let (users, pebs) = (lbr.users(), lbr.pebs_users());
            let refs = perf.shared_slot(CpuId(cpu)).refs;
            lines.push(format!("perf cpu{cpu} lbr_users = {users}"));
            lines.push(format!("perf cpu{cpu} lbr_pebs_users = {pebs}"));
            lines.push(format!("perf cpu{cpu} slot_refs = {refs}"));
        }
        for task in &start.tasks {
            let id = start.names.task(machine, task).ok();
            if let Some(context) = id.and_then(|id| perf.lbr_context(id)) {
                let users = context.callstack_users();
                lines.push(format!("context {task} callstack_users = {users}"));
            }
        }
    }
    let notes: &[Note] = match rule {
        ContractRule::NoWarningEachEntry => &[Note::Warned],
        ContractRule::Recoverable => {
            &[Note::Gp, Note::DummyRead, Note::DummyWrite, Note::HostFault]
        }
        _ => &[],
    };
    for vcpu in machine.host().vcpus() {
        for note in notes {
            let count = machine.host().journal().count(vcpu.id, *note);
            if count != 0 {
                lines.push(format!("note v{} \"{note}\" = {count}", vcpu.id.0));
            }
        }
    }
    lines
}

/// A way without the numbers that perf gives its events.
pub(crate) fn way(particulars: &str) -> String {
    let mut text = String::new();
    let mut rest = particulars;
    while let Some((before, after)) = rest.split_once("event") {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        text.push_str(if digits == 0 { "event" } else { "an event" });
        rest = &after[digits..];
    }
    text + rest
}
