//! perf2bolt on perf.data and on the pre-aggregated profile.

use std::path::Path;
use std::process::Command;

use vlbr_traces::export::BoltSink;

use super::perf_data;
use super::program::{Options, Program, run, tool, walk};

const PLAIN: Options = Options {
    call_stack: false,
    types: false,
    hw_idx: false,
};

/// Function names with a profile, and the report that perf2bolt printed.
fn perf2bolt(tool: &Path, program: &Program, profile: &Path, preaggregated: bool) -> String {
    let out = profile.with_extension("fdata");
    let mut command = Command::new(tool);
    command
        .arg(&program.path)
        .arg("-p")
        .arg(profile)
        .arg("-o")
        .arg(&out);
    if preaggregated {
        command.arg("--pa");
    }
    let report = run(&mut command);
    assert!(!report.contains("WARNING: high"), "{report}");
    let fdata = std::fs::read_to_string(&out).expect("a profile");
    for name in ["main", "middle", "leaf", "fib"] {
        assert!(
            fdata.contains(&format!(" {name} ")),
            "{name} has no profile:\n{fdata}\n{report}"
        );
    }
    report
}

#[test]
fn perf2bolt_takes_perf_data_without_mismatch() {
    if tool("perf").is_none() {
        return;
    }
    for version in [16, 19] {
        let Some(perf2bolt_path) = tool(&format!("/usr/lib/llvm-{version}/bin/perf2bolt")) else {
            continue;
        };
        for pie in [false, true] {
            let folder = tempfile::tempdir().expect("folder");
            let Some(program) = Program::build(folder.path(), pie) else {
                return;
            };
            let typed = Options {
                types: true,
                hw_idx: true,
                ..PLAIN
            };
            for options in [PLAIN, typed] {
                let data = perf_data(folder.path(), &program, options);
                let report = perf2bolt(&perf2bolt_path, &program, &data, false);
                assert!(report.contains("read 400 samples and "), "{report}");
                for line in ["mismatching disassembled", "out of range"] {
                    let found = report.lines().find(|l| l.contains(line)).expect("reported");
                    assert!(found.ends_with(": 0 (0.0%)"), "{found}");
                }
            }
        }
    }
}

#[test]
fn perf2bolt_takes_the_preaggregated_profile() {
    for version in [16, 19] {
        let Some(perf2bolt_path) = tool(&format!("/usr/lib/llvm-{version}/bin/perf2bolt")) else {
            continue;
        };
        for pie in [false, true] {
            let folder = tempfile::tempdir().expect("folder");
            let Some(program) = Program::build(folder.path(), pie) else {
                return;
            };
            let path = folder.path().join("preaggregated");
            let mut text = Vec::new();
            let mut sink = BoltSink::new(&mut text, program.image.clone(), &program.path);
            walk(&program, PLAIN, &mut sink).expect("aggregated");
            std::fs::write(&path, &text).expect("written");
            perf2bolt(&perf2bolt_path, &program, &path, true);
        }
    }
}
