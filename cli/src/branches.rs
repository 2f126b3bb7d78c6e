//! `vlbr branches`

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use vlbr_replay::{BranchInput, BranchOptions, BranchReport, KindCount};
use vlbr_timing::predict::{PredictorConfig, predictors};
use vlbr_traces::files::read_text;

use crate::args::TextOrJson;
use crate::branch_args::BranchesArgs;
use crate::common::{self, MAX_TOML, Outcome, count};
use crate::replay::region;

/// Runs the subcommand.
pub(crate) fn run(args: &BranchesArgs) -> Outcome {
    if BranchInput::is_cbp(&args.file)? {
        if args.from.is_some() || args.to.is_some() || args.salvage {
            return Err("--from, --to and --salvage are of traces that vlbr recorded".into());
        }
        return of(args, &BranchInput::Cbp(args.file.clone()), 0);
    }
    let trace = common::open(&args.file, args.salvage)?;
    let region = region(&trace, args.from.as_deref(), args.to.as_deref())?;
    of(
        args,
        &BranchInput::Trace(&trace, region),
        trace.instructions(),
    )
}

fn of(args: &BranchesArgs, input: &BranchInput<'_>, total: u64) -> Outcome {
    if let Some(output) = &args.cbp {
        return export(args, input, total, output);
    }
    let options = BranchOptions {
        predictor: predictor(args)?,
        shared: args.shared,
        warmup: args.warmup,
        limit: args.instructions,
        worst: args.worst,
    };
    let bar = common::instruction_bar(total, "predicting");
    let mut progress = |done| bar.set_position(done);
    let report = vlbr_replay::branches(input, &options, &mut progress)?;
    bar.finish_and_clear();
    match args.format {
        TextOrJson::Json => common::print_json(&report)?,
        TextOrJson::Text => common::print(&table(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn export(args: &BranchesArgs, input: &BranchInput<'_>, total: u64, output: &Path) -> Outcome {
    common::replaceable(output, args.force)?;
    if common::same_file(&args.file, output) {
        return Err(format!("{}: is the trace itself", output.display()).into());
    }
    let bar = common::instruction_bar(total, "writing");
    let mut progress = |done| bar.set_position(done);
    let written = vlbr_replay::export_cbp(input, args.instructions, output, &mut progress)?;
    bar.finish_and_clear();
    eprintln!(
        "[ vlbr branches: {} instructions -> {} ]",
        count(written),
        output.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The predictor that the arguments ask for.
fn predictor(args: &BranchesArgs) -> Result<PredictorConfig, Box<dyn Error>> {
    let Some(name) = &args.predictor else {
        let profile = common::profile(&args.cpu)?;
        let found = predictors().named(profile.name());
        return found.cloned().ok_or_else(|| {
            format!(
                "no predictor is known of {:?}; --predictor takes one of: {}",
                profile.name(),
                predictors().names()
            )
            .into()
        });
    };
    let path = Path::new(name);
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        let text = read_text(path, MAX_TOML).map_err(|error| format!("{name}: {error}"))?;
        return Ok(PredictorConfig::from_toml(&text).map_err(|error| format!("{name}: {error}"))?);
    }
    predictors().named(name).cloned().ok_or_else(|| {
        format!(
            "there is no predictor {name:?}; there are: {}",
            predictors().names()
        )
        .into()
    })
}

fn table(report: &BranchReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, report);
    out
}

fn write_table(out: &mut String, report: &BranchReport) -> std::fmt::Result {
    writeln!(out, "# ran       : {}", report.command)?;
    writeln!(
        out,
        "# counted   : {} instructions, behind {} of warm-up",
        count(report.instructions),
        count(report.warmup)
    )?;
    writeln!(
        out,
        "# predictor : {}, {}",
        report.predictor.name,
        if report.shared {
            "one for all threads"
        } else {
            "one for each thread"
        }
    )?;
    let config = &report.predictor;
    writeln!(out, "#   directions: {}", config.direction)?;
    writeln!(out, "#   targets   : {}", config.indirect)?;
    writeln!(out, "#   returns   : {}", config.return_stack)?;
    writeln!(out, "#   BTB       : {}", config.btb)?;
    if let Some(damage) = &report.damage {
        writeln!(out, "# lost      : everything behind {damage}")?;
    }
    writeln!(
        out,
        "#\n#{:>14}  {:>15}  {:>15}  {:>13}  {:>7}  {:>7}  {:>12}",
        "kind", "branches", "taken", "mispredicted", "rate", "MPKI", "BTB misses"
    )?;
    for kind in report.kinds.iter().chain([&report.total]) {
        write_kind(out, kind)?;
    }
    if report.far > 0 {
        writeln!(out, "# far transfers, not predicted: {}", count(report.far))?;
    }
    writeln!(
        out,
        "#\n# {} branches; the worst:\n#{:>7}  {:>13}  {:>15}  {:>7}  {:>7}  {:<13}  branch",
        count(report.places as u64),
        "share",
        "mispredicted",
        "retired",
        "taken",
        "rate",
        "kind"
    )?;
    for worst in &report.worst {
        writeln!(
            out,
            "{:>7.2}%  {:>13}  {:>15}  {:>6.2}%  {:>6.2}%  {:<13}  {}",
            100.0 * worst.share,
            count(worst.mispredicted),
            count(worst.branches),
            100.0 * worst.taken as f64 / worst.branches as f64,
            100.0 * worst.rate,
            worst.kind,
            worst.symbol
        )?;
    }
    if report.unplaced > 0 {
        writeln!(
            out,
            "# of branches beyond the table of places: {} mispredicted",
            count(report.unplaced)
        )?;
    }
    Ok(())
}

fn write_kind(out: &mut String, kind: &KindCount) -> std::fmt::Result {
    let number = |value: Option<f64>, unit: &str| match value {
        Some(value) => format!("{value:.3}{unit}"),
        None => "-".to_owned(),
    };
    writeln!(
        out,
        "{:>15}  {:>15}  {:>15}  {:>13}  {:>7}  {:>7}  {:>12}",
        kind.kind,
        count(kind.branches),
        count(kind.taken),
        count(kind.mispredicted),
        number(kind.rate.map(|rate| 100.0 * rate), "%"),
        number(kind.mpki, ""),
        count(kind.btb_missed)
    )
}
