//! Scenes made of recordings: what was counted, and that it comes out again.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::recording::Recorded;
use vlbr_arch::vmx::ExitReason;
use vlbr_cpu::ledger::Event;
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::import::{Import, ImportOptions, ImportSummary, Imported};
use vlbr_scene::{GuestSource, Outcome, Scene, SceneTime, Simulation};

/// Model time of the bundled samples, in microseconds.
const SAMPLE_US: u64 = 5000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes")
}

fn import(text: &str, options: &ImportOptions) -> Imported {
    let mut import = Import::new(None);
    let mut reader = BufReader::new(text.as_bytes());
    import.read(Path::new("text"), &mut reader).unwrap();
    import.finish(options).unwrap()
}

/// The options that the bundled scene was made with.
fn bundled() -> ImportOptions {
    ImportOptions {
        guest_perf: Some("br_inst_retired.near_taken:100000".to_owned()),
        ..ImportOptions::default()
    }
}

/// Set `VLBR_BLESS` to write them anew.
#[test]
fn the_bundled_samples_and_their_scene_are_what_they_are_made_of() {
    let recorded = Recorded::new(SAMPLE_US);
    let (perf, trace) = (recorded.perf_script(), recorded.trace_cmd());
    let scene = import(&perf, &bundled()).text;
    let files = [
        ("import/perf-script.txt", &perf),
        ("import/trace-cmd.txt", &trace),
        ("imported.toml", &scene),
    ];
    for (name, text) in files {
        let path = corpus().join(name);
        if std::env::var_os("VLBR_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        assert_eq!(&fs::read_to_string(&path).unwrap(), text, "{name}");
    }
    // Without the process in the text the VM is found by the numbers of its vCPUs.
    assert_eq!(import(&trace, &bundled()).text, scene);
}

#[test]
fn both_tools_texts_count_the_same() {
    let recorded = Recorded::new(100_000);
    let options = ImportOptions::default();
    let perf = import(&recorded.perf_script(), &options).summary;
    let mut trace = import(&recorded.trace_cmd(), &options).summary;
    assert!(perf.lines > trace.lines);
    trace.kind.clone_from(&perf.kind);
    trace.lines = perf.lines;
    assert_eq!(perf, trace);
}

fn run(text: &str) -> Outcome {
    let scene = Scene::from_toml(text).unwrap();
    let policy: Arc<dyn Policy> = Catalog::builtin().named("none").unwrap();
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped.unwrap());
    let guests: Vec<_> = loops
        .map(|spec| GuestSource::looped(spec).unwrap())
        .collect();
    let simulation =
        Simulation::new(&scene, &guests, &SceneTime::Nominal, &policy, Checking::Off).unwrap();
    simulation.run(&mut |_| {}).unwrap()
}

/// Exits of a run by reason.
fn exits(outcome: &Outcome) -> BTreeMap<ExitReason, u64> {
    let mut exits = BTreeMap::new();
    for (_, event, count) in outcome.machine.ledger().rows() {
        if let Event::VmExit { reason, .. } = event {
            *exits.entry(reason).or_default() += count;
        }
    }
    exits
}

fn recorded_exits(summary: &ImportSummary, reason: &str) -> u64 {
    let all = summary.vcpus.iter().flat_map(|vcpu| &vcpu.exits);
    let of_reason = all.filter(|exit| exit.reason == reason);
    of_reason.map(|exit| exit.count).sum()
}

/// Difference between what ran and what was recorded, as a part of that.
fn off(ran: u64, recorded: u64) -> f64 {
    (ran as f64 - recorded as f64) / recorded as f64
}

/// A second of recording, run for a second: exits by reason, switches and instructions of each vCPU
/// come out within 5 %, migrations, which are few, within 10 %.
#[test]
fn a_run_of_the_scene_has_the_ratios_of_the_recording() {
    let options = ImportOptions {
        ipc: 0.01,
        duration_us: Some(1_000_000),
        ..ImportOptions::default()
    };
    let recorded = Recorded::new(1_000_000).perf_script();
    let Imported { text, summary } = import(&recorded, &options);
    let outcome = run(&text);
    let ran = exits(&outcome);
    let mut wrong = Vec::new();
    let mut compare = |what: &str, ran: u64, recorded: u64, most: f64| {
        let off = off(ran, recorded);
        println!(
            "{what}: {recorded} recorded, {ran} ran, {:.1} % off",
            off * 100.0
        );
        if off.abs() > most {
            wrong.push(format!("{what}: {recorded} recorded, {ran} ran"));
        }
    };
    for (name, reason) in [
        ("EXTERNAL_INTERRUPT", ExitReason::EXTERNAL_INTERRUPT),
        ("MSR_WRITE", ExitReason::WRMSR),
        ("HLT", ExitReason::HLT),
        ("EPT_VIOLATION", ExitReason::EPT_VIOLATION),
        ("IO_INSTRUCTION", ExitReason::IO_INSTRUCTION),
        ("CPUID", ExitReason::CPUID),
        ("PREEMPTION_TIMER", ExitReason::PREEMPTION_TIMER),
    ] {
        let ran = ran.get(&reason).copied().unwrap_or(0);
        compare(name, ran, recorded_exits(&summary, name), 0.05);
    }
    let tallies = || outcome.vcpus.iter().zip(&summary.vcpus);
    for (n, (ran, recorded)) in tallies().enumerate() {
        let exits = recorded.exit_count;
        compare(&format!("vcpu{n}: exits"), ran.exits.total, exits, 0.05);
        let switches = recorded.slices.count;
        compare(
            &format!("vcpu{n}: switches"),
            ran.switches.pairs,
            switches,
            0.05,
        );
    }
    for (n, (ran, recorded)) in tallies().enumerate() {
        let instructions = (recorded.million_instructions * 1e6) as u64;
        compare(
            &format!("vcpu{n}: instructions"),
            ran.instructions,
            instructions,
            0.05,
        );
    }
    let sum = |of: &dyn Fn(usize) -> u64| (0..summary.vcpus.len()).map(of).sum::<u64>();
    let ran = sum(&|n| outcome.vcpus[n].switches.migrations);
    let recorded = sum(&|n| summary.vcpus[n].woken_elsewhere + summary.vcpus[n].moved);
    compare("migrations", ran, recorded, 0.1);
    assert!(wrong.is_empty(), "{wrong:#?}\n{text}");
}
