//! `vlbr scenario`

use std::fmt::Write;
use std::process::ExitCode;

use vlbr_scenario::Report;

use crate::args::{ScenarioCommand, TextOrJson};
use crate::common::{self, Outcome};

/// Runs the subcommand.
pub(crate) fn run(command: &ScenarioCommand) -> Outcome {
    let ScenarioCommand::Run { paths, format } = command;
    let report = vlbr_scenario::run(paths)?;
    if *format == TextOrJson::Json {
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
            let device = failure
                .device
                .map_or_else(String::new, |device| format!(", {device}"));
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
        "{} scenarios on {} profiles in all, each on both devices: {} passed, {} failed",
        report.files.len(),
        report.runs(),
        report.files.len() - report.failed_files(),
        report.failed_files()
    )?;
    Ok(out)
}
