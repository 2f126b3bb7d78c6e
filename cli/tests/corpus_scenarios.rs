//! Scenarios in a corpus, `[[scenarios]]`: each file passes, and the golden results name every file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str =
    "[[scenarios]]\nname = 'found'\npaths = ['../found', '../one/4299-alone.scn']\n";

/// v8 as it was posted breaks rule 12, v8 does not.
const BREAKS: &str = "scenario 1
title: Every access exits
area: contract
rule: contract/12
source: docs/contract.md
evidence: deduced
profiles: skylake
policies: v8-as-posted
description:
  The registers do not pass before entry.

given
  vcpu v0 in a
  switch cpu0 v0
  cap a on => 32 0x1c9 0x680 0x6c0 0xdc0
  run v0
  enter v0
  guest v0 wrmsr MSR_LBR_SELECT 2 exits
when
  guest v0 rdmsr MSR_LBR_SELECT = 2 exits
then
  count hardware exits MSR_LBR_SELECT = 1
";

fn vlbr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

/// `corpus check`: whether it passed, and what it prints.
fn check(folder: &Path, more: &[&str]) -> (bool, String) {
    let output = vlbr(folder, &[&["corpus", "check", "corpus"], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{text}");
    assert_eq!(
        output.status.code(),
        Some(i32::from(!output.status.success()))
    );
    (output.status.success(), text)
}

/// Three files in two paths, blessed.
fn corpus() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for made in ["corpus", "found", "one"] {
        fs::create_dir(dir.join(made)).unwrap();
    }
    fs::write(dir.join("corpus/corpus.toml"), CONFIG).unwrap();
    for file in ["found/4252-b.scn", "found/4251-a.scn", "one/4299-alone.scn"] {
        fs::write(dir.join(file), BREAKS).unwrap();
    }
    let (passed, missing) = check(dir, &[]);
    assert!(!passed);
    assert!(missing.contains("found.golden is missing; `corpus bless` writes it"));
    assert!(vlbr(dir, &["corpus", "bless", "corpus"]).status.success());
    folder
}

fn golden(dir: &Path) -> String {
    fs::read_to_string(dir.join("corpus/golden/scenarios/found.golden")).unwrap()
}

#[test]
fn golden_results_have_a_line_for_each_file_in_order() {
    let folder = corpus();
    let dir = folder.path();
    let text = golden(dir);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let line = "skylake under v8-as-posted; passes in 8 steps; ";
    assert_eq!(lines.len(), 3);
    for (found, file) in lines.iter().zip([
        "../found/4251-a.scn",
        "../found/4252-b.scn",
        "../one/4299-alone.scn",
    ]) {
        let digest = found.strip_prefix(&format!("{file}; {line}"));
        let digest = digest.unwrap_or_else(|| panic!("{found}"));
        assert!(digest.len() == 16 && digest.chars().all(|c| c.is_ascii_hexdigit()));
    }
    assert_eq!(check(dir, &[]), (true, "3 equal, 0 not\n".to_owned()));
    // The shards are a partition.
    let (one, two) = (
        check(dir, &["--shard", "1/2"]),
        check(dir, &["--shard", "2/2"]),
    );
    assert_eq!(one, (true, "2 equal, 0 not\n".to_owned()));
    assert_eq!(two, (true, "1 equal, 0 not\n".to_owned()));
    let listed = vlbr(dir, &["corpus", "list", "corpus"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.starts_with("scenarios/found (corpus/../found)\n  ../found/4251-a.scn\n"));
    assert!(listed.ends_with("0 traces and 0 scenes, 0 configurations; 3 scenarios\n"));
    let again = vlbr(dir, &["corpus", "bless", "corpus"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "1 unchanged\n");
}

#[test]
fn a_file_that_is_gone_is_named() {
    let folder = corpus();
    let dir = folder.path();
    fs::remove_file(dir.join("found/4251-a.scn")).unwrap();
    let (passed, text) = check(dir, &[]);
    assert!(!passed);
    let gone = "found.golden: there is no file ../found/4251-a.scn any more\n";
    assert_eq!(text, format!("{gone}2 equal, 0 not, 1 stale\n"));
    // The whole is looked at by the first shard alone.
    assert!(!check(dir, &["--shard", "1/2"]).0);
    assert!(check(dir, &["--shard", "2/2"]).0);
    assert!(vlbr(dir, &["corpus", "bless", "corpus"]).status.success());
    assert!(check(dir, &[]).0);
}

#[test]
fn a_file_that_is_extra_is_named() {
    let folder = corpus();
    let dir = folder.path();
    fs::write(dir.join("found/4253-c.scn"), BREAKS).unwrap();
    let (passed, text) = check(dir, &["--junit", "report.xml"]);
    assert!(!passed);
    let first = "scenarios/found under ../found/4253-c.scn\n  found.golden has no line of it; \
                 `corpus bless` writes one\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.ends_with("3 equal, 1 not\n"), "{text}");
    let junit = fs::read_to_string(dir.join("report.xml")).unwrap();
    assert!(junit.contains("tests=\"4\" skipped=\"0\" failures=\"0\" errors=\"1\""));
}

#[test]
fn a_file_that_fails_is_named_with_its_line_and_blesses_nothing() {
    let folder = corpus();
    let dir = folder.path();
    let before = golden(dir);
    let file = dir.join("found/4251-a.scn");
    fs::write(
        &file,
        BREAKS.replace("MSR_LBR_SELECT = 1", "MSR_LBR_SELECT = 2"),
    )
    .unwrap();
    let (passed, text) = check(dir, &[]);
    assert!(!passed);
    let place = "scenarios/found under ../found/4251-a.scn\n  line 22, skylake, v8-as-posted: ";
    assert!(text.starts_with(place), "{text}");
    let blessed = vlbr(dir, &["corpus", "bless", "corpus"]);
    assert_eq!(blessed.status.code(), Some(1));
    let error = String::from_utf8(blessed.stderr).unwrap();
    assert!(
        error.contains("nothing written: ../found/4251-a.scn: line 22"),
        "{error}"
    );
    assert_eq!(golden(dir), before);
    fs::write(&file, "no scenario\n").unwrap();
    let (passed, text) = check(dir, &[]);
    assert!(!passed && text.contains("  line 1: "), "{text}");
}

#[test]
fn a_policy_that_no_longer_breaks_the_rule_is_named() {
    let folder = corpus();
    let dir = folder.path();
    let repaired = BREAKS.replace("v8-as-posted", "v8");
    fs::write(dir.join("one/4299-alone.scn"), repaired).unwrap();
    let (passed, text) = check(dir, &[]);
    assert!(!passed);
    let failing = "scenarios/found under ../one/4299-alone.scn\n  line 20, skylake, v8: ";
    assert!(text.starts_with(failing), "{text}");
    assert!(text.ends_with("2 equal, 1 not\n"), "{text}");
}

#[test]
fn a_file_that_passes_otherwise_or_reads_otherwise_is_named() {
    let folder = corpus();
    let dir = folder.path();
    let more = BREAKS.replace(
        "when\n",
        "  guest v0 rdmsr MSR_LBR_SELECT = 2 exits\nwhen\n",
    );
    fs::write(dir.join("found/4251-a.scn"), more).unwrap();
    let (passed, text) = check(dir, &["--format", "json"]);
    assert!(!passed);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first = &json["checked"][0];
    assert_eq!(first["configuration"], "../found/4251-a.scn");
    assert_eq!(first["verdict"], "differs");
    assert_eq!(first["changes"][0]["what"], "result");
    assert_eq!(first["changes"][0]["old"], "passes in 8 steps");
    assert_eq!(first["changes"][0]["new"], "passes in 9 steps");
    assert_eq!(first["changes"][1]["what"], "digest of the text");
    // A line of golden results that is none is told with its place.
    let path = dir.join("corpus/golden/scenarios/found.golden");
    fs::write(path, "# Golden results\n../found/4251-a.scn\n").unwrap();
    let (passed, text) = check(dir, &[]);
    assert!(!passed && text.contains("found.golden:2: no line of golden results"));
}

#[test]
fn what_leads_nowhere_or_to_one_name_twice_is_an_error() {
    let folder = corpus();
    let dir = folder.path();
    for (paths, error) in [
        ("['../absent']", "absent"),
        ("['golden']", "no file named"),
        (
            "['../found', '../found']",
            "../found/4251-a.scn is named twice",
        ),
    ] {
        let config = format!("[[scenarios]]\nname = 'found'\npaths = {paths}\n");
        fs::write(dir.join("corpus/corpus.toml"), config).unwrap();
        let output = vlbr(dir, &["corpus", "check", "corpus"]);
        assert_eq!(output.status.code(), Some(1), "{paths}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(error) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn a_part_of_a_corpus_leaves_the_rest_alone() {
    let folder = corpus();
    let dir = folder.path();
    let both = CONFIG.replace("['../found', '../one/4299-alone.scn']", "['../found']")
        + "[[scenarios]]\nname = 'one'\npaths = ['../one']\n";
    fs::write(dir.join("corpus/corpus.toml"), both).unwrap();
    assert!(vlbr(dir, &["corpus", "bless", "corpus"]).status.success());
    fs::remove_file(dir.join("found/4251-a.scn")).unwrap();
    let one = ["--only", "scenarios/one"];
    assert_eq!(check(dir, &one), (true, "1 equal, 0 not\n".to_owned()));
    assert!(!check(dir, &[]).0);
    let before = golden(dir);
    let blessed = vlbr(dir, &[&["corpus", "bless", "corpus"], &one[..]].concat());
    assert_eq!(String::from_utf8(blessed.stdout).unwrap(), "1 unchanged\n");
    assert_eq!(golden(dir), before);
    let nothing = vlbr(dir, &["corpus", "check", "corpus", "--only", "scenes/"]);
    assert_eq!(nothing.status.code(), Some(1));
    let error = String::from_utf8(nothing.stderr).unwrap();
    assert!(
        error.contains("names nothing that begins with \"scenes/\""),
        "{error}"
    );
}
