//! The checks in `e2e/`: the command with the real QEMU, perf, BOLT, llvm-profgen and clang.
//!
//! Each script prints PASS and FAIL lines. A script whose tools are missing is skipped with a
//! message, unless `CI=true`: there it fails.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Status with which a script says that a tool it needs is missing.
const SKIPPED: i32 = 77;

fn run(script: &str) {
    let vlbr = Path::new(env!("CARGO_BIN_EXE_vlbr"));
    support::build_plugin(vlbr);
    let scripts: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "e2e"].iter().collect();
    let output = Command::new(scripts.join(script))
        .env("VLBR", vlbr)
        .env("OUT", Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => assert!(text.contains("PASS"), "{script} checked nothing"),
        Some(SKIPPED) => eprintln!("{script} was skipped"),
        _ => panic!("{script} failed: {}", output.status),
    }
}

#[test]
fn perf_shows_stacks_reports_history_and_call_graphs_with_symbols() {
    run("perf.sh");
}

#[test]
fn sqlite_is_sampled_accurately_and_optimised_by_bolt_and_clang() {
    run("sqlite.sh");
}

#[test]
fn recorders_agree_and_bad_endings_say_one_clear_line() {
    run("recorders.sh");
}

#[test]
fn counters_agree_with_an_independent_count_of_single_instructions() {
    run("count.sh");
}

#[test]
fn mispredictions_are_those_of_other_simulators_or_differ_for_a_known_reason() {
    run("predictors.sh");
}

#[test]
fn a_whole_guest_is_recorded_and_shown_with_kernel_symbols() {
    run("system.sh");
}

#[test]
fn the_page_of_overhead_opens_in_a_browser_without_a_word_on_its_console() {
    run("browser.sh");
}

#[test]
fn the_timing_programs_build_and_an_emulators_readings_are_no_measurement() {
    run("calibrate.sh");
}

#[test]
fn vm_transitions_are_timed_in_an_emulator_that_hides_and_found_out() {
    run("calibrate-vmx.sh");
}
