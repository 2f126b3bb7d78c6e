//! `vlbr vm --timeline`: what is drawn is what the report counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn scenes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes")
}

fn vlbr(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.current_dir(scenes()).args(arguments);
    command.output().expect("the command starts")
}

/// The report and the timeline of a scene under a policy.
fn drawn(scene: &str, policy: &str) -> (Value, Value) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.json");
    let path = path.to_str().unwrap();
    let arguments = [
        "vm", scene, "--policy", policy, "--checks", "off", "--format", "json",
    ];
    let output = vlbr(&[&arguments[..], &["--timeline", path]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let plain = vlbr(&arguments);
    assert!(plain.stdout == output.stdout, "drawing changes the run");
    let text = fs::read_to_string(path).unwrap();
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing else is left");
    (
        serde_json::from_slice(&output.stdout).unwrap(),
        serde_json::from_str(&text).unwrap(),
    )
}

/// The groups of tracks.
const CPU: u64 = 1;
const LBR: u64 = 2;
const VCPU: u64 = 3;

/// Checks every track: time does not run backwards, slices nest and end.
fn check_tracks(timeline: &Value) {
    let mut tracks: BTreeMap<(u64, u64), (f64, u32)> = BTreeMap::new();
    for event in timeline["traceEvents"].as_array().unwrap() {
        if event["ph"] == "M" {
            continue;
        }
        let track = (
            event["pid"].as_u64().unwrap(),
            event["tid"].as_u64().unwrap(),
        );
        let (last, open) = tracks.entry(track).or_default();
        let ts = event["ts"].as_f64().unwrap();
        assert!(ts >= *last, "{track:?}: {event}");
        *last = ts;
        match event["ph"].as_str().unwrap() {
            "B" => *open += 1,
            "E" => *open = open.checked_sub(1).expect("a slice is open"),
            "i" => assert_eq!(event["s"], "t"),
            other => panic!("{other}"),
        }
    }
    assert!(tracks.len() > 3, "{tracks:?}");
    assert!(tracks.values().all(|(_, open)| *open == 0), "{tracks:?}");
}

/// Events of a group, with this phase and beginning of a name.
fn events<'t>(
    timeline: &'t Value,
    (group, phase, name): (u64, &str, &str),
) -> impl Iterator<Item = &'t Value> {
    let all = timeline["traceEvents"].as_array().unwrap().iter();
    let (phase, name) = (phase.to_owned(), name.to_owned());
    all.filter(move |event| {
        let named = event["name"]
            .as_str()
            .is_some_and(|own| own.starts_with(&name));
        event["pid"] == group && event["ph"] == phase.as_str() && named
    })
}

/// What the ledger of a report counts of an actor.
fn ledger(report: &Value, actor: &str, event: &str) -> u64 {
    let rows = report["rows"].as_array().unwrap().iter();
    let rows = rows
        .filter(|row| row["actor"] == actor && row["event"].as_str().unwrap().starts_with(event));
    rows.map(|row| row["count"].as_u64().unwrap()).sum()
}

fn sum(timeline: &Value, name: &str, key: &str) -> u64 {
    let events = events(timeline, (LBR, "i", name));
    events
        .map(|event| event["args"][key].as_u64().unwrap())
        .sum()
}

#[test]
fn the_timeline_counts_what_the_report_counts() {
    for (scene, policy) in [
        ("loop.toml", "v8"),
        ("contention.toml", "upstream@6.8"),
        ("imported.toml", "v8"),
    ] {
        let (report, timeline) = drawn(scene, policy);
        check_tracks(&timeline);
        let said = format!("{scene}, {policy}");
        for (n, vcpu) in report["vcpus"].as_array().unwrap().iter().enumerate() {
            let exits = events(&timeline, (VCPU, "i", "exit: "));
            let exits = exits.filter(|event| event["tid"] == n);
            assert_eq!(
                exits.count(),
                vcpu["exits"]["total"].as_u64().unwrap() as usize,
                "{said}"
            );
            let slices = events(&timeline, (CPU, "B", &format!("thread of vcpu{n}"))).count();
            let pairs = vcpu["switches"]["pairs"].as_u64().unwrap() as usize;
            assert_eq!(slices, pairs + 1, "{said}: vcpu{n}");
        }
        // Each exit has the reason of a row of the ledger.
        let rows = report["rows"].as_array().unwrap().iter();
        let rows = rows.filter_map(|row| {
            let reason = row["event"].as_str()?.strip_prefix("VM exit: ")?;
            Some((reason.to_owned(), row["count"].as_u64()?))
        });
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        rows.for_each(|(reason, count)| *counted.entry(reason).or_default() += count);
        let mut drawn: BTreeMap<String, u64> = BTreeMap::new();
        for event in events(&timeline, (VCPU, "i", "exit: ")) {
            let reason = event["name"].as_str().unwrap().replacen("exit: ", "", 1);
            *drawn.entry(reason).or_default() += 1;
        }
        assert_eq!(drawn, counted, "{said}");
        assert_eq!(
            sum(&timeline, "save", "RDMSR"),
            ledger(&report, "host save", "RDMSR"),
            "{said}"
        );
        for access in ["RDMSR", "WRMSR"] {
            let counted = ledger(&report, "host restore", access);
            assert_eq!(sum(&timeline, "restore", access), counted, "{said}");
        }
        let reset = ledger(&report, "host reset", "WRMSR");
        assert_eq!(sum(&timeline, "reset", "WRMSR"), reset, "{said}");
        assert_eq!(
            sum(&timeline, "PMI", "samples"),
            report["host_samples"].as_u64().unwrap(),
            "{said}"
        );
        let notes = report["journal"].as_array().unwrap().iter();
        let pmis = notes.filter(|note| note[1] == "virtual PMI");
        let pmis: u64 = pmis.map(|note| note[2].as_u64().unwrap()).sum();
        let drawn = events(&timeline, (4, "i", "virtual PMI")).count();
        assert_eq!(drawn as u64, pmis, "{said}");
        assert!(
            events(&timeline, (LBR, "B", "records of guest of vcpu")).count() > 0,
            "{said}"
        );
    }
}

#[test]
fn a_swap_at_every_exit_is_drawn() {
    let (report, timeline) = drawn("loop.toml", "naive");
    check_tracks(&timeline);
    let exits = report["letters"]["x"].as_u64().unwrap();
    let reads = sum(&timeline, "swap", "RDMSR");
    // With those of the host's IA32_DEBUGCTL.
    assert_eq!(reads, ledger(&report, "world switch", "RDMSR"));
    assert!(reads >= 98 * exits, "{reads}, {exits}");
}

#[test]
fn host_events_have_tracks_while_they_are_open() {
    // v8's guests keep the LBR; KVM as merged competes as coded.
    for (policy, state) in [("v8", "Inactive"), ("upstream@6.8", "Active on cpu0")] {
        let (_, timeline) = drawn("contention.toml", policy);
        let slices = events(&timeline, (5, "B", "")).filter(|event| event["name"] == state);
        assert!(slices.count() > 0, "{policy}");
    }
}

#[test]
fn a_timeline_that_cannot_be_written_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("gone/t.json");
    let output = vlbr(&["vm", "loop.toml", "--timeline", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let path = folder.path().join("t.json");
    let output = vlbr(&["vm", "gone.toml", "--timeline", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!path.exists());
}
