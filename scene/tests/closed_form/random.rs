//! Random scenes.

use std::sync::Arc;

use crate::forms::{self, Select};
use proptest::prelude::*;
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::{GuestSource, Outcome, Scene, SceneTime, Simulation};

fn run(scene: &Scene, name: &str) -> Outcome {
    let policy: Arc<dyn Policy> = Catalog::builtin().named(name).unwrap();
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped.unwrap());
    let guests: Vec<_> = loops
        .map(|spec| GuestSource::looped(spec).unwrap())
        .collect();
    let simulation =
        Simulation::new(scene, &guests, &SceneTime::Nominal, &policy, Checking::Off).unwrap();
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

fn by_events(shape: &Shape, name: &str, saved: u64, cleared: u64) {
    let said = format!("{name}, {shape:?}");
    forms::by_events(&run(&scene(shape), name), Select { saved, cleared }, &said);
}

fn naive(shape: &Shape) {
    forms::naive(&run(&scene(shape), "naive"), &format!("{shape:?}"));
}

/// A session begins with six accesses that exit; the last of them, the write of DEBUGCTL, arms the
/// lists.
const ARMING: u64 = 6;

fn list(shape: &Shape) {
    let outcome = run(&scene(shape), "msr-list");
    let armed = outcome
        .vcpus
        .iter()
        .filter(|vcpu| vcpu.debugctl_accesses > 1);
    let before = ARMING * armed.count() as u64;
    assert_eq!(forms::list(&outcome, 4, &format!("{shape:?}")), before);
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
    fn stacks_that_move_if_need_be(shape in shapes()) {
        forms::moves_if_need_be(&run(&scene(&shape), "mediated-lazy"), &format!("{shape:?}"));
    }

    #[test]
    fn lists_at_every_exit_and_entry(shape in shapes()) {
        list(&shape);
    }
}
