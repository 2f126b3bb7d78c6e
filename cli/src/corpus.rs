//! `vlbr corpus`

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use vlbr_replay::corpus::{CheckReport, Checked, Corpus, Progress, Shard, Verdict};
use vlbr_traces::export::{ExportError, OutputFile};

use crate::args::{CorpusArgs, CorpusCommand, TextOrJson};
use crate::common::{self, Outcome};
use crate::{corpus_scenarios, corpus_scenes};

/// Changes shown of the first configuration that differs.
const CHANGES: usize = 8;
/// Old and new values shorter than this together stand on one line.
const SHORT: usize = 56;
/// Lines of the summary, so that it stays on the first screen.
const SUMMARY: usize = 10;

/// Runs the subcommand.
pub(crate) fn run(command: &CorpusCommand) -> Outcome {
    match command {
        CorpusCommand::Check(args) => check(args),
        CorpusCommand::Bless(args) => bless(args),
        CorpusCommand::List(args) => list(args),
    }
}

fn open(args: &CorpusArgs) -> Result<Corpus, Box<dyn Error>> {
    let mut corpus = Corpus::open(&args.dir)?;
    if !args.only.is_empty() {
        corpus.keep_only(&args.only)?;
    }
    Ok(corpus)
}

fn shard(args: &CorpusArgs) -> Result<Shard, Box<dyn Error>> {
    Ok(match &args.shard {
        Some(text) => text.parse()?,
        None => Shard::WHOLE,
    })
}

/// A bar of configurations on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{bar:40} {pos}/{len} configurations, {elapsed}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn advance(bar: &ProgressBar) -> impl Fn(Progress) + Sync {
    |progress| {
        bar.set_length(progress.of as u64);
        bar.inc(1);
    }
}

fn check(args: &CorpusArgs) -> Outcome {
    let corpus = open(args)?;
    let (scenes, shard) = (corpus_scenes::scenes(&corpus)?, shard(args)?);
    let scenarios = corpus_scenarios::scenarios(&corpus)?;
    let bar = bar();
    let mut report = corpus.check(args.jobs, shard, &advance(&bar))?;
    bar.reset();
    let of_scenes = advance(&bar);
    corpus_scenes::check(&corpus, &scenes, args.jobs, shard, &of_scenes, &mut report)?;
    bar.reset();
    let before = corpus_scenes::configurations(&corpus, &scenes);
    corpus_scenarios::check(&scenarios, before, shard, &advance(&bar), &mut report);
    bar.finish_and_clear();
    if let Some(path) = &args.junit {
        write_junit(&report, path)?;
    }
    if args.format == TextOrJson::Json {
        common::print_json(&report)?;
    } else {
        let mut out = String::new();
        text(&mut out, &report)?;
        common::print(&out)?;
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first failure with its changes and a summary fit on a screen; the other failures follow.
fn text(out: &mut String, report: &CheckReport) -> fmt::Result {
    let failures: Vec<&Checked> = report.failures().collect();
    if let Some(first) = failures.first() {
        writeln!(out, "{} under {}", first.trace, first.configuration)?;
        match &first.verdict {
            Verdict::Equal => {}
            Verdict::Failed { reason } => writeln!(out, "  {reason}")?,
            Verdict::Differs { changes } => {
                for change in changes.iter().take(CHANGES) {
                    let (old, new) = (&change.old, &change.new);
                    if old.len() + new.len() < SHORT {
                        writeln!(out, "  {}: old {old}, new {new}", change.what)?;
                    } else {
                        writeln!(out, "  {}", change.what)?;
                        writeln!(out, "    old {old}\n    new {new}")?;
                    }
                }
                if changes.len() > CHANGES {
                    writeln!(out, "  and {} more", changes.len() - CHANGES)?;
                }
            }
        }
        writeln!(out)?;
    }
    for stale in &report.stale {
        writeln!(out, "{stale}")?;
    }
    summary(out, report, &failures)?;
    if failures.len() > 1 {
        writeln!(out, "\nthe others, each with what changed first:")?;
    }
    for failure in failures.iter().skip(1) {
        write!(out, "{} under {}: ", failure.trace, failure.configuration)?;
        match &failure.verdict {
            Verdict::Equal => writeln!(out)?,
            Verdict::Failed { reason } => writeln!(out, "{reason}")?,
            Verdict::Differs { changes } => match changes.first() {
                Some(change) => {
                    writeln!(out, "{}: {} -> {}", change.what, change.old, change.new)?;
                }
                None => writeln!(out)?,
            },
        }
    }
    Ok(())
}

fn summary(out: &mut String, report: &CheckReport, failures: &[&Checked]) -> fmt::Result {
    let mut by_configuration: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for checked in &report.checked {
        let sums = by_configuration.entry(&checked.configuration).or_default();
        sums.0 += usize::from(checked.verdict != Verdict::Equal);
        sums.1 += 1;
    }
    let failed = by_configuration.iter().filter(|(_, sums)| sums.0 > 0);
    let failed: Vec<_> = failed.collect();
    for (configuration, (differ, all)) in failed.iter().take(SUMMARY) {
        writeln!(out, "{configuration}: {differ} of {all} differ")?;
    }
    if failed.len() > SUMMARY {
        writeln!(out, "and {} configurations more", failed.len() - SUMMARY)?;
    }
    let equal = report.checked.len() - failures.len();
    write!(out, "{equal} equal, {} not", failures.len())?;
    if !report.stale.is_empty() {
        write!(out, ", {} stale", report.stale.len())?;
    }
    writeln!(out)
}

fn bless(args: &CorpusArgs) -> Outcome {
    if args.shard.is_some() || args.junit.is_some() {
        return Err("corpus bless writes whole files: no --shard and no --junit".into());
    }
    let corpus = open(args)?;
    let scenes = corpus_scenes::scenes(&corpus)?;
    let scenarios = corpus_scenarios::scenarios(&corpus)?;
    let bar = bar();
    let mut blessed = corpus.bless(args.jobs, &advance(&bar))?;
    bar.reset();
    corpus_scenes::bless(&scenes, args.jobs, &advance(&bar), &mut blessed)?;
    bar.reset();
    corpus_scenarios::bless(&scenarios, &advance(&bar), &mut blessed)?;
    bar.finish_and_clear();
    if args.format == TextOrJson::Json {
        common::print_json(&blessed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    for path in &blessed.written {
        writeln!(out, "wrote {}", path.display())?;
    }
    for path in &blessed.removed {
        writeln!(out, "removed {}", path.display())?;
    }
    writeln!(out, "{} unchanged", blessed.unchanged)?;
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// A trace, a scene or scenarios as `corpus list` shows them.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    /// Of scenarios the first of the folders.
    file: &'a Path,
    licence: Option<&'a str>,
    command: Option<&'a str>,
    configurations: Vec<&'a str>,
}

fn list(args: &CorpusArgs) -> Outcome {
    if args.shard.is_some() || args.junit.is_some() {
        return Err("corpus list takes no --shard and no --junit".into());
    }
    let corpus = open(args)?;
    let traces = corpus.traces.iter().map(|trace| Listed {
        name: &trace.name,
        file: &trace.file,
        licence: trace.licence.as_deref(),
        command: trace.command.as_deref(),
        configurations: trace
            .configurations
            .iter()
            .map(|configuration| configuration.name.as_str())
            .collect(),
    });
    let scenes = corpus_scenes::scenes(&corpus)?;
    let listed_scenes = scenes.iter().map(|scene| Listed {
        name: &scene.name,
        file: &scene.file,
        licence: None,
        command: None,
        configurations: scene.policies.iter().map(|policy| policy.name()).collect(),
    });
    let scenarios = corpus_scenarios::scenarios(&corpus)?;
    let listed_scenarios = scenarios.iter().map(|(golden, files)| Listed {
        name: &golden.name,
        file: golden.paths.first().map_or(Path::new(""), |(_, path)| path),
        licence: None,
        command: None,
        configurations: files.iter().map(|file| file.name.as_str()).collect(),
    });
    let traces: Vec<Listed<'_>> = traces
        .chain(listed_scenes)
        .chain(listed_scenarios)
        .collect();
    if args.format == TextOrJson::Json {
        common::print_json(&traces)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    for trace in &traces {
        write!(out, "{} ({}", trace.name, trace.file.display())?;
        if let Some(licence) = trace.licence {
            write!(out, ", {licence}")?;
        }
        writeln!(out, ")")?;
        if let Some(command) = trace.command {
            writeln!(out, "  recorded by: {command}")?;
        }
        for configuration in &trace.configurations {
            writeln!(out, "  {configuration}")?;
        }
    }
    let all: usize = traces.iter().map(|trace| trace.configurations.len()).sum();
    let of_scenarios: usize = scenarios.iter().map(|(_, files)| files.len()).sum();
    let configurations = all - of_scenarios;
    let (traces, scenes) = (corpus.traces.len(), scenes.len());
    writeln!(
        out,
        "{traces} traces and {scenes} scenes, {configurations} configurations; {of_scenarios} scenarios"
    )?;
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a JUnit report: a suite for each trace, scene or folder of scenarios, a case for each configuration
/// or file.
fn write_junit(report: &CheckReport, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut suites: Vec<TestSuite> = Vec::new();
    for checked in &report.checked {
        if suites
            .last()
            .is_none_or(|suite| suite.name.as_str() != checked.trace)
        {
            suites.push(TestSuite::new(checked.trace.clone()));
        }
        let status = match &checked.verdict {
            Verdict::Equal => TestCaseStatus::success(),
            Verdict::Failed { reason } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(reason.clone());
                status
            }
            Verdict::Differs { changes } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                if let Some(first) = changes.first() {
                    status.set_message(first.what.clone());
                }
                let lines = changes
                    .iter()
                    .map(|c| format!("{}\n  old {}\n  new {}\n", c.what, c.old, c.new));
                status.set_description(lines.collect::<String>());
                status
            }
        };
        if let Some(suite) = suites.last_mut() {
            suite.add_test_case(TestCase::new(checked.configuration.clone(), status));
        }
    }
    if !report.stale.is_empty() {
        let mut suite = TestSuite::new("golden files");
        for stale in &report.stale {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(stale.clone());
            suite.add_test_case(TestCase::new(stale.clone(), status));
        }
        suites.push(suite);
    }
    let mut junit = Report::new("vlbr corpus check");
    junit.add_test_suites(suites);
    let mut file = OutputFile::create(path)?;
    file.write_all(junit.to_string()?.as_bytes())
        .map_err(ExportError::from)?;
    file.commit()?;
    Ok(())
}
