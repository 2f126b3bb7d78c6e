//! `--timing`: cycles in what replays and counts print, of one clock.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn vlbr(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn corpus(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn printed(arguments: &[&str]) -> String {
    let output = vlbr(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str]) -> String {
    let output = vlbr(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&printed(arguments)).expect("JSON")
}

#[test]
fn stat_counts_cycles_and_says_of_which_model() {
    let trace = corpus("recurse.vlt");
    let stat = json(&["stat", &trace, "--timing", "bound", "-j"]);
    let count = |name: &str| {
        let events = stat["events"].as_array().unwrap().iter();
        let mut found = events.filter(|event| event["event"].as_str().unwrap().starts_with(name));
        found.next().unwrap()["count"].as_u64().unwrap()
    };
    let timing = stat["timing"].as_str().unwrap();
    assert!(timing.contains("block bound of skylake"), "{timing}");
    assert!(timing.contains("1000 core clocks"), "{timing}");
    let cycles: u64 = stat["threads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["cycles"].as_u64().unwrap())
        .sum();
    // What the kernel takes, which the trace does not show, is no cycle of user code.
    assert!(count("cycles") <= cycles && count("cycles") * 11 > cycles * 10);
    assert_eq!(count("cycles"), count("ref-cycles"));
    let rate = count("instructions") as f64 / count("cycles") as f64;
    assert!((0.5..4.01).contains(&rate), "{rate}");
    let table = printed(&["stat", &trace, "--timing", "bound"]);
    assert!(
        table.contains("insn per cycle") && table.contains("Time: block bound"),
        "{table}"
    );
    let slow = json(&[
        "stat",
        &trace,
        "--timing",
        "bound",
        "-j",
        "--mhz",
        "500",
        "--tsc-mhz",
        "1000",
    ]);
    assert_eq!(
        slow["threads"][0]["time_ns"],
        2 * stat["threads"][0]["time_ns"].as_u64().unwrap()
    );
    assert_eq!(slow["events"][0]["count"], stat["events"][0]["count"]);
}

#[test]
fn entries_have_cycles_whatever_the_number_of_threads() {
    let trace = corpus("threads.vlt");
    let script = |arguments: &[&str]| {
        let mut all = vec![
            "replay",
            &trace,
            "-b",
            "-c",
            "1009",
            "--format",
            "perf-script",
        ];
        all.extend(arguments);
        printed(&all)
    };
    let one = script(&["--timing", "bound", "--jobs", "1"]);
    assert_eq!(one, script(&["--timing", "bound", "--jobs", "3"]));
    let cycles = |text: &str| -> Vec<u32> {
        let entries = text
            .split_whitespace()
            .filter(|word| word.starts_with("0x"));
        let fields = entries.filter_map(|entry| entry.split('/').nth(5));
        fields.map(|field| field.parse().unwrap()).collect()
    };
    let told = printed(&[
        "replay", &trace, "-b", "--format", "json", "--timing", "bound",
    ]);
    assert!(told.contains("\"timing\":\"block bound of skylake"));
    let untimed = script(&[]);
    assert!(cycles(&untimed).iter().all(|&cycles| cycles == 0));
    let timed = cycles(&one);
    assert!(timed.len() > 500);
    // All but the first record of each thread.
    let zeros = timed.iter().filter(|&&cycles| cycles == 0).count();
    assert!(zeros < timed.len() / 50, "{zeros} of {}", timed.len());
}

#[test]
fn what_has_no_clock_or_two_is_refused() {
    let trace = corpus("recurse.vlt");
    let error = refused(&["replay", &trace, "--timing", "bound", "--cpu", "nehalem"]);
    assert!(
        error.contains("no timing model") && error.contains("skylake"),
        "{error}"
    );
    let error = refused(&[
        "stat",
        &trace,
        "--timing",
        "bound",
        "--clock",
        "instructions",
    ]);
    assert!(error.contains("exclude each other"), "{error}");
    let error = refused(&[
        "stat",
        &trace,
        "--timing",
        "bound",
        "--microarchitecture",
        "z80",
    ]);
    assert!(error.contains("z80"), "{error}");
    let borrowed = [
        "--timing",
        "bound",
        "--cpu",
        "nehalem",
        "--microarchitecture",
        "skylake",
    ];
    let mut arguments = vec!["stat", &trace, "-e", "cycles"];
    arguments.extend(borrowed);
    printed(&arguments);
}

#[test]
fn the_scoreboard_predicts_and_tells_where_slots_and_misses_went() {
    let trace = corpus("lua.vlt");
    let run = ["stat", &trace, "--timing", "scoreboard", "--branches", "5"];
    let stat = json(&[&run[..], &["-j"]].concat());
    let timing = stat["timing"].as_str().unwrap();
    assert!(
        timing.contains("scoreboard of skylake, predictor skylake"),
        "{timing}"
    );
    let slots = &stat["slots"];
    let part = |name: &str| slots[name].as_u64().unwrap();
    let parts = ["retiring", "bad_speculation", "frontend", "backend"].map(part);
    assert!(parts.iter().all(|&part| part > 0), "{parts:?}");
    let branches = stat["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 5);
    let missed: u64 = branches
        .iter()
        .map(|b| b["mispredicted"].as_u64().unwrap())
        .sum();
    let events = stat["events"].as_array().unwrap().iter();
    let mut misses = events.filter(|event| event["event"] == "branch-misses:u");
    assert!(misses.next().unwrap()["count"].as_u64().unwrap() >= missed && missed > 0);
    let table = printed(&[&run[..], &["--topdown"]].concat());
    for word in [
        "retiring",
        "backend bound",
        "MPKI",
        "% of all branches",
        "insn per cycle",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let error = refused(&["stat", &trace, "--timing", "bound", "--topdown"]);
    assert!(error.contains("scoreboard"), "{error}");
    let error = refused(&[
        "stat",
        &trace,
        "--timing",
        "scoreboard",
        "--mispredicts",
        "recorded",
    ]);
    assert!(error.contains("recorded no misprediction"), "{error}");
    let error = refused(&["stat", &trace, "--timing", "bound", "--predictor", "gshare"]);
    assert!(error.contains("scoreboard only"), "{error}");
}

#[test]
fn a_warm_up_is_not_counted() {
    let trace = corpus("recurse.vlt");
    let count = |warmup: &str| {
        let stat = json(&[
            "stat",
            &trace,
            "-j",
            "-e",
            "instructions",
            "--warmup",
            warmup,
        ]);
        stat["events"][0]["count"].as_u64().unwrap()
    };
    let whole = count("0");
    let left_out = whole - count("5000");
    assert!((5000..5200).contains(&left_out), "{left_out}");
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    let trace = corpus("stepped.vlt");
    for (arguments, reason) in [
        (&["stat", "--mhz", "3000"][..], "--mhz is of a timing model"),
        (
            &["stat", "--tsc-mhz", "3000"],
            "--tsc-mhz is of a timing model",
        ),
        (
            &["replay", "-b", "--microarchitecture", "haswell"],
            "--microarchitecture is of a timing model",
        ),
        // Nobody knows of a misprediction: an empty table would say that there was none.
        (
            &["stat", "--branches", "3"],
            "--branches: the trace has recorded no misprediction",
        ),
        (
            &["stat", "--timing", "bound", "--branches", "3"],
            "--branches: the trace has recorded no misprediction",
        ),
        (
            &["stat", "-x,", "--timing", "scoreboard", "--topdown"],
            "cannot be used with '--topdown'",
        ),
        (
            &["replay", "--format", "bolt-exact", "--warmup", "100"],
            "bolt-exact has every branch and no samples: without --warmup",
        ),
        (
            &["replay", "--format", "bolt-exact", "-e", "instructions"],
            "without --event",
        ),
        (
            &["replay", "-b", "--format", "json", "--top", "3"],
            "cannot be used with",
        ),
        (
            &["branches", "--cbp", "out.gz", "--cpu", "haswell"],
            "cannot be used with '--cpu",
        ),
        (
            &["branches", "--cbp", "out.gz", "--worst", "3"],
            "cannot be used with '--worst",
        ),
    ] {
        let error = refused(&[arguments, &[&trace]].concat());
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
}

#[test]
fn what_time_is_made_of_is_told_beside_a_file_too() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("perf.data");
    let output = output.to_str().expect("a name");
    let trace = corpus("stepped.vlt");
    let run = vlbr(&["replay", &trace, "--timing", "bound", "-b", "-o", output]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        said.contains("time by the block bound of skylake"),
        "{said}"
    );
}
