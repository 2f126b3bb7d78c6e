//! perf: script, report in its branch, branch-history and call-graph modes.

use std::path::{Path, PathBuf};
use std::process::Command;

use vlbr_traces::explain::{PairClass, explain_perf_data};
use vlbr_traces::export::{FoldedSink, PerfScriptSink, ScriptFields, StackSource};
use vlbr_traces::perfdata::PerfFile;
use vlbr_traces::symbols::Symbolizer;

use super::program::{Options, Program, run, tool, walk};
use super::{info, perf_data, perf_data_of};

const PLAIN: Options = Options {
    call_stack: false,
    types: false,
    hw_idx: false,
};

struct Setup {
    perf: PathBuf,
    folder: tempfile::TempDir,
    program: Program,
}

impl Setup {
    fn new(pie: bool) -> Option<Self> {
        let perf = tool("perf")?;
        let folder = tempfile::tempdir().expect("folder");
        let program = Program::build(folder.path(), pie)?;
        Some(Self {
            perf,
            folder,
            program,
        })
    }

    fn data(&self, options: Options) -> PathBuf {
        perf_data(self.folder.path(), &self.program, options)
    }

    fn perf(&self, data: &Path, arguments: &[&str]) -> String {
        let (command, rest) = arguments.split_first().expect("a perf command");
        run(Command::new(&self.perf)
            .arg(command)
            .arg("-i")
            .arg(data)
            .args(rest))
    }
}

fn script(setup: &Setup, options: Options, fields: ScriptFields) -> String {
    let mut text = Vec::new();
    let mut sink = PerfScriptSink::new(&mut text, &info(options), fields);
    walk(&setup.program, options, &mut sink).expect("printed");
    String::from_utf8(text).expect("UTF-8")
}

#[track_caller]
fn assert_same_lines(ours: &str, theirs: &str) {
    for (number, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", number + 1);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn perf_script_prints_the_text_that_we_export() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let typed = Options {
        types: true,
        hw_idx: true,
        ..PLAIN
    };
    for options in [PLAIN, typed] {
        let data = setup.data(options);
        let theirs = setup.perf(&data, &["script", "-F", "ip,brstack"]);
        assert!(theirs.lines().count() >= 400);
        assert_same_lines(&script(&setup, options, ScriptFields::IP_BRSTACK), &theirs);
        let theirs = setup.perf(&data, &["script", "-F", "ip,brstack", "--show-mmap-events"]);
        assert_same_lines(&script(&setup, options, ScriptFields::PROFGEN), &theirs);
        let theirs = setup.perf(
            &data,
            &[
                "script",
                "-F",
                "comm,pid,tid,cpu,time,period,event,ip,brstack",
                "--show-mmap-events",
                "--show-task-events",
            ],
        );
        assert_same_lines(&script(&setup, options, ScriptFields::ALL), &theirs);
    }
}

#[test]
fn perf_script_prints_call_stacks_as_we_export_them() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let options = Options {
        call_stack: true,
        ..PLAIN
    };
    let data = setup.data(options);
    let theirs = setup.perf(&data, &["script", "-F", "ip,brstack"]);
    assert_same_lines(&script(&setup, options, ScriptFields::IP_BRSTACK), &theirs);
}

#[test]
fn the_header_says_what_it_was_given() {
    let Some(setup) = Setup::new(false) else {
        return;
    };
    let data = setup.data(PLAIN);
    let header = setup.perf(&data, &["script", "--header-only"]);
    for line in [
        "# hostname : vlbr",
        "# arch : x86_64",
        "# nrcpus online : 1",
        "# cpudesc : a model of Skylake",
        "# cpuid : GenuineIntel,6,94,3",
        "# cmdline : vlbr replay",
        "# contains samples with branch stack",
        "# cpu pmu capabilities: branches=32",
    ] {
        assert!(header.contains(line), "{line} is not in\n{header}");
    }
    let event = setup.perf(&data, &["evlist", "-v"]);
    assert!(event.contains("br_inst_retired.near_taken"), "{event}");
    assert!(event.contains("config: 0x20c4"), "{event}");
    let ids = setup.perf(&data, &["buildid-list"]);
    let own: String = setup
        .program
        .image
        .build_id()
        .expect("linked with one")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(ids.contains(&own), "{ids}");
}

#[test]
fn perf_report_shows_branches_with_symbols() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let data = setup.data(PLAIN);
    let report = setup.perf(
        &data,
        &[
            "report",
            "-b",
            "--stdio",
            "-F",
            "overhead,symbol_from,symbol_to,mispredict",
        ],
    );
    for name in ["main", "middle", "leaf", "fib"] {
        assert!(
            report.contains(&format!("[.] {name}")),
            "{name} is not in\n{report}"
        );
    }
    assert!(
        report.lines().any(|line| line.trim_end().ends_with('Y')),
        "no mispredicted branch"
    );
    let history = setup.perf(&data, &["report", "--branch-history", "--stdio"]);
    assert!(
        history.contains("middle") && history.contains("leaf"),
        "{history}"
    );
}

#[test]
fn perf_report_shows_lbr_call_graphs() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let data = setup.data(Options {
        call_stack: true,
        ..PLAIN
    });
    let report = setup.perf(
        &data,
        &["report", "--stdio", "-g", "caller", "--no-children"],
    );
    assert!(
        report.contains("main") && report.contains("fib"),
        "{report}"
    );
    let frames = |line: &&str| line.contains("--") || line.trim_start().starts_with('|');
    assert!(
        report.lines().filter(frames).count() > 10,
        "no call graph in\n{report}"
    );
}

#[test]
fn perf_decodes_the_instructions_between_the_entries() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let data = setup.data(PLAIN);
    let text = setup.perf(&data, &["script", "-F", "ip,brstackinsn"]);
    assert!(
        text.contains("insn:") && text.contains("# PRED"),
        "{}",
        &text[..text.len().min(500)]
    );
    assert!(
        !text.contains("mismatch of LBR data"),
        "perf could not follow a straight line"
    );
}

#[test]
fn folded_stacks_are_the_call_stacks_perf_prints() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let options = Options {
        call_stack: true,
        ..PLAIN
    };
    let data = setup.data(options);
    let mut text = Vec::new();
    let mut sink = FoldedSink::new(&mut text, StackSource::CallStackLbr, Symbolizer::new());
    walk(&setup.program, options, &mut sink).expect("folded");
    let mut expected = std::collections::BTreeMap::<String, u64>::new();
    let theirs = setup.perf(&data, &["script", "-F", "comm,ip,sym"]);
    for sample in theirs
        .split("\n\n")
        .map(str::trim)
        .filter(|sample| !sample.is_empty())
    {
        let mut lines = sample.lines();
        let comm = lines.next().expect("a name").trim();
        let mut frames: Vec<&str> = lines
            .map(|line| line.split_whitespace().nth(1).expect("a symbol"))
            .collect();
        frames.push(comm);
        frames.reverse();
        *expected.entry(frames.join(";")).or_default() += 1;
    }
    let expected: String = expected
        .iter()
        .map(|(stack, count)| format!("{stack} {count}\n"))
        .collect();
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

#[test]
fn a_build_id_in_the_mapping_is_taken_by_perf() {
    let Some(setup) = Setup::new(true) else {
        return;
    };
    let mut with_id = info(PLAIN);
    with_id.build_id_in_mmap = true;
    let data = perf_data_of(setup.folder.path(), &setup.program, PLAIN, with_id.clone());
    let theirs = setup.perf(&data, &["script", "-F", "ip,brstack", "--show-mmap-events"]);
    let mut text = Vec::new();
    let mut sink = PerfScriptSink::new(&mut text, &with_id, ScriptFields::PROFGEN);
    walk(&setup.program, PLAIN, &mut sink).expect("printed");
    assert_same_lines(&String::from_utf8_lossy(&text), &theirs);
}

#[test]
fn the_same_calls_write_the_same_bytes() {
    let Some(setup) = Setup::new(false) else {
        return;
    };
    let first = std::fs::read(setup.data(PLAIN)).expect("read");
    let second = std::fs::read(setup.data(PLAIN)).expect("read");
    assert!(first == second);
}

#[test]
fn our_reader_and_decoder_explain_every_pair_that_was_written() {
    for pie in [false, true] {
        let Some(setup) = Setup::new(pie) else { return };
        let mut file = PerfFile::open(&setup.data(PLAIN)).expect("opened");
        let table = explain_perf_data(&mut file, &[&setup.program.path]).expect("explained");
        assert!(table.total() > 10_000);
        assert_eq!(table.count(PairClass::Explained), table.total());
        assert_eq!((table.not_a_branch, table.through_system_call), (0, 0));
    }
}
