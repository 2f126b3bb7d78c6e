//! `vlbr contract` and policies of one's own from outside: names, files, exit status.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SCENE: &str = "contract scene 1
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

fn vlbr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

fn policy(folder: &Path, file: &str, name: &str) {
    let text = format!("name = {name:?}\nbase = \"v8\"\n");
    fs::write(folder.join(file), text).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.scene"), SCENE).unwrap();
    folder
}

#[test]
fn a_broken_rule_is_a_failure_if_that_is_asked_for() {
    let folder = folder();
    let dir = folder.path();
    let all = ["contract", "--scene", "small.scene", "--policy"];
    let reported = vlbr(dir, &[&all[..], &["v8"]].concat());
    assert!(reported.status.success());
    let told = String::from_utf8(reported.stdout).unwrap();
    assert!(told.contains("breaks rule 6 served-beside"), "{told}");
    let fail = ["--on-violation", "fail"];
    let output = ["-o", "found"];
    let failed = vlbr(dir, &[&all[..], &["v8"], &fail[..], &output[..]].concat());
    assert_eq!(failed.status.code(), Some(1));
    // Everything is written all the same, and nothing is complained of.
    assert_eq!(String::from_utf8(failed.stdout).unwrap(), told);
    assert!(failed.stderr.is_empty());
    assert!(names(&dir.join("found")).contains(&"3651-v8-served-beside.scn".to_owned()));
    let clean = vlbr(dir, &[&all[..], &["mediated-lazy"], &fail[..]].concat());
    assert!(clean.status.success());
}

#[test]
fn names_of_policies_of_ones_own_are_plain_and_free() {
    let folder = folder();
    let dir = folder.path();
    let free = "there is one of this name already";
    let plain = "a name has up to 64 of the characters a-z, 0-9, @, . and -";
    for (name, says) in [
        ("v8", free),
        ("upstream@6.8", free),
        ("../v8", plain),
        ("a/b", plain),
        ("V8", plain),
        ("", plain),
        ("a, b", plain),
    ] {
        policy(dir, "mine.toml", name);
        let scene = ["--scene", "small.scene"];
        let contract = ["contract", "--policy-file", "mine.toml", scene[0], scene[1]];
        let scenario = ["scenario", "run", "--policy-file", "mine.toml", "."];
        for arguments in [&contract[..], &scenario[..]] {
            let output = vlbr(dir, arguments);
            assert_eq!(output.status.code(), Some(1));
            let error = String::from_utf8(output.stderr).unwrap();
            let place = format!("vlbr: mine.toml: policy {name:?}: ");
            assert!(error.contains(&place) && error.contains(says), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn scenarios_of_policies_of_ones_own_run_with_their_files() {
    let folder = folder();
    let dir = folder.path();
    policy(dir, "a.toml", "my.own");
    policy(dir, "b.toml", "my-own");
    let files = ["--policy-file", "a.toml", "--policy-file", "b.toml"];
    let explore = [
        "contract",
        "--scene",
        "small.scene",
        "-o",
        "found",
        "--resume",
        "kept",
    ];
    let explored = vlbr(dir, &[&explore[..], &files[..]].concat());
    assert!(explored.status.success());
    let found = names(&dir.join("found"));
    for name in [
        "3699-my-own-served-beside.scn",
        "3699-my-own-2-served-beside.scn",
    ] {
        assert!(found.contains(&name.to_owned()), "{found:?}");
    }
    let kept = ["my%2eown.small%2escene.json", "my-own.small%2escene.json"];
    assert_eq!(names(&dir.join("kept")), kept);
    let unknown = vlbr(dir, &["scenario", "run", "found"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8(unknown.stdout).unwrap();
    assert!(told.contains("there is no policy \"my.own\""), "{told}");
    let run = vlbr(dir, &[&["scenario", "run", "found"], &files[..]].concat());
    let told = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{told}");
    assert!(
        told.contains(&format!("{} passed, 0 failed", found.len())),
        "{told}"
    );
}
