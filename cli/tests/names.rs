//! Names without the programs that were recorded.

use std::path::Path;
use std::process::Command;

use vlbr_traces::vlt::{FileFunctions, FileState, Function, Meta, Process, Writer, WriterOptions};

fn vlbr(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    let output = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the README's first command shows.
#[test]
fn the_bundled_recording_of_sqlite_is_shown_with_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = vlbr(&root, &["replay", "corpus/sqlite.vlt", "-b"]);
    for expected in [
        " sqlite3VdbeExec+0x",
        " vdbeSorterMerge+0x",
        "> vdbeSorterCompareText\n",
    ] {
        assert!(table.contains(expected), "{expected} in {table}");
    }
    assert!(!table.contains("[sqlite]"), "{table}");
    let arguments = ["--from", "sqlite3VdbeExec"];
    let region = [&["replay", "corpus/sqlite.vlt", "-b"], &arguments[..]].concat();
    let region = vlbr(&root, &region);
    assert_ne!(region, table);
    assert!(region.contains(" sqlite3VdbeExec+0x"), "{region}");
}

#[test]
fn branches_are_counted_by_kind_with_their_predictor_and_the_worst_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments = ["branches", "corpus/sqlite.vlt", "--instructions", "5000000"];
    let table = vlbr(&root, &arguments);
    for expected in [
        "# predictor : skylake, one for each thread\n",
        "#   directions: TAGE over path",
        "\n    conditional  ",
        "\n            all  ",
        " sqlite3VdbeExec+0x",
    ] {
        assert!(table.contains(expected), "{expected} in {table}");
    }
    let of = |more: &[&str]| -> serde_json::Value {
        let all = [&arguments[..], &["--format", "json"], more].concat();
        serde_json::from_str(&vlbr(&root, &all)).unwrap()
    };
    let skylake = of(&["--cpu", "skylake-server"]);
    assert_eq!(skylake["predictor"]["name"], "skylake");
    let mispredicted =
        |report: &serde_json::Value| report["total"]["mispredicted"].as_u64().unwrap();
    let bimodal = of(&["--predictor", "bimodal"]);
    assert_eq!(bimodal["instructions"], skylake["instructions"]);
    assert!(mispredicted(&bimodal) > 2 * mispredicted(&skylake));
    let core2 = Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(["branches", "corpus/sqlite.vlt", "--cpu", "core2-45nm"])
        .current_dir(&root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&core2.stderr).into_owned();
    assert!(
        said.contains("no predictor is known of \"core2-45nm\"; --predictor takes"),
        "{said}"
    );
}

#[test]
fn info_counts_the_files_with_names_and_shows_every_note() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vlt");
    let options = WriterOptions::default();
    let mut writer = Writer::create(&path, &Meta::default(), options).unwrap();
    writer.add_process(&Process::default()).unwrap();
    let file = |name: &str, state, functions| FileFunctions {
        path: name.into(),
        state,
        functions,
        ..FileFunctions::default()
    };
    let function = |address, name: &str| Function {
        address,
        size: 1,
        name: name.into(),
    };
    writer
        .add_functions(&[
            file(
                "/a",
                FileState::Read,
                vec![function(1, "f"), function(2, "g")],
            ),
            file("/b", FileState::Read, Vec::new()),
            file("/c", FileState::Unreadable, Vec::new()),
            file("/d", FileState::Another, Vec::new()),
        ])
        .unwrap();
    let lost = |what: &str| ("lost".to_owned(), what.to_owned());
    writer.finish(&[lost("this"), lost("that")]).unwrap();
    let text = vlbr(directory.path(), &["info", "a.vlt"]);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    for (name, value) in [
        ("functions", "2 named, in 1 of 4 files"),
        ("  no names of", "/b: it has no symbols for what ran"),
        ("  no names of", "/c: it could not be read"),
        ("  no names of", "/d: another file had taken its place"),
        ("lost", "this; that"),
    ] {
        let line = format!("{name:<22} {value}");
        assert!(lines.contains(&line.trim()), "{line} in {text}");
    }
    let json = vlbr(directory.path(), &["info", "--format", "json", "a.vlt"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["names"]["functions"], 2);
    assert_eq!(json["names"]["unnamed_files"][2]["path"], "/d");
    assert_eq!(json["notes"]["lost"], "this; that");
}
