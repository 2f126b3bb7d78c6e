//! Damaged scenarios are refused or run.

use std::fs;
use std::path::{Path, PathBuf};

use vlbr_fuzz::{Form, throw};
use vlbr_scenario::{Area, Scenario, discover, parse, parse_rules, run_scenario};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn seeds() -> Vec<Vec<u8>> {
    let files = discover(&[root()]).unwrap();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Reads a text under a name that suits its area.
fn read(bytes: &[u8]) -> Option<Scenario> {
    let text = str::from_utf8(bytes).ok()?;
    let area = text.lines().find_map(|line| line.strip_prefix("area: "));
    let number = area.and_then(Area::named).map_or(1, Area::first_number);
    parse(Path::new(&format!("{number}-name.scn")), text).ok()
}

#[test]
fn fuzz_scenario() {
    let tally = throw("scenario", 10_000, Form::Text, &seeds(), |bytes| {
        read(bytes).is_some()
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_scenario_run() {
    let tally = throw("scenario, run", 100, Form::Text, &seeds(), |bytes| {
        let Some(scenario) = read(bytes) else {
            return false;
        };
        // It passes or fails.
        let _ = run_scenario(&scenario);
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_rules() {
    let seeds = [fs::read(root().join("rules.txt")).unwrap()];
    let tally = throw("rules", 1000, Form::Text, &seeds, |bytes| {
        str::from_utf8(bytes).is_ok_and(|text| parse_rules(text).is_ok())
    });
    assert!(tally.taken > 0);
}
