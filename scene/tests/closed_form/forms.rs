//! The closed forms of what policies cost, of what a run switched, saved and exited.

use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;
use vlbr_cpu::ledger::{Actor, Event, Ledger};
use vlbr_host::kvm::{Note, Place};
use vlbr_scene::{Outcome, VcpuTally};

/// What the forms are made of.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) n: u64,
    pub(crate) e: u64,
    pub(crate) saves: u64,
    pub(crate) entries: u64,
    pub(crate) full: u64,
    pub(crate) kept: u64,
    pub(crate) disturbed: u64,
    pub(crate) emptied: u64,
    pub(crate) created: u64,
    pub(crate) x: u64,
    /// VM entries: one more than exits for every guest that runs at the end.
    pub(crate) vm_entries: u64,
    pub(crate) d: u64,
}

impl Numbers {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let sum = |of: fn(&VcpuTally) -> u64| outcome.vcpus.iter().map(of).sum::<u64>();
        let host = outcome.machine.host();
        let inside = host
            .vcpus()
            .iter()
            .filter(|vcpu| vcpu.place == Place::Guest);
        let x = sum(|v| v.exits.total);
        Self {
            n: host.lbr_msrs().nr.into(),
            e: host.lbr_msrs().words().into(),
            saves: sum(|v| v.saved.saves),
            entries: sum(|v| v.saved.entries),
            full: sum(|v| v.saved.full),
            kept: sum(|v| v.switches.kept),
            disturbed: sum(|v| v.switches.disturbed),
            emptied: sum(|v| v.switches.emptied),
            created: host.journal().total(Note::EventCreated),
            x,
            vm_entries: x + inside.count() as u64,
            d: sum(|v| v.debugctl_accesses),
        }
    }
}

fn reads(ledger: &Ledger, actor: Actor) -> u64 {
    let read = |event: Event| matches!(event, Event::Rdmsr(msr) if msr != Msr::DEBUGCTL);
    ledger.total(|by, event| by == actor && read(event))
}

fn writes(ledger: &Ledger, actor: Actor) -> u64 {
    let written = |event: Event| matches!(event, Event::Wrmsr(msr) if msr != Msr::DEBUGCTL);
    ledger.total(|by, event| by == actor && written(event))
}

fn debugctl_exits(ledger: &Ledger) -> u64 {
    ledger.total(|_, event| {
        matches!(
            event,
            Event::VmExit {
                msr: Some(Msr::DEBUGCTL),
                ..
            }
        )
    })
}

/// Whether SELECT is part of what is saved, and of what is reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Select {
    pub(crate) saved: u64,
    pub(crate) cleared: u64,
}

/// Saves, restores and resets of event-based policies.
pub(crate) fn by_events(outcome: &Outcome, select: Select, said: &str) {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let Numbers { n, e, .. } = numbers;
    let said = format!("{said}: {numbers:?}");
    let saved =
        (1 + select.saved) * numbers.saves + e * numbers.entries + (numbers.saves - numbers.full);
    assert_eq!(reads(ledger, Actor::HostSave), saved, "save: {said}");
    assert_eq!(writes(ledger, Actor::HostSave), 0, "save: {said}");
    let asked = numbers.kept + numbers.emptied;
    assert_eq!(reads(ledger, Actor::HostRestore), asked, "shortcut: {said}");
    let restored = numbers.disturbed * (n * e + 1 + select.saved);
    assert_eq!(
        writes(ledger, Actor::HostRestore),
        restored,
        "restore: {said}"
    );
    let reset = numbers.created * (n * e + select.cleared);
    assert_eq!(writes(ledger, Actor::HostReset), reset, "reset: {said}");
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
}

/// A swap of everything at every exit and entry.
pub(crate) fn naive(outcome: &Outcome, said: &str) {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + 2;
    let said = format!("{said}: {numbers:?}");
    assert_eq!(
        reads(ledger, Actor::WorldSwitch),
        numbers.x * each,
        "{said}"
    );
    assert_eq!(
        writes(ledger, Actor::WorldSwitch),
        numbers.vm_entries * each,
        "{said}"
    );
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
    nothing_by_perf(outcome, &said);
}

/// perf saves, restores and resets nothing.
pub(crate) fn nothing_by_perf(outcome: &Outcome, said: &str) {
    let ledger = outcome.machine.ledger();
    for actor in [Actor::HostSave, Actor::HostRestore, Actor::HostReset] {
        assert_eq!(reads(ledger, actor) + writes(ledger, actor), 0, "{said}");
    }
}

/// Lists at every exit and entry after the guest has set `IA32_DEBUGCTL.LBR` first. How many exits
/// came before: the same of both lists.
pub(crate) fn list(outcome: &Outcome, besides: u64, said: &str) -> u64 {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + besides;
    let said = format!("{said}: {numbers:?}");
    let moved = |of: MsrArea| {
        ledger.total(|_, event| {
            matches!(event, Event::Transfer(area, msr)
                if area == of && outcome.machine.host().lbr_msrs().register(msr).is_some())
        })
    };
    let stored = moved(MsrArea::ExitStore);
    assert!(stored.is_multiple_of(each), "{stored} stores, {said}");
    let before = numbers.x - stored / each;
    assert_eq!(
        moved(MsrArea::EntryLoad),
        (numbers.vm_entries - before) * each,
        "{said}"
    );
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
    nothing_by_perf(outcome, &said);
    before
}

/// Exits of accesses to MSRs of the LBR, those of `IA32_DEBUGCTL` left out.
fn lbr_exits(outcome: &Outcome) -> u64 {
    let msrs = outcome.machine.host().lbr_msrs();
    outcome.machine.ledger().total(|_, event| {
        matches!(event, Event::VmExit { msr: Some(msr), .. }
            if msr != Msr::DEBUGCTL && msrs.register(msr).is_some())
    })
}

/// No access of a guest passes.
pub(crate) fn every_access_exits(outcome: &Outcome, said: &str) {
    let accesses: u64 = outcome.vcpus.iter().map(|v| v.lbr_accesses).sum();
    assert_eq!(lbr_exits(outcome), accesses, "{said}");
    let d = Numbers::of(outcome).d;
    assert_eq!(debugctl_exits(outcome.machine.ledger()), d, "{said}");
}

/// Every access passes.
pub(crate) fn no_access_exits(outcome: &Outcome, said: &str) {
    let exits = lbr_exits(outcome) + debugctl_exits(outcome.machine.ledger());
    assert_eq!(exits, 0, "{said}");
}

/// Neither exits nor entries move records.
pub(crate) fn nothing_at_transitions(outcome: &Outcome, said: &str) {
    let (msrs, ledger) = (outcome.machine.host().lbr_msrs(), outcome.machine.ledger());
    let moved = ledger.total(|by, event| match event {
        Event::Transfer(_, msr) => msrs.register(msr).is_some(),
        Event::Rdmsr(msr) | Event::Wrmsr(msr) => {
            by == Actor::WorldSwitch && msr != Msr::DEBUGCTL && msrs.register(msr).is_some()
        }
        _ => false,
    });
    assert_eq!(moved, 0, "{said}");
}

/// A swap whenever a vCPU is loaded and put. A kernel before 6.14 reads the host's `IA32_DEBUGCTL` at
/// each load, which counts them.
pub(crate) fn swaps_at_load_and_put(outcome: &Outcome, said: &str) {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + 2;
    let loads = ledger.total(|by, event| {
        by == Actor::WorldSwitch && matches!(event, Event::Rdmsr(Msr::DEBUGCTL))
    });
    let loaded = numbers.vm_entries - numbers.x;
    let said = format!("{said}: {loads} loads, {numbers:?}");
    assert_eq!(writes(ledger, Actor::WorldSwitch), loads * each, "{said}");
    let puts = loads - loaded;
    assert_eq!(reads(ledger, Actor::WorldSwitch), puts * each, "{said}");
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
    nothing_by_perf(outcome, &said);
}

/// Whole stacks, moved when somebody else needs the registers: what was written and not read again
/// stands in them.
pub(crate) fn moves_if_need_be(outcome: &Outcome, said: &str) {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + 2;
    let host = outcome.machine.host();
    let stacks = host.perf().guest_lbrs();
    let said = format!("{said}: {stacks:?}, {numbers:?}");
    let used = host.vcpus().iter().filter(|vcpu| vcpu.lbr.used).count() as u64;
    let saves = stacks.saves();
    // The first load of each, and one for each save that was not the last thing that happened.
    assert_eq!(
        stacks.loads() + stacks.in_memory() as u64,
        used + saves,
        "{said}"
    );
    assert_eq!(reads(ledger, Actor::HostSave), saves * each, "{said}");
    let written = writes(ledger, Actor::HostRestore);
    assert_eq!(written, stacks.loads() * each, "{said}");
    let sum = |of: fn(&VcpuTally) -> u64| outcome.vcpus.iter().map(of).sum::<u64>();
    // No more than one a slice: at its end, or because of the one that follows.
    let slices = sum(|vcpu| vcpu.switches.pairs) + outcome.vcpus.len() as u64;
    assert!(saves <= slices, "{said}");
    for actor in [Actor::HostReset, Actor::WorldSwitch] {
        assert_eq!(reads(ledger, actor) + writes(ledger, actor), 0, "{said}");
    }
    assert_eq!(writes(ledger, Actor::HostSave), 0, "{said}");
    assert_eq!(reads(ledger, Actor::HostRestore), 0, "{said}");
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
}

/// RDMSR and WRMSR of the LBR that switching it costs.
pub(crate) fn accesses(outcome: &Outcome) -> u64 {
    let ledger = outcome.machine.ledger();
    let actors = [
        Actor::HostSave,
        Actor::HostRestore,
        Actor::HostReset,
        Actor::WorldSwitch,
    ];
    let of = |actor| reads(ledger, actor) + writes(ledger, actor);
    actors.into_iter().map(of).sum()
}

/// Saves and restores of architectural LBR, whose stacks are full, by XSAVES or MSR by MSR. The VMCS
/// has the control register.
pub(crate) fn architectural(outcome: &Outcome, by_xsaves: bool, said: &str) {
    let (numbers, ledger) = (Numbers::of(outcome), outcome.machine.ledger());
    let Numbers { n, e, .. } = numbers;
    let said = format!("{said}: {numbers:?}");
    assert!(numbers.saves > 0 && numbers.disturbed > 0, "{said}");
    assert_eq!(numbers.full, numbers.saves, "{said}");
    let count = |actor, event| ledger.total(|by, what| by == actor && what == event);
    let whole = |sums: u64| if by_xsaves { sums } else { 0 };
    let single = |sums: u64| if by_xsaves { 0 } else { sums };
    let (saves, restores) = (numbers.saves, numbers.disturbed);
    assert_eq!(
        count(Actor::HostSave, Event::Xsaves),
        whole(saves),
        "{said}"
    );
    assert_eq!(
        count(Actor::HostRestore, Event::Xrstors),
        whole(restores),
        "{said}"
    );
    let saved = single(e * numbers.entries);
    assert_eq!(reads(ledger, Actor::HostSave), saved, "save: {said}");
    let restored = single(restores * n * e);
    assert_eq!(
        writes(ledger, Actor::HostRestore),
        restored,
        "restore: {said}"
    );
    let asked = numbers.kept + numbers.emptied;
    assert_eq!(reads(ledger, Actor::HostRestore), asked, "shortcut: {said}");
    // A write of the depth resets all.
    assert_eq!(writes(ledger, Actor::HostReset), numbers.created, "{said}");
    let total = |event| ledger.total(|_, what| what == event);
    assert_eq!(
        total(Event::FieldLoad(Msr::LBR_CTL)),
        numbers.vm_entries,
        "{said}"
    );
    assert_eq!(total(Event::FieldSave(Msr::LBR_CTL)), numbers.x, "{said}");
    assert_eq!(total(Event::FieldClear(Msr::LBR_CTL)), numbers.x, "{said}");
}
