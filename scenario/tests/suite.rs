//! The files under `scenarios/`: they pass, they are indexed, and none can pass by accident.

mod mutate;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use vlbr_lbr::Profile;
use vlbr_scenario::{DeviceKind, Scenario, discover, index, load, parse_rules, run, run_scenario};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn all() -> Vec<(PathBuf, Scenario)> {
    let files = discover(&[root()]).unwrap();
    let load = |file: PathBuf| match load(&file) {
        Ok(scenario) => (file, scenario),
        Err(error) => panic!("{error}"),
    };
    files.into_iter().map(load).collect()
}

#[test]
fn every_scenario_passes_on_both_devices() {
    let report = run(&[root()]).unwrap();
    assert!(report.passed(), "{report}");
}

#[test]
fn a_file_stands_in_the_folder_of_its_area() {
    for (file, scenario) in all() {
        let folder = file.parent().and_then(|folder| folder.file_name());
        assert_eq!(
            folder.and_then(|name| name.to_str()),
            Some(scenario.area.name()),
            "{}",
            file.display()
        );
    }
}

#[test]
fn numbers_are_unique() {
    let mut seen = BTreeMap::new();
    for (file, scenario) in all() {
        if let Some(other) = seen.insert(scenario.number, file.clone()) {
            panic!("{} and {}", file.display(), other.display());
        }
    }
}

#[test]
fn the_index_is_complete_and_current() {
    let rules = parse_rules(&fs::read_to_string(root().join("rules.txt")).unwrap()).unwrap();
    let mut scenarios: Vec<Scenario> = all().into_iter().map(|(_, scenario)| scenario).collect();
    scenarios.sort_by_key(|scenario| scenario.number);
    let expected = match index(&rules, &scenarios) {
        Ok(text) => text,
        Err(error) => panic!("{error}"),
    };
    let found = fs::read_to_string(root().join("INDEX.md")).unwrap();
    assert!(
        found == expected,
        "scenarios/INDEX.md is stale: cargo run -p vlbr-scenario --example index > scenarios/INDEX.md"
    );
}

#[test]
fn every_profile_and_every_vector_is_covered() {
    let scenarios = all();
    for profile in Profile::all() {
        let covered = scenarios
            .iter()
            .filter(|(_, s)| s.profiles.names().iter().any(|name| name == profile.name()));
        assert!(covered.count() >= 40, "{}", profile.name());
    }
    let vectors = (1..=28).map(|n| format!("vectors/T{n}"));
    for rule in vectors.chain((1..=8).map(|n| format!("vectors/P{n}"))) {
        assert!(
            scenarios.iter().any(|(_, s)| s.rules.contains(&rule)),
            "{rule}"
        );
    }
}

/// Rules of hosts, 8/1 to 8/101, that no file shows yet.
const HOST_RULES_NOT_SHOWN: [u32; 0] = [];

#[test]
fn every_rule_of_hosts_has_a_file_with_its_number() {
    let scenarios = all();
    for n in 1..=101 {
        let rule = format!("8/{n}");
        let shown = scenarios
            .iter()
            .any(|(_, s)| s.number == 2000 + n && s.rules == [rule.clone()]);
        assert_eq!(shown, !HOST_RULES_NOT_SHOWN.contains(&n), "{rule}");
    }
    let hosts = scenarios.iter().filter(|(_, s)| s.host.is_some());
    for (file, scenario) in hosts.filter(|(_, s)| s.number <= 2600) {
        // Variants of a rule in other kernels stand 200 and 400 above it.
        let rule = (scenario.number - 2000) % 200;
        assert_eq!(scenario.rules, [format!("8/{rule}")], "{}", file.display());
    }
}

#[test]
fn every_changed_expectation_is_noticed_on_every_profile_and_device() {
    let mut changes = 0;
    for (file, scenario) in all() {
        let each = match &scenario.host {
            Some(host) => host.policies.len(),
            None => DeviceKind::ALL.len(),
        };
        let runs = scenario.profiles.names().len() * each;
        let mutants = mutate::expectations(&scenario);
        assert!(!mutants.is_empty(), "{}", file.display());
        for (line, mutant) in mutants {
            changes += 1;
            let (_, failures) = run_scenario(&mutant);
            assert!(
                failures.len() == runs && failures.iter().all(|failure| failure.line == line),
                "{}:{line}: a changed expectation was noticed on {} of {runs} runs",
                file.display(),
                failures.len()
            );
        }
    }
    assert!(changes > 1000, "{changes} expectations were changed");
}

#[test]
fn no_scenario_passes_whatever_happens() {
    let mut passing = Vec::new();
    for (file, scenario) in all() {
        let mutants = mutate::without_one_step(&scenario);
        let noticed = |mutant: &Scenario| !run_scenario(mutant).1.is_empty();
        if !mutants.is_empty() && !mutants.iter().any(noticed) {
            passing.push(file);
        }
    }
    assert!(
        passing.is_empty(),
        "they pass whichever step is left out: {passing:#?}"
    );
}
