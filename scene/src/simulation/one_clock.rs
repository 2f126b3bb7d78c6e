//! Everything that shows time in a run by models shows one clock for each processor.

use std::sync::Arc;

use proptest::prelude::*;
use vlbr_arch::LbrInfo;
use vlbr_cpu::ledger::{Actor, Bound, CostModel};
use vlbr_host::CpuId;
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};

use super::{Outcome, Simulation};
use crate::{GuestSource, Scene, SceneTime};

fn policy(name: &str) -> Arc<dyn Policy> {
    Catalog::builtin().named(name).unwrap()
}

fn guests(scene: &Scene) -> Vec<GuestSource> {
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped.unwrap());
    let guests = loops.map(|looped| GuestSource::looped(looped).unwrap());
    guests.collect()
}

/// A cost model in which nothing takes time.
fn free() -> CostModel {
    let published = include_str!("../../../cpu/costs/published.toml");
    let lines = published.lines().map(|line| {
        let figures = line.find("= {").zip(line.find("class"));
        match figures {
            Some((from, class)) => format!("{}= {{ default = 0, {}", &line[..from], &line[class..]),
            None => line.to_owned(),
        }
    });
    let text: Vec<_> = lines.collect();
    CostModel::from_toml(&text.join("\n")).unwrap()
}

/// What a random scene is made of.
#[derive(Clone, Debug)]
struct Shape {
    timing: &'static str,
    policy: &'static str,
    cpus: u16,
    vcpus: usize,
    session: &'static str,
    period: u64,
    host: &'static str,
    slice: u64,
    interrupts: u32,
    halts: u32,
    migrations: u32,
    deep: bool,
    user: bool,
    branches: u16,
    seed: u64,
}

impl Shape {
    fn scene(&self) -> Scene {
        let mut text = format!(
            "name = \"random\"\npart = \"skylake-server\"\ncpus = {}\nmhz = 1000\nduration-us = 300\nseed = {}\n\
             timing = \"{}\"\n[scheduling]\nslice-us = {}\nrotation-us = 70\nhalt-us = 20\n\
             deep-c-states = {}\nmigrations-per-million = {}\n[[vm]]\nname = \"a\"\n\
             [[task]]\nname = \"t\"\ncpu = 0\nevery-us = 60\nfor-us = 9\nkernel-thread = {}\n\
             branch-every = {}\n",
            self.cpus,
            self.seed,
            self.timing,
            self.slice,
            self.deep,
            self.migrations,
            !self.user,
            self.branches
        );
        for n in 0..self.vcpus {
            text += &format!(
                "[[vcpu]]\nvm = \"a\"\nguest-perf = \"{}:{}\"\n\
                 preempted-migrations-per-million = {}\nloop = {{ branches = {} }}\n\
                 exits = {{ external-interrupt = {}, hlt = {}, host-branches = 2 }}\n",
                self.session,
                self.period,
                self.migrations,
                4 + n,
                self.interrupts,
                self.halts
            );
        }
        text += self.host;
        Scene::from_toml(&text).unwrap()
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let select = prop::sample::select::<&'static str>;
    let models = (
        select(vec!["bound", "scoreboard"]),
        select(vec![
            "v8",
            "upstream@6.9",
            "naive",
            "msr-list",
            "none",
            "ideal",
        ]),
    );
    let guests = (
        1u16..3,
        1usize..4,
        select(vec!["cycles", "br_inst_retired.near_taken", "instructions"]),
        3000u64..20000,
    );
    let host = select(vec![
        "",
        "[[event]]\nevent = \"cycles\"\nall-cpus = true\nperiod = 9000\nbranch-filter = \"any\"\n",
        "[[event]]\nevent = \"cycles:u\"\ncpu = 0\nperiod = 700\nfrom-us = 30\nuntil-us = 200\n",
    ]);
    let rest = (
        30u64..200,
        0u32..500,
        0u32..60,
        0u32..900_000,
        any::<bool>(),
        any::<bool>(),
        0u16..40,
        any::<u64>(),
    );
    (models, guests, host, rest).prop_map(|(models, guests, host, rest)| Shape {
        timing: models.0,
        policy: models.1,
        cpus: guests.0,
        vcpus: guests.1,
        session: guests.2,
        period: guests.3,
        host,
        slice: rest.0,
        interrupts: rest.1,
        halts: rest.2,
        migrations: rest.3,
        deep: rest.4,
        user: rest.5,
        branches: rest.6,
        seed: rest.7 >> 1,
    })
}

/// What was seen of each processor last: its clock, and that of its devices.
type Seen = Vec<(u64, u64)>;

fn run(scene: &Scene, costs: &CostModel, name: &str) -> Outcome {
    let guests = guests(scene);
    let time = SceneTime::of(scene, &guests, costs).unwrap();
    let run = Simulation::new(scene, &guests, &time, &policy(name), Checking::Off).unwrap();
    let mut seen: Seen = vec![(0, 0); scene.cpus.into()];
    let mut came = vec![0; scene.vcpu.len()];
    let look = |run: &Simulation<'_>| {
        for (n, (cpu, seen)) in run.cpus.iter().zip(&mut seen).enumerate() {
            let hardware = run.machine.host().hardware();
            let devices = hardware.cpu(CpuId(n as u16)).now().value();
            assert_eq!(cpu.now, cpu.time.total(), "cpu{n}");
            assert!(devices <= cpu.now, "cpu{n}: {devices} {}", cpu.now);
            assert!(cpu.now >= seen.0 && devices >= seen.1, "cpu{n}");
            *seen = (cpu.now, devices);
            if let Some(vcpu) = cpu.running.and_then(|task| run.tasks[task].vcpu) {
                assert!(cpu.now >= came[vcpu], "vcpu{vcpu} goes back on cpu{n}");
                came[vcpu] = cpu.now;
            }
        }
    };
    let mut look = look;
    run.observed(&mut look).unwrap()
}

fn adds_up(outcome: &Outcome, costs: &CostModel) {
    let time = outcome.time.as_ref().unwrap();
    let longest = time.cpus.iter().map(|cpu| cpu.total()).max();
    assert_eq!(longest, Some(outcome.cycles));
    let sum = |of: fn(&super::CpuTime) -> u64| time.cpus.iter().map(of).sum::<u64>();
    assert_eq!(sum(|cpu| cpu.guest), time.guests.iter().sum::<u64>());
    let ledger = outcome.machine.ledger();
    let priced = costs.estimate(ledger, "skylake-server", Bound::Default);
    assert_eq!(u128::from(sum(|cpu| cpu.costs)), priced.unwrap().cycles);
    // No core retires more than its renamer passes on. Clocks are whole ones wherever a guest stops.
    for (guest, vcpu) in time.guests.iter().zip(&outcome.vcpus) {
        let accesses = vcpu.lbr_accesses + vcpu.debugctl_accesses + vcpu.pmu_accesses;
        let stops = vcpu.exits.total + accesses + 1;
        assert!(vcpu.instructions <= 4 * (guest + stops), "{guest} {stops}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_a_processor_did_adds_up_to_its_clock(shape in shapes()) {
        let (scene, costs) = (shape.scene(), CostModel::published());
        let outcome = run(&scene, costs, shape.policy);
        adds_up(&outcome, costs);
        let again = run(&scene, costs, shape.policy);
        prop_assert_eq!(&again.time, &outcome.time);
        prop_assert_eq!(&again.samples, &outcome.samples);
    }

    #[test]
    fn the_cycle_fields_of_a_stack_are_no_longer_than_the_guest_ran(shape in shapes()) {
        let outcome = run(&shape.scene(), CostModel::published(), shape.policy);
        let end = outcome.cycles;
        for sample in outcome.samples.iter().flatten() {
            let fields = sample.entries.iter().map(|[_, _, info]| info & LbrInfo::CYC_CNT_MASK);
            // The field of the oldest entry began before it.
            let within: u64 = fields.take(sample.entries.len().saturating_sub(1)).sum();
            prop_assert!(within <= end);
        }
    }
}

/// A guest that runs alone and undisturbed.
fn alone(timing: &str, session: &str) -> Scene {
    let text = format!(
        "name = \"alone\"\npart = \"skylake\"\ncpus = 1\nmhz = 1000\ntiming = \"{timing}\"\nduration-us = 400\n\
         [[vm]]\nname = \"a\"\n[[vcpu]]\nvm = \"a\"\nguest-perf = \"{session}\"\n\
         loop = {{ length = 23, branches = 8 }}\n"
    );
    Scene::from_toml(&text).unwrap()
}

#[test]
fn cycle_fields_and_the_guests_clock_tell_the_same_time() {
    for timing in ["bound", "scoreboard"] {
        let scene = alone(timing, "br_inst_retired.near_taken:500");
        let outcome = run(&scene, CostModel::published(), "ideal");
        let guest = outcome.time.as_ref().unwrap().guests[0] as f64;
        let rounds = outcome.vcpus[0].instructions as f64 / (8.0 * 23.0);
        let samples = &outcome.samples[0];
        assert!(samples.len() > 20, "{timing}: {}", samples.len());
        for sample in samples {
            let fields = sample
                .entries
                .iter()
                .map(|[_, _, info]| info & LbrInfo::CYC_CNT_MASK);
            // Three rounds, the youngest of the handler's own first.
            let three: u64 = fields.skip(1).take(24).sum();
            let expected = 3.0 * guest / rounds;
            let apart = (three as f64 - expected).abs();
            assert!(
                apart < 0.02 * expected + 1.0,
                "{timing}: {three} {expected}"
            );
        }
    }
}

#[test]
fn a_guest_that_samples_cycles_samples_its_own_clock() {
    for timing in ["bound", "scoreboard"] {
        for name in ["ideal", "v8", "naive"] {
            let scene = alone(timing, "cycles:7000");
            let costs = CostModel::published();
            let outcome = run(&scene, costs, name);
            let samples = outcome.vcpus[0].samples;
            let guest = outcome.time.as_ref().unwrap().guests[0];
            // Of the handler the clocks behind the write that lets the counter count are its own.
            assert!(
                samples > 1 && samples * 6600 <= guest,
                "{timing} {name}: {samples} {guest}"
            );
            assert!(
                guest < (samples + 1) * 7100,
                "{timing} {name}: {samples} {guest}"
            );
        }
    }
}

#[test]
fn clocks_of_guests_and_of_the_host_are_all_clocks_that_are_not_idle() {
    let text = r#"
        name = "counted"
        part = "skylake"
        cpus = 1
        timing = "scoreboard"
        duration-us = 2000

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = {}
        exits = { external-interrupt = 300, hlt = 20, fast-path-per-million = 1000 }

        [[task]]
        name = "t"
        cpu = 0
        every-us = 90
        for-us = 20

        [[event]]
        event = "cycles"
        cpu = 0

        [[event]]
        event = "cycles"
        cpu = 0
        exclude-host = true

        [[event]]
        event = "cycles"
        cpu = 0
        exclude-guest = true
    "#;
    let scene = Scene::from_toml(text).unwrap();
    let guests = guests(&scene);
    let costs = CostModel::published();
    let time = SceneTime::of(&scene, &guests, costs).unwrap();
    let run = Simulation::new(&scene, &guests, &time, &policy("none"), Checking::On).unwrap();
    let (mut looks, mut last) = (0, [0; 3]);
    let outcome = run
        .observed(&mut |run| {
            let perf = run.machine.host().perf();
            let hardware = run.machine.host().hardware();
            let read = |n: usize| {
                let event = run.events().get(&n).and_then(|events| events.first());
                event.map(|event| perf.read(hardware, *event).unwrap().unwrap_or(0))
            };
            let (Some(all), Some(of_guest), Some(of_host)) = (read(0), read(1), read(2)) else {
                return;
            };
            looks += 1;
            let cpu = &run.cpus[0];
            assert!(all >= last[0] && of_guest >= last[1] && of_host >= last[2]);
            last = [all, of_guest, of_host];
            let busy = cpu.now - cpu.time.idle;
            assert!(of_guest <= cpu.time.guest, "{of_guest} {}", cpu.time.guest);
            assert!(all <= busy, "{all} {busy}");
            // Clocks of VM entries wait for the host; the events were not opened at once.
            let missing = busy - all;
            assert!(missing < 6000 + cpu.owed, "{missing} of {busy}");
            let apart = all.abs_diff(of_guest + of_host);
            assert!(apart < 4000, "{all} {of_guest} {of_host}");
        })
        .unwrap();
    assert!(looks > 50);
    let time = outcome.time.unwrap();
    assert!(time.cpus[0].idle > 0 && last[1] > time.guests[0] / 2);
}

#[test]
fn where_nothing_costs_time_every_policy_takes_as_long() {
    let costs = free();
    for timing in ["bound", "scoreboard"] {
        let mut scene = alone(timing, "br_inst_retired.near_taken:900");
        scene.vcpu[0].exits.external_interrupt = 200;
        let runs = ["ideal", "v8", "naive", "msr-list"].map(|name| run(&scene, &costs, name));
        for run in &runs {
            assert_eq!(run.time, runs[0].time);
            assert_eq!(run.vcpus[0].instructions, runs[0].vcpus[0].instructions);
        }
        // What costs takes the guest's time.
        let naive = run(&scene, CostModel::published(), "naive");
        let v8 = run(&scene, CostModel::published(), "v8");
        assert!(naive.vcpus[0].instructions < v8.vcpus[0].instructions);
        assert!(v8.vcpus[0].instructions < runs[0].vcpus[0].instructions);
    }
}

#[test]
fn a_guest_whose_slices_are_shorter_than_a_switch_still_comes_on() {
    let text = r#"
        name = "crowd"
        part = "skylake"
        cpus = 1
        mhz = 1
        timing = "bound"
        scheduling = { slice-us = 1 }

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = {}
        instructions = 300

        [[vcpu]]
        vm = "a"
        loop = {}
        instructions = 300
    "#;
    let scene = Scene::from_toml(text).unwrap();
    let outcome = run(&scene, CostModel::published(), "naive");
    assert!(outcome.vcpus.iter().all(|vcpu| vcpu.instructions == 300));
    adds_up_on_skylake(&outcome);
}

fn adds_up_on_skylake(outcome: &Outcome) {
    let time = outcome.time.as_ref().unwrap();
    let priced =
        CostModel::published().estimate(outcome.machine.ledger(), "skylake", Bound::Default);
    let spent: u64 = time.cpus.iter().map(|cpu| cpu.costs).sum();
    assert_eq!(u128::from(spent), priced.unwrap().cycles);
}

#[test]
fn what_happens_on_a_processor_takes_its_time() {
    let text = r#"
        name = "apart"
        part = "skylake"
        cpus = 3
        mhz = 1000
        timing = "bound"
        duration-us = 300

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        cpus = [1]
        loop = {}
        guest-perf = "br_inst_retired.near_taken:3000"
        exits = { external-interrupt = 100 }

        [[task]]
        name = "t"
        cpu = 2
        every-us = 50
        for-us = 10
    "#;
    let scene = Scene::from_toml(text).unwrap();
    for name in ["v8", "naive"] {
        let outcome = run(&scene, CostModel::published(), name);
        let cpus = outcome.time.unwrap().cpus;
        assert_eq!((cpus[0].guest, cpus[0].host, cpus[2].guest), (0, 0, 0));
        assert!(cpus[1].guest > 0 && cpus[1].costs > 20_000 && cpus[2].host > 40_000);
        assert!(
            cpus[0].costs + cpus[2].costs < cpus[1].costs / 20,
            "{name}: {cpus:?}"
        );
    }
}

#[test]
fn a_guest_whose_handler_takes_longer_than_its_period_still_comes_on() {
    let mut scene = alone("scoreboard", "cycles:100");
    (scene.duration_us, scene.vcpu[0].instructions) = (None, Some(3000));
    for name in ["ideal", "v8"] {
        let outcome = run(&scene, CostModel::published(), name);
        let vcpu = &outcome.vcpus[0];
        assert!(
            vcpu.instructions >= 3000 && vcpu.samples > 5,
            "{name}: {vcpu:?}"
        );
    }
}

#[test]
fn a_task_is_sampled_as_often_as_its_clocks_say() {
    let text = r#"
        name = "task"
        part = "skylake"
        cpus = 1
        mhz = 1000
        timing = "bound"
        duration-us = 1000

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = {}

        [[task]]
        name = "t"
        cpu = 0
        every-us = 100
        for-us = 50

        [[event]]
        event = "cycles:u"
        cpu = 0
        period = 1000
        exclude-guest = true
    "#;
    let scene = Scene::from_toml(text).unwrap();
    let outcome = run(&scene, CostModel::published(), "none");
    let clocks = outcome.time.unwrap().cpus[0].host;
    assert!(clocks > 400_000);
    assert!(
        (clocks / 1000).abs_diff(outcome.host_samples) < 5,
        "{clocks} {}",
        outcome.host_samples
    );
}

#[test]
fn the_handlers_of_pmis_take_time_in_which_no_counter_counts() {
    let costs = CostModel::published();
    for (branches, sampled) in [
        (0, "vcpu = 0\nperiod = 900\nexclude-host = true"),
        (0, "task = \"t\"\nperiod = 300"),
        (20, "task = \"t\"\nperiod = 300"),
    ] {
        let text = format!(
            "name = \"handled\"\npart = \"skylake\"\ncpus = 1\nmhz = 1000\ntiming = \"bound\"\n\
             duration-us = 400\n[[vm]]\nname = \"a\"\n[[vcpu]]\nvm = \"a\"\nloop = {{}}\n\
             [[task]]\nname = \"t\"\ncpu = 0\nevery-us = 40\nfor-us = 20\nbranch-every = {branches}\n\
             [[event]]\nevent = \"cycles\"\ncpu = 0\n[[event]]\nevent = \"cycles\"\n{sampled}\n"
        );
        let scene = Scene::from_toml(&text).unwrap();
        let guests = guests(&scene);
        let time = SceneTime::of(&scene, &guests, costs).unwrap();
        let run = Simulation::new(&scene, &guests, &time, &policy("none"), Checking::Off).unwrap();
        let mut samples = 0;
        let look = &mut |run: &Simulation<'_>| {
            let host = run.machine.host();
            let Some(event) = run.events().get(&0).and_then(|events| events.first()) else {
                return;
            };
            let counted = host.perf().read(host.hardware(), *event).unwrap();
            let rows = run.machine.ledger().rows();
            let rows = rows.filter(|(actor, ..)| *actor == Actor::HostPmi);
            let price = |event| costs.price(event, "skylake", Bound::Default).unwrap();
            let handlers: u64 = rows.map(|(_, event, count)| count * price(event)).sum();
            let busy = run.cpus[0].now - run.cpus[0].time.idle;
            assert!(
                counted.unwrap_or(0) + handlers <= busy,
                "{sampled}: {counted:?} {handlers} {busy}"
            );
            samples = run.host_samples;
        };
        run.observed(look).unwrap();
        assert!(samples > 50, "{sampled}: {samples}");
    }
}

#[test]
fn a_vcpu_comes_no_earlier_than_it_left() {
    // A task takes the place of the first vCPU, which is inside a long step, at the end of the slice of the
    // second one, whose steps are short.
    let text = r#"
        name = "moves"
        part = "skylake"
        cpus = 2
        mhz = 1003
        timing = "bound"
        duration-us = 200

        [scheduling]
        slice-us = 101

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = { length = 100 }
        preempted-migrations-per-million = 1000000

        [[vcpu]]
        vm = "a"
        cpus = [1]
        loop = { length = 2 }

        [[task]]
        name = "t"
        cpu = 0
        from-us = 101
        every-us = 1000
        for-us = 50
    "#;
    let scene = Scene::from_toml(text).unwrap();
    let idle = |costs: &CostModel| {
        let outcome = run(&scene, costs, "none");
        assert_eq!(outcome.vcpus[0].switches.migrations, 1);
        outcome.time.unwrap().cpus[1].idle
    };
    // The processor waits for the end of the step, and of the exit.
    let step = idle(&free());
    assert!(step > 0 && step < 30, "{step}");
    let exit = idle(CostModel::published());
    assert!(exit > 200, "{exit}");
}
