//! `vlbr gen`

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;
use vlbr_traces::files::read_text;
use vlbr_traces::generate::{
    Generated, Measured, Row, Spec, Unit, compare, fit, generate, measure, measure_spec,
};
use vlbr_traces::vlt::{OpenOptions, Trace};

use crate::args::{GenArgs, TextOrJson};
use crate::common::{self, Outcome, count};

/// Longest spec that is read, in bytes.
const MAX_SPEC: u64 = 1 << 20;

/// The errors of a fit.
#[derive(Serialize)]
struct Report<'r> {
    input: String,
    output: Option<String>,
    spec_sha256: String,
    instructions: u64,
    rows: &'r [Row],
}

/// Runs the subcommand.
pub(crate) fn run(args: &GenArgs) -> Outcome {
    if let Some(output) = &args.output {
        common::replaceable(output, args.force)?;
        for input in args.spec.iter().chain(&args.like) {
            if common::same_file(input, output) {
                return Err(format!("{}: is the input", output.display()).into());
            }
        }
    }
    let (mut spec, recorded) = source(args)?;
    if let Some(seed) = args.seed {
        spec.seed = seed;
    }
    if let Some(instructions) = args.instructions {
        spec.instructions = instructions;
    }
    if let Some(threads) = args.threads {
        spec.threads = threads;
    }
    spec.check()?;
    if args.print_spec {
        common::print(&spec.to_toml())?;
    }
    if let Some(output) = &args.output {
        let generated = write(&spec, output, args.level)?;
        eprintln!(
            "[ vlbr gen: {} -> {}: {} instructions of {} {}, {} blocks, {} ]",
            spec.name,
            output.display(),
            count(generated.instructions),
            spec.threads,
            match (spec.kernel.is_some(), spec.threads) {
                (true, _) => "vCPU(s)",
                (false, _) => "thread(s)",
            },
            count(generated.blocks),
            HumanBytes(generated.bytes)
        );
    }
    if let (Some((name, recorded)), false) = (recorded, args.print_spec) {
        report(args, &spec, &name, &recorded)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a recorded trace and what it measures.
type Recorded = (String, Measured);

/// The spec, and what the trace measures that it was fitted to.
fn source(args: &GenArgs) -> Result<(Spec, Option<Recorded>), Box<dyn Error>> {
    if let Some(path) = &args.like {
        let trace = common::open(path, args.salvage)?;
        let bar = common::instruction_bar(trace.instructions(), "measuring");
        let measured = measure(&trace, &mut |done| bar.set_position(done));
        bar.finish_and_clear();
        let measured = measured.map_err(common::about(path))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let bar = common::bar(1, "programs", "fitting");
        let spec = fit(&measured, &format!("like {stem}"), &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let spec = spec.map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok((spec, Some((path.display().to_string(), measured))));
    }
    let path = args.spec.as_deref().ok_or("no spec")?;
    let name = path.display();
    let text = read_text(path, MAX_SPEC).map_err(|error| format!("{name}: {error}"))?;
    let spec = Spec::from_toml(&text).map_err(|error| format!("{name}: {error}"))?;
    Ok((spec, None))
}

/// Writes the trace beside the output and renames it when it is whole.
fn write(spec: &Spec, output: &Path, level: i32) -> Result<Generated, Box<dyn Error>> {
    let partial = common::beside(output);
    let said = partial.display();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
        .map_err(|error| format!("{said}: {error}"))?;
    let bar = common::instruction_bar(spec.total(), "generating");
    let result = generate(spec, file, level, &mut |done| bar.set_position(done))
        .map_err(|error| error.to_string())
        .and_then(|(_, generated)| {
            std::fs::rename(&partial, output).map_err(|error| error.to_string())?;
            Ok(generated)
        });
    bar.finish_and_clear();
    result.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        format!("{}: {error}", output.display()).into()
    })
}

/// Says how far what was generated, or would be, is from the recorded trace.
fn report(
    args: &GenArgs,
    spec: &Spec,
    name: &str,
    recorded: &Measured,
) -> Result<(), Box<dyn Error>> {
    let generated = match &args.output {
        Some(path) => {
            let trace = Trace::open(path, OpenOptions::default()).map_err(common::about(path))?;
            measure(&trace, &mut |_| ()).map_err(common::about(path))?
        }
        None => {
            let bar = common::instruction_bar(spec.total(), "generating");
            let measured = measure_spec(spec, &mut |done| bar.set_position(done));
            bar.finish_and_clear();
            measured?
        }
    };
    let rows = compare(recorded, &generated);
    if args.format == TextOrJson::Json {
        return common::print_json(&Report {
            input: name.to_owned(),
            output: args.output.as_ref().map(|path| path.display().to_string()),
            spec_sha256: spec.digest(),
            instructions: generated.instructions,
            rows: &rows,
        });
    }
    let mut text = format!(
        "\n Fit of {name}, {} instructions generated:\n\n",
        count(generated.instructions)
    );
    let width = rows
        .iter()
        .map(|row| row.parameter.len())
        .max()
        .unwrap_or(0);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  {:<width$}  {:>12}  {:>12}  {:>10}",
        "parameter", "input", "output", "error"
    );
    for row in &rows {
        let (unit, error) = match row.unit {
            Unit::Percent => ("%", "pt"),
            Unit::PerMillion => ("/M", "%"),
            Unit::Average => ("", "%"),
        };
        let number = |value: f64| format!("{value:.2}{unit:<2}");
        let _ = writeln!(
            text,
            "  {:<width$}  {:>12}  {:>12}  {:>+8.2} {error}",
            row.parameter,
            number(row.input),
            number(row.output),
            row.difference
        );
    }
    common::print(&text)
}
