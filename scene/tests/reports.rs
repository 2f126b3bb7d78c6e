//! What a run reports agrees with what happened.

use std::sync::Arc;

use vlbr_cpu::ledger::{CostModel, Event};
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::report::{VmOptions, VmReport};
use vlbr_scene::{GuestSource, Outcome, Scene, SceneFile, SceneTime, Simulation};

const LOOP: &str = r#"
name = "loop"
part = "skylake-server"
cpus = 1
duration-us = 900

[scheduling]
slice-us = 200

[[vm]]
name = "a"

[[vcpu]]
vm = "a"
guest-perf = "br_inst_retired.near_taken:9000"

[vcpu.loop]

[vcpu.exits]
external-interrupt = 300
wrmsr = 100
fast-path-per-million = 900000

[[task]]
name = "kworker"
cpu = 0
kernel-thread = true
every-us = 100
for-us = 10
"#;

fn policy(name: &str) -> Arc<dyn Policy> {
    Catalog::builtin().named(name).unwrap()
}

fn guests(scene: &Scene) -> Vec<GuestSource> {
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped.unwrap());
    loops
        .map(|spec| GuestSource::looped(spec).unwrap())
        .collect()
}

fn run(scene: &Scene, name: &str) -> Outcome {
    let guests = guests(scene);
    let simulation = Simulation::new(
        scene,
        &guests,
        &SceneTime::Nominal,
        &policy(name),
        Checking::On,
    )
    .unwrap();
    simulation.run(&mut |_| {}).unwrap()
}

fn report(scene: &Scene, name: &str) -> VmReport {
    let options = VmOptions {
        policy: &policy(name),
        model: CostModel::published(),
        checking: Checking::On,
    };
    VmReport::run(scene, &guests(scene), options, &mut |_| {}).unwrap()
}

#[test]
fn exits_of_vcpus_are_those_of_the_ledger() {
    let scene = Scene::from_toml(LOOP).unwrap();
    for name in ["v8", "upstream@6.16", "naive", "none", "ideal"] {
        let outcome = run(&scene, name);
        let ledger = outcome.machine.ledger();
        let exits = ledger.total(|_, event| matches!(event, Event::VmExit { .. }));
        let told: u64 = outcome.vcpus.iter().map(|vcpu| vcpu.exits.total).sum();
        assert_eq!(told, exits, "{name}");
        assert!(outcome.vcpus[0].exits.assumed > 500, "{name}");
    }
}

#[test]
fn time_is_the_same_under_every_policy() {
    let scene = Scene::from_toml(LOOP).unwrap();
    let ideal = run(&scene, "ideal").vcpus;
    for name in ["v8", "upstream@5.15", "naive", "msr-list", "none"] {
        let vcpus = run(&scene, name).vcpus;
        for (vcpu, ideal) in vcpus.iter().zip(&ideal) {
            assert_eq!(vcpu.instructions, ideal.instructions, "{name}");
            assert_eq!(vcpu.switches.pairs, ideal.switches.pairs, "{name}");
            assert_eq!(vcpu.exits.assumed, ideal.exits.assumed, "{name}");
        }
    }
}

#[test]
fn exits_of_a_trace_and_switches_are_the_same_under_every_policy() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/scenes/boot.toml");
    let file = SceneFile::open(folder.as_ref()).unwrap();
    let mut scene = file.scene().clone();
    scene.vcpu[0].instructions = Some(9_000_000);
    scene.vcpu[0].guest_perf = Some("br_inst_retired.near_taken:3000".to_owned());
    let guests = file.guests(&scene).unwrap();
    let run = |name: &str| {
        let simulation = Simulation::new(
            &scene,
            &guests,
            &SceneTime::Nominal,
            &policy(name),
            Checking::Off,
        )
        .unwrap();
        simulation.run(&mut |_| {}).unwrap()
    };
    let ideal = run("ideal");
    let of_ideal = &ideal.vcpus[0];
    assert!(of_ideal.exits.recorded > 1000 && of_ideal.samples > 100);
    for name in ["v8", "upstream@6.16", "naive"] {
        let outcome = run(name);
        let vcpu = &outcome.vcpus[0];
        assert_eq!(vcpu.exits.recorded, of_ideal.exits.recorded, "{name}");
        assert_eq!(vcpu.exits.assumed, of_ideal.exits.assumed, "{name}");
        assert_eq!(vcpu.switches.pairs, of_ideal.switches.pairs, "{name}");
        assert_eq!(
            vcpu.switches.migrations, of_ideal.switches.migrations,
            "{name}"
        );
        assert_eq!(outcome.cycles, ideal.cycles, "{name}");
    }
}

#[test]
fn samples_of_a_guest_alone_are_those_of_an_own_processor() {
    let scene = Scene::from_toml(LOOP).unwrap();
    for name in ["v8", "upstream@6.16", "naive", "msr-list", "ideal"] {
        let samples = report(&scene, name).samples;
        assert!(samples.compared > 40, "{name}: {samples:?}");
        assert_eq!(samples.equal, samples.compared, "{name}: {samples:?}");
        assert_eq!(samples.extra, 0, "{name}: {samples:?}");
    }
    let samples = report(&scene, "none").samples;
    assert_eq!(samples.missing, samples.compared, "{samples:?}");
}

#[test]
fn a_kernel_thread_does_not_disturb_what_perf_saved() {
    let scene = Scene::from_toml(LOOP).unwrap();
    let vcpu = &report(&scene, "v8").vcpus[0];
    assert!(vcpu.switches.pairs >= 8);
    assert_eq!(vcpu.switches.kept, vcpu.switches.pairs);
    assert_eq!(vcpu.switches.disturbed, 0);
    assert_eq!(vcpu.saved.entries, 32 * vcpu.saved.saves);
    let deep = LOOP.replace("slice-us = 200", "slice-us = 200\ndeep-c-states = true");
    let deep = deep.replace("external-interrupt = 300", "hlt = 20");
    let scene = Scene::from_toml(&deep).unwrap();
    let switches = report(&scene, "v8").vcpus[0].switches;
    assert!(switches.emptied > 2, "{switches:?}");
    assert_eq!(switches.disturbed, switches.emptied);
}
