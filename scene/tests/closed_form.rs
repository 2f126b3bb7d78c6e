//! The ledger of whole runs equals the closed forms, built from what a run switched, saved and exited.

use std::sync::Arc;

use proptest::prelude::*;
use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;
use vlbr_cpu::ledger::{Actor, Event, Ledger};
use vlbr_host::kvm::{Note, Place};
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::{GuestSource, Outcome, Scene, Simulation, VcpuTally};

fn run(scene: &Scene, name: &str) -> Outcome {
    let policy: Arc<dyn Policy> = Catalog::builtin().named(name).unwrap();
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped.unwrap());
    let guests: Vec<_> = loops
        .map(|spec| GuestSource::looped(spec).unwrap())
        .collect();
    let simulation = Simulation::new(scene, &guests, &policy, Checking::Off).unwrap();
    simulation.run(&mut |_| {}).unwrap()
}

/// Guests that use LBR, and nobody else who does.
#[derive(Clone, Debug)]
struct Shape {
    part: &'static str,
    cpus: u16,
    vcpus: usize,
    slice: u64,
    filter: &'static str,
    period: u64,
    interrupts: u32,
    halts: u32,
    deep: bool,
    migrations: u32,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let who = (
        prop::sample::select(vec!["haswell", "skylake-server", "broadwell"]),
        1u16..3,
        1usize..4,
        30u64..300,
    );
    let session = (
        prop::sample::select(vec!["", ":call-graph", ":any_call,u", ":cond"]),
        1500u64..20000,
    );
    let rest = (
        0u32..800,
        0u32..60,
        any::<bool>(),
        0u32..900_000,
        any::<u64>(),
    );
    (who, session, rest).prop_map(|(who, session, rest)| Shape {
        part: who.0,
        cpus: who.1,
        vcpus: who.2,
        slice: who.3,
        filter: session.0,
        period: session.1,
        interrupts: rest.0,
        halts: rest.1,
        deep: rest.2,
        migrations: rest.3,
        seed: rest.4 >> 1,
    })
}

fn scene(shape: &Shape) -> Scene {
    let mut text = format!(
        "name = \"random\"\npart = {:?}\ncpus = {}\nduration-us = 700\nseed = {}\n[scheduling]\nslice-us = {}\n\
         halt-us = 40\ndeep-c-states = {}\nmigrations-per-million = {}\n[[vm]]\nname = \"a\"\n\
         [[task]]\nname = \"kworker\"\ncpu = 0\nkernel-thread = true\nevery-us = 90\nfor-us = 7\n",
        shape.part, shape.cpus, shape.seed, shape.slice, shape.deep, shape.migrations
    );
    for n in 0..shape.vcpus {
        text.push_str(&format!(
            "[[vcpu]]\nvm = \"a\"\nguest-perf = \"branches:{}{}\"\n[vcpu.loop]\nlength = {}\n\
             [vcpu.exits]\nexternal-interrupt = {}\nhlt = {}\nwrmsr = 50\nfast-path-per-million = 500000\n",
            shape.period,
            shape.filter,
            4 + n,
            shape.interrupts,
            shape.halts
        ));
    }
    Scene::from_toml(&text).unwrap()
}

/// What the forms are made of.
#[derive(Debug)]
struct Numbers {
    n: u64,
    e: u64,
    saves: u64,
    entries: u64,
    full: u64,
    kept: u64,
    disturbed: u64,
    emptied: u64,
    created: u64,
    x: u64,
    /// VM entries: one more than exits for every guest that runs at the end.
    vm_entries: u64,
    d: u64,
}

impl Numbers {
    fn of(outcome: &Outcome) -> Self {
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

/// Saves, restores and resets of event-based policies: SELECT is part of what is saved, and of what
/// is reset, or not.
fn by_events(shape: &Shape, name: &str, saves_select: u64, clears_select: u64) {
    let outcome = run(&scene(shape), name);
    let (numbers, ledger) = (Numbers::of(&outcome), outcome.machine.ledger());
    let Numbers { n, e, .. } = numbers;
    let said = format!("{name}, {shape:?}: {numbers:?}");
    let saved =
        (1 + saves_select) * numbers.saves + e * numbers.entries + (numbers.saves - numbers.full);
    assert_eq!(reads(ledger, Actor::HostSave), saved, "save: {said}");
    assert_eq!(writes(ledger, Actor::HostSave), 0, "save: {said}");
    let asked = numbers.kept + numbers.emptied;
    assert_eq!(reads(ledger, Actor::HostRestore), asked, "shortcut: {said}");
    let restored = numbers.disturbed * (n * e + 1 + saves_select);
    assert_eq!(
        writes(ledger, Actor::HostRestore),
        restored,
        "restore: {said}"
    );
    let reset = numbers.created * (n * e + clears_select);
    assert_eq!(writes(ledger, Actor::HostReset), reset, "reset: {said}");
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
}

fn naive(shape: &Shape) {
    let outcome = run(&scene(shape), "naive");
    let (numbers, ledger) = (Numbers::of(&outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + 2;
    let said = format!("{shape:?}: {numbers:?}");
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
    for actor in [Actor::HostSave, Actor::HostRestore, Actor::HostReset] {
        assert_eq!(reads(ledger, actor) + writes(ledger, actor), 0, "{said}");
    }
}

/// A session begins with six accesses that exit; the last of them, the write of DEBUGCTL, arms the
/// lists.
const ARMING: u64 = 6;

fn list(shape: &Shape) {
    let outcome = run(&scene(shape), "msr-list");
    let (numbers, ledger) = (Numbers::of(&outcome), outcome.machine.ledger());
    let each = numbers.n * numbers.e + 4;
    let armed = outcome
        .vcpus
        .iter()
        .filter(|vcpu| vcpu.debugctl_accesses > 1);
    let before = ARMING * armed.count() as u64;
    let said = format!("{shape:?}: {numbers:?}");
    let moved = |of: MsrArea| {
        ledger.total(|_, event| {
            matches!(event, Event::Transfer(area, msr)
                if area == of && outcome.machine.host().lbr_msrs().register(msr).is_some())
        })
    };
    assert_eq!(
        moved(MsrArea::ExitStore),
        (numbers.x - before) * each,
        "{said}"
    );
    assert_eq!(
        moved(MsrArea::EntryLoad),
        (numbers.vm_entries - before) * each,
        "{said}"
    );
    assert_eq!(debugctl_exits(ledger), numbers.d, "DEBUGCTL: {said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saves_and_restores_of_v8(shape in shapes()) {
        by_events(&shape, "v8", 1, 0);
    }

    #[test]
    fn saves_and_restores_of_upstream(shape in shapes()) {
        by_events(&shape, "upstream@6.8", 1, 1);
    }

    // Linux 5.9 to 5.15.0 lose SELECT: the flag that says it is saved is never set.
    #[test]
    fn saves_and_restores_of_upstream_that_loses_select(shape in shapes()) {
        by_events(&shape, "upstream@5.15", 0, 0);
    }

    #[test]
    fn swaps_at_every_exit_and_entry(shape in shapes()) {
        naive(&shape);
    }

    #[test]
    fn lists_at_every_exit_and_entry(shape in shapes()) {
        list(&shape);
    }
}
