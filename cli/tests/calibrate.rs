//! `vlbr calibrate` with made-up readings: what it writes, and that a refusal writes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn sample(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "..",
        "calibrate",
        "tests",
        "data",
        name,
    ]
    .iter()
    .collect()
}

fn calibrate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .current_dir(folder)
        .arg("calibrate")
        .args([
            sample("synthetic-module.txt"),
            sample("synthetic-image.txt"),
        ])
        .args(arguments)
        .output()
        .expect("the command starts")
}

#[test]
fn the_model_goes_to_standard_output_or_a_file_and_is_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let printed = calibrate(folder.path(), &[]);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).expect("text");
    assert!(text.contains("name = \"synthetic-06_55-7\""), "{text}");
    let table = String::from_utf8(printed.stderr).expect("text");
    assert!(table.contains("not timed: xsaves: the processor has no XSAVES"));
    let written = calibrate(folder.path(), &["-o", "model.toml"]);
    assert_eq!(String::from_utf8(written.stdout).expect("text"), table);
    let model = fs::read_to_string(folder.path().join("model.toml")).expect("written");
    assert_eq!(model, text);
    let based = calibrate(folder.path(), &["--base", "model.toml"]);
    assert!(based.status.success());
}

#[test]
fn json_says_which_figures_were_timed_and_none_of_them_is_class_h() {
    let folder = tempfile::tempdir().expect("folder");
    let output = calibrate(folder.path(), &["--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figures = report["figures"].as_array().expect("figures");
    let timed: Vec<_> = figures
        .iter()
        .filter(|figure| figure["rows"] != 0)
        .collect();
    let skylake = "vmexit_plus_entry.skylake-server";
    assert!(timed.iter().any(|figure| figure["cost"] == skylake));
    assert!(timed.iter().all(|figure| figure["class"] == "E"));
    assert!(
        figures
            .iter()
            .any(|figure| figure["rows"] == 0 && figure["class"] == "H")
    );
}

#[test]
fn a_refusal_leaves_the_output_as_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.toml");
    fs::write(&path, "old").expect("written");
    fs::write(folder.path().join("not.txt"), "no readings").expect("written");
    for arguments in [
        &["-o", "model.toml", "not.txt"][..],
        &["-o", "model.toml", "absent.txt"],
        &["-o", "model.toml", "--base", "not.txt"],
        &["-o", "model.toml", "--base", "absent.toml"],
    ] {
        let output = calibrate(folder.path(), arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(output.stdout.is_empty());
        assert_eq!(fs::read_to_string(&path).expect("there"), "old");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
}

#[test]
fn on_a_hybrid_part_the_round_trip_is_that_of_the_core_that_ran() {
    let folder = tempfile::tempdir().expect("folder");
    let text = fs::read_to_string(sample("synthetic-image.txt")).expect("read");
    for (core, own) in [("0x20", "alder-lake-e"), ("0x40", "alder-lake-p")] {
        let text = text
            .replace("model=0x55", "model=0x97")
            .replace("core=0", &format!("core={core}"));
        fs::write(folder.path().join("image.txt"), text).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_vlbr"))
            .current_dir(folder.path())
            .args(["calibrate", "image.txt", "--format", "json"])
            .output()
            .expect("the command starts");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let figures = report["figures"].as_array().expect("figures");
        let timed = figures.iter().filter(|figure| figure["rows"] != 0);
        let names: Vec<_> = timed.filter_map(|figure| figure["cost"].as_str()).collect();
        let trips: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix("vmexit_plus_entry."))
            .collect();
        assert_eq!(trips, [own]);
    }
}

#[test]
fn readings_are_not_replaced_by_the_model() {
    let folder = tempfile::tempdir().expect("folder");
    let readings = fs::read(sample("synthetic-module.txt")).expect("read");
    fs::write(folder.path().join("in.txt"), &readings).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .current_dir(folder.path())
        .args(["calibrate", "in.txt", "-o", "./in.txt"])
        .output()
        .expect("the command starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("./in.txt: is one of the readings"), "{said}");
    let there = fs::read(folder.path().join("in.txt")).expect("there");
    assert_eq!(there, readings);
}

#[test]
fn a_model_on_standard_output_stands_before_the_table() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("all.txt");
    // A link of its own: one that were replaced would be lost to every other program.
    std::os::unix::fs::symlink("/proc/self/fd/1", folder.path().join("out")).expect("linked");
    let status = Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .current_dir(folder.path())
        .arg("calibrate")
        .arg(sample("synthetic-module.txt"))
        .args(["-o", "out"])
        .stdout(fs::File::create(&path).expect("created"))
        .status()
        .expect("the command starts");
    assert!(status.success());
    assert!(folder.path().join("out").is_symlink());
    let text = fs::read_to_string(&path).expect("written");
    let (model, table) = (text.find("name = "), text.find("# model "));
    assert!(model.is_some() && model < table, "{text}");
}
