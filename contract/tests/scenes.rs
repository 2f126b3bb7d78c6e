//! Scenes as text, and what exploring them gives.

use std::path::Path;

use vlbr_contract::{Bounds, ContractRule, Plan, Scene, Table};
use vlbr_host::policy::Catalog;

const SMALL: &str = "contract scene 1
title: A guest and an event
part: skylake
given
  vcpu v0 in a
  switch cpu0 v0
  offer v0
actions
  run v0
  enter v0
  guest v0 wrmsr $on
  v0 asks: guest v0 rdmsr $first
  at most 1: event h cycles on cpu0 pinned period 1048576 branch any,u
  close h
  exit v0 hlt
";

fn explored(policies: &[&str], text: &str, states: usize, threads: usize) -> Table {
    let catalog = Catalog::builtin();
    let policies = policies.iter().map(|name| catalog.named(name).unwrap());
    let plan = Plan {
        policies: policies.collect(),
        scenes: vec![Scene::parse("small", text).unwrap()],
        bounds: Bounds {
            depth: None,
            states,
        },
        kept: None,
        build: String::new(),
        threads,
    };
    plan.run(&|_, _, _| {}).unwrap()
}

#[test]
fn every_built_in_scene_is_one_and_has_its_name_once() {
    let scenes = Scene::all().unwrap();
    assert_eq!(scenes.len(), Scene::names().len());
    for scene in &scenes {
        assert_eq!(Scene::builtin(scene.name()).as_ref(), Some(scene));
        assert!(!scene.title().is_empty());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), scenes.len());
}

#[test]
fn what_is_no_scene_is_refused_with_its_line() {
    for (change, with, said) in [
        ("contract scene 1", "contract scene 2", "small:1: "),
        ("part: skylake", "park: skylake", "small:3: "),
        ("part: skylake", "description: x", "part: is missing"),
        ("title: A guest and an event", "# none", "title: is missing"),
        ("part: skylake", "part: skylake\ncpus: 9", "small:4: "),
        ("part: skylake", "part: skylake\nstates: 0", "small:4: "),
        (
            "close h",
            "close g",
            "small:14: no action opens an event \"g\"",
        ),
        ("close h", "at most 0: close h", "small:14: "),
        ("close h", "sometimes: close h", "small:14: "),
        ("close h", "clothe h", "small:14: "),
        ("at most 1: event", "event", "small:13: "),
        ("close h", "cap a on => -EINVAL", "small:14: "),
        ("close h", "on cpu0 jmp rel 0x1 -> 0x2", "small:14: "),
        ("close h", "vcpu v1 in b", "small:14: "),
        ("close h", "fork v0 -> t", "small:14: "),
        ("branch any,u", "branch any,u => -EINVAL", "small:13: "),
    ] {
        let text = SMALL.replacen(change, with, 1);
        let error = Scene::parse("small", &text).unwrap_err().to_string();
        assert!(error.contains(said), "{with}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let many = format!("{SMALL}{}", "  rotate cpu0\n".repeat(60));
    assert!(
        Scene::parse("small", &many)
            .unwrap_err()
            .to_string()
            .contains("more than 64")
    );
    let long = format!("{SMALL}{}", "# x\n".repeat(20_000));
    assert!(
        Scene::parse("small", &long)
            .unwrap_err()
            .to_string()
            .contains("at most")
    );
}

#[test]
fn a_setup_that_cannot_be_is_an_error() {
    let catalog = Catalog::builtin();
    for (change, with) in [
        ("switch cpu0 v0", "switch cpu7 v0"),
        ("offer v0", "offer v9"),
        ("offer v0", "run v9"),
        ("part: skylake", "part: 8086"),
        ("run v0", "run v9"),
        ("exit v0 hlt", "switch cpu7 idle"),
        ("exit v0 hlt", "at most 1: on cpu7 jmp rel 0x1 -> 0x2"),
        ("v0 asks:", "v9 asks:"),
        ("v0 asks:", "at most 1: v0 asks:"),
        ("v0 asks: guest v0 rdmsr $first", "v0 asks: enter v0"),
        (
            "v0 asks: guest v0 rdmsr $first",
            "v0 asks: guest v0 wrmsr $on",
        ),
        ("offer v0", "event g branches on cpu0 period 9 branch any"),
        ("  vcpu v0 in a\n  switch cpu0 v0\n  offer v0\n", ""),
    ] {
        let scene = Scene::parse("small", &SMALL.replacen(change, with, 1)).unwrap();
        let policy = catalog.named("upstream@6.16").unwrap();
        let found = vlbr_contract::explore(&scene, &policy, &Bounds::default(), &|_| {});
        let error = found.map(|found| found.states).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn threads_and_repetition_change_nothing() {
    let policies = ["v8", "upstream@6.16", "ideal"];
    let one = explored(&policies, SMALL, 500, 1);
    for threads in [1, 3] {
        assert_eq!(explored(&policies, SMALL, 500, threads), one);
    }
    assert!(one.text().contains("exhausted"));
    assert_eq!(one.markdown(".").lines().count(), 2 + policies.len());
}

#[test]
fn a_bound_leaves_out_what_is_far_and_says_so() {
    let whole = explored(&["v8"], SMALL, 10_000, 1);
    let part = explored(&["v8"], SMALL, 20, 1);
    let (whole, part) = (&whole.explored[0], &part.explored[0]);
    assert!(whole.exhausted && !part.exhausted);
    assert!(part.states < whole.states && part.whole < whole.depth);
    for broken in &part.broken {
        let same = whole
            .broken
            .iter()
            .find(|of| of.rule == broken.rule)
            .unwrap();
        assert_eq!(same.path, broken.path, "the shortest is found first");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let policies = Catalog::builtin();
    let mut plan = Plan {
        policies: vec![policies.named("v8").unwrap()],
        scenes: vec![Scene::parse("small", SMALL).unwrap()],
        bounds: Bounds {
            depth: None,
            states: 500,
        },
        kept: Some(folder.path().join("kept")),
        build: "one".to_owned(),
        threads: 1,
    };
    let first = plan.run(&|_, _, _| {}).unwrap();
    let file = folder.path().join("kept/v8.small.json");
    let text = std::fs::read_to_string(&file).unwrap();
    // What is kept is taken: another number in it comes back.
    std::fs::write(&file, text.replace("\"whole\": ", "\"whole\": 9")).unwrap();
    let again = plan.run(&|_, _, _| {}).unwrap();
    assert_ne!(again, first);
    // Of another program or scene, or damaged, it is not.
    plan.build = "another".to_owned();
    assert_eq!(plan.run(&|_, _, _| {}).unwrap(), first);
    plan.scenes = vec![Scene::parse("small", &SMALL.replace("A guest", "One guest")).unwrap()];
    assert_eq!(plan.run(&|_, _, _| {}).unwrap(), first);
    std::fs::write(&file, "{").unwrap();
    assert_eq!(plan.run(&|_, _, _| {}).unwrap(), first);
}

#[test]
fn every_scenario_that_is_printed_shows_what_it_says() {
    let table = explored(
        &["v8", "v8-as-posted", "upstream@6.16", "naive"],
        SMALL,
        10_000,
        2,
    );
    let scenarios = table.scenarios();
    assert!(scenarios.len() > 6, "{}", scenarios.len());
    for (name, text) in scenarios {
        let scenario = vlbr_scenario::parse(Path::new(&name), &text);
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (_, failures) = vlbr_scenario::run_scenario(&scenario);
        assert!(failures.is_empty(), "{failures:?}\n{text}");
    }
}

#[test]
fn rules_are_numbered_as_in_the_index() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/rules.txt");
    let rules = std::fs::read_to_string(rules).unwrap();
    for (rule, name) in ContractRule::NAMED {
        assert_eq!(rule.name(), name);
        let line = format!("\ncontract/{}: {name}: ", rule.number());
        assert!(rules.contains(&line), "{line}");
    }
    assert!(!rules.contains(&format!("\ncontract/{}: ", ContractRule::NAMED.len() + 1)));
}
