//! `vlbr corpus` and `vlbr diff` from outside: what is printed, files written, exit status.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
use vlbr_traces::vlt::{
    Meta, Process, RECORDING_LEVEL, SideStreams, Thread, Writer, WriterOptions, encode_chunk,
};

const CONFIG: &str = "\
profiles = ['haswell', 'skylake']
filters = ['any,u', 'stack,u']
period = 101

[[trace]]
name = 'a'
licence = 'none'
";

fn write_trace(path: &Path, seed: u64) {
    let mut program = Synthetic::new(&SyntheticConfig::with_seed(seed)).unwrap();
    let steps = program.run(0, 50_000).unwrap();
    let mut writer = Writer::new(Vec::new(), &Meta::default(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&Process::default()).unwrap();
    let thread = Thread {
        process,
        tid: 1,
        vcpu: None,
        name: String::new(),
    };
    let thread = writer.add_thread(&thread).unwrap();
    writer.sync_code(program.code()).unwrap();
    let sides = SideStreams::default();
    let chunk = encode_chunk(thread, &steps, program.code(), &sides, RECORDING_LEVEL);
    writer.write_chunk(&chunk.unwrap()).unwrap();
    fs::write(path, writer.finish(&[]).unwrap()).unwrap();
}

fn vlbr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_corpus_is_blessed_checked_and_a_change_is_on_the_first_screen() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trace(&dir.join("a.vlt"), 1);
    fs::write(dir.join("corpus.toml"), CONFIG).unwrap();

    let listed = stdout(&vlbr(dir, &["corpus", "list", "."]));
    let sum = "1 traces and 0 scenes, 4 configurations; 0 scenarios\n";
    assert!(listed.ends_with(sum), "{listed}");
    let missing = vlbr(dir, &["corpus", "check", "."]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stdout(&missing).contains("golden/a.golden is missing"));
    assert!(vlbr(dir, &["corpus", "bless", "."]).status.success());
    let passed = vlbr(dir, &["corpus", "check", ".", "-j", "1"]);
    assert_eq!(stdout(&passed), "4 equal, 0 not\n");
    assert!(passed.status.success());

    let golden = dir.join("golden/a.golden");
    let text = fs::read_to_string(&golden).unwrap();
    let old = text
        .lines()
        .find(|line| line.starts_with("pushes "))
        .unwrap();
    fs::write(&golden, text.replacen(old, "pushes 12345", 1)).unwrap();
    let failed = vlbr(dir, &["corpus", "check", ".", "--junit", "report.xml"]);
    assert_eq!(failed.status.code(), Some(1));
    let screen = stdout(&failed);
    let first: Vec<&str> = screen.lines().take(24).collect();
    assert_eq!(first[0], "a under haswell any,u");
    let new = old.strip_prefix("pushes ").unwrap();
    assert_eq!(first[1], format!("  pushes: old 12345, new {new}"));
    assert!(first.contains(&"haswell any,u: 1 of 1 differ"));
    assert!(first.contains(&"3 equal, 1 not"));
    let junit = fs::read_to_string(dir.join("report.xml")).unwrap();
    assert!(
        junit.contains("tests=\"4\" skipped=\"0\" failures=\"1\" errors=\"0\""),
        "{junit}"
    );

    let json = vlbr(
        dir,
        &["corpus", "check", ".", "--format", "json", "--shard", "1/2"],
    );
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let checked = json["checked"].as_array().unwrap();
    assert_eq!(checked.len(), 2);
    assert_eq!(checked[0]["verdict"], "differs");
    assert_eq!(checked[0]["changes"][0]["what"], "pushes");
    assert_eq!(checked[1]["configuration"], "skylake any,u");

    for arguments in [
        &["corpus", "check", ".", "--shard", "3/2"][..],
        &["corpus", "bless", ".", "--shard", "1/2"],
        &["corpus", "check", "absent"],
    ] {
        let output = vlbr(dir, arguments);
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_share_that_is_not_reached_is_an_error_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trace(&dir.join("a.vlt"), 1);
    write_trace(&dir.join("b.vlt"), 2);
    let same = vlbr(dir, &["diff", "a.vlt", "a.vlt", "--at-least", "1"]);
    assert!(same.status.success());
    let text = stdout(&same);
    assert!(
        text.contains("edge overlap: 1.000000\nfirst divergence: none"),
        "{text}"
    );
    let other = vlbr(dir, &["diff", "a.vlt", "b.vlt", "--at-least", "0.9"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(stdout(&other).contains("first divergence: thread 0, after "));
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(
        error.contains("the edge overlap is 0.") && error.contains("below 0.9"),
        "{error}"
    );
    let json = vlbr(dir, &["diff", "a.vlt", "b.vlt", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["divergence"]["kind"], "control-flow");
    assert_eq!(json["a"]["kind"], "trace");
    assert!(json["overlap"].as_f64().unwrap() < 0.9);
    assert!(json["functions"].as_array().unwrap().len() > 1);
    let share = vlbr(dir, &["diff", "a.vlt", "b.vlt", "--at-least", "2"]);
    assert!(!share.status.success());
}
