//! `vlbr calibrate`

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vlbr_calibrate::{Calibration, Core, Figure, Options, Provenance, Run, calibrate, parse};
use vlbr_cpu::ledger::{Bound, Class, CostModel};
use vlbr_lbr::{CpuModel, Profile};
use vlbr_traces::export::{ExportError, OutputFile};
use vlbr_traces::files::read_text;

use crate::args::{CalibrateArgs, TextOrJson};
use crate::common::{self, Outcome};

/// Longest file that is read, in bytes.
const MAX_TEXT: u64 = 4 << 20;
/// Name of the base model that comes with the command.
const PUBLISHED: &str = "published";

#[derive(Serialize)]
struct Report<'c> {
    model: &'c str,
    base: &'c str,
    figures: Vec<Row<'c>>,
    skipped: Vec<Skipped<'c>>,
}

#[derive(Serialize)]
struct Row<'c> {
    cost: String,
    low: u32,
    default: u32,
    high: u32,
    class: char,
    /// Rows of readings it is made of; 0 if the base model has it.
    rows: usize,
    source: &'c str,
}

#[derive(Serialize)]
struct Skipped<'c> {
    what: &'c str,
    reason: &'c str,
}

/// Runs the subcommand.
pub(crate) fn run(args: &CalibrateArgs) -> Outcome {
    let base = base(&args.base)?;
    if let Some(path) = &args.output
        && args.files.iter().any(|file| common::same_file(file, path))
    {
        return Err(format!("{}: is one of the readings", path.display()).into());
    }
    let mut runs = Vec::new();
    for path in &args.files {
        let name = path.display();
        let text = read_text(path, MAX_TEXT).map_err(|error| format!("{name}: {error}"))?;
        runs.extend(parse(&text).map_err(|error| format!("{name}: {error}"))?);
    }
    let processors = processors(&runs);
    let calibration = calibrate(
        &runs,
        &Options {
            base: &base,
            allow_virtual: args.allow_virtual,
            processors: &processors,
        },
    )?;
    let toml = calibration.to_toml();
    if let Some(path) = &args.output {
        write(path, &toml)?;
    }
    let report = report(&calibration, &runs, base.name());
    match (args.format, &args.output) {
        (TextOrJson::Json, _) => common::print_json(&report)?,
        (TextOrJson::Text, Some(_)) => common::print(&table(&report)?)?,
        (TextOrJson::Text, None) => {
            common::print(&toml)?;
            // Nothing is left to do if standard error is gone.
            let _ = io::stderr().write_all(table(&report)?.as_bytes());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn base(name: &str) -> Result<CostModel, Box<dyn Error>> {
    if name == PUBLISHED {
        return Ok(CostModel::published().clone());
    }
    let text = read_text(Path::new(name), MAX_TEXT).map_err(|error| format!("{name}: {error}"))?;
    Ok(CostModel::from_toml(&text).map_err(|error| format!("{name}: {error}"))?)
}

/// The profiles of the processor that was timed.
fn processors(runs: &[Run]) -> Vec<&'static str> {
    let Some(run) = runs.first() else {
        return Vec::new();
    };
    let signature = &run.signature;
    if signature.vendor != "GenuineIntel" {
        return Vec::new();
    }
    let Ok(family) = u8::try_from(signature.family) else {
        return Vec::new();
    };
    let model = CpuModel {
        family,
        model: signature.model,
    };
    let names: Vec<_> = Profile::of_model(model).map(Profile::name).collect();
    // Of a hybrid part, big cores come first.
    match (names.as_slice(), signature.core) {
        ([big, _], Core::Core) => vec![big],
        ([_, small], Core::Atom) => vec![small],
        _ => names,
    }
}

fn write(path: &Path, text: &str) -> Result<(), ExportError> {
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes())
        .map_err(|source| ExportError::File {
            path: path.to_owned(),
            source,
        })?;
    file.commit()
}

fn report<'c>(calibration: &'c Calibration, runs: &'c [Run], base: &'c str) -> Report<'c> {
    let skips = runs.iter().flat_map(|run| &run.skips);
    Report {
        model: calibration.model().name(),
        base,
        figures: calibration.figures().iter().map(row).collect(),
        skipped: skips
            .map(|skip| Skipped {
                what: &skip.what,
                reason: &skip.reason,
            })
            .collect(),
    }
}

fn row(figure: &Figure) -> Row<'_> {
    let cost = &figure.cost;
    Row {
        cost: match &figure.processor {
            Some(name) => format!("{}.{name}", figure.item),
            None => figure.item.to_string(),
        },
        low: cost.at(Bound::Low),
        default: cost.default,
        high: cost.at(Bound::High),
        class: match cost.class {
            Class::H => 'H',
            Class::D => 'D',
            Class::E => 'E',
        },
        rows: match figure.provenance {
            Provenance::Readings(rows) => rows,
            Provenance::Base => 0,
        },
        source: &cost.source,
    }
}

fn table(report: &Report<'_>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(
        out,
        "# model {}\n{:<34} {:>7} {:>7} {:>7}  class  from",
        report.model, "# cost", "low", "usual", "high"
    )?;
    for row in &report.figures {
        let from = match row.rows {
            0 => format!("base {}", report.base),
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        writeln!(
            out,
            "{:<34} {:>7} {:>7} {:>7}  {:<5}  {from}",
            row.cost, row.low, row.default, row.high, row.class
        )?;
    }
    for skip in &report.skipped {
        writeln!(out, "not timed: {}: {}", skip.what, skip.reason)?;
    }
    Ok(out)
}
