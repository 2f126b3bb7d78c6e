//! `vlbr scenario`

use std::fmt::Write;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vlbr_lbr::Profile;
use vlbr_scenario::{ExportError, Report};

use crate::args::{ScenarioCommand, TextOrJson};
use crate::common::{self, Outcome};
use crate::vm;

/// Runs the subcommand.
pub(crate) fn run(command: &ScenarioCommand) -> Outcome {
    match command {
        ScenarioCommand::Run {
            paths,
            policy_file,
            format,
        } => check(paths, policy_file, *format),
        ScenarioCommand::Export {
            paths,
            cpu,
            output,
            force,
        } => export(paths, cpu, output, *force),
    }
}

/// `vlbr scenario export`
fn export(paths: &[PathBuf], cpus: &[String], output: &Path, force: bool) -> Outcome {
    let cpus = cpus
        .iter()
        .map(|name| Profile::named(name))
        .collect::<Result<Vec<_>, _>>()?;
    let said = output.display();
    common::replaceable(output, force)?;
    let files = vlbr_scenario::discover(paths)?;
    if files.iter().any(|file| common::same_file(file, output)) {
        return Err(format!("{said}: is one of the scenarios").into());
    }
    // Written beside the output and renamed when whole.
    let partial = common::beside(output);
    let written = File::create_new(&partial)
        .map_err(ExportError::Io)
        .and_then(|file| vlbr_scenario::export(paths, &cpus, &mut BufWriter::new(file)))
        .and_then(|summary| {
            std::fs::rename(&partial, output)?;
            Ok(summary)
        });
    let summary = match written {
        Ok(summary) => summary,
        Err(error) => {
            let _ = std::fs::remove_file(&partial);
            return Err(match error {
                ExportError::Io(error) => format!("{said}: {error}").into(),
                error => error.into(),
            });
        }
    };
    eprintln!(
        "[ vlbr scenario export: {} scenarios, {} cases -> {said} ]",
        common::count(summary.scenarios as u64),
        common::count(summary.cases as u64)
    );
    Ok(ExitCode::SUCCESS)
}

fn check(paths: &[PathBuf], policy_files: &[PathBuf], format: TextOrJson) -> Outcome {
    let (catalog, _) = vm::catalog_with(policy_files)?;
    let report = vlbr_scenario::run_with(paths, &catalog)?;
    if format == TextOrJson::Json {
        common::print_json(&report)?;
    } else {
        common::print(&text(&report)?)?;
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(report: &Report) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for file in report.files.iter().filter(|file| !file.failures.is_empty()) {
        for failure in &file.failures {
            let device = match (failure.device, &failure.policy) {
                (Some(device), _) => format!(", {device}"),
                (None, Some(policy)) => format!(", {policy}"),
                (None, None) => String::new(),
            };
            writeln!(
                out,
                "{}:{}: {}{device}: {}\n    expected {}\n    found    {}",
                file.file.display(),
                failure.line,
                failure.profile,
                failure.step,
                failure.expected,
                failure.found
            )?;
        }
    }
    writeln!(
        out,
        "{} scenarios, {} runs on processors, each on the fast and the literal device, {} of hosts: {} passed, {} failed",
        report.files.len(),
        report.runs(),
        report.host_runs(),
        report.files.len() - report.failed_files(),
        report.failed_files()
    )?;
    Ok(out)
}
