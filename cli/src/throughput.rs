//! `vlbr throughput`

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use vlbr_timing::bound::{BlockModel, Repetition};
use vlbr_timing::report::{BlockReport, Judged, JudgedRow, Row, explain, judge};
use vlbr_timing::{Environment, Microarchitecture, microarchitectures};
use vlbr_traces::export::{ExportError, OutputFile};

use crate::args::TextOrJson;
use crate::common::{self, Outcome};
use crate::throughput_input::{self, Input};

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputKind {
    /// One block in hexadecimal: 480fafc3, or 48 0f af c3, or \x48\x0f\xaf\xc3.
    Hex,
    /// Assembly text for `as`; # LLVM-MCA-BEGIN and # LLVM-MCA-END mark regions.
    Asm,
    /// An ELF file; --start and --stop say which part.
    Elf,
    /// Lines of `hex,cycles` or `hex`.
    Csv,
}

/// `vlbr throughput`
#[derive(Debug, Args)]
pub(crate) struct ThroughputArgs {
    /// Code in hexadecimal, a file of it, assembly text, ELF:SYMBOL, or a CSV of hex,cycles; `-` is
    /// standard input.
    #[arg(required_unless_present = "cpu", value_name = "INPUT")]
    pub(crate) input: Option<String>,
    /// What the input is; without it the file tells.
    #[arg(short = 'x', long = "input", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<InputKind>,
    /// Core, by its name or a processor's; `list` lists them.
    #[arg(long, default_value = "skylake", value_name = "NAME")]
    pub(crate) cpu: String,
    /// The block is a hot loop, delivered by uop cache or loop queue where they can hold it; without it,
    /// copies of the block one behind the other.
    #[arg(long = "loop")]
    pub(crate) hot_loop: bool,
    /// A loop on a processor whose microcode mends the JCC erratum (Skylake to Cascade Lake): the uop
    /// cache does not hold branches that touch a boundary of 32 bytes.
    #[arg(long, requires = "hot_loop")]
    pub(crate) jcc_erratum: bool,
    /// Registers and memory hold what BHive's profiler puts there, and predictions are what its counter
    /// reads.
    #[arg(long)]
    pub(crate) bhive: bool,
    /// First address of an ELF file's code: SYMBOL, SYMBOL+0x10 or 0xADDRESS.
    #[arg(long, value_name = "PLACE")]
    pub(crate) start: Option<String>,
    /// Address behind the code; without it the end of the symbol.
    #[arg(long, value_name = "PLACE", requires = "start")]
    pub(crate) stop: Option<String>,
    /// Of many measured blocks, rows with the largest errors to show [default: 10].
    #[arg(long, value_name = "N")]
    pub(crate) worst: Option<usize>,
    /// Write predictions as hex,cycles.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the output.
    #[arg(short, long, requires = "output")]
    pub(crate) force: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
}

/// A core as listed.
#[derive(Serialize)]
struct CoreRow<'c> {
    name: &'c str,
    basis: &'static str,
    aliases: &'c [String],
    title: &'c str,
}

/// Rows with the largest errors, unless asked for.
const WORST: usize = 10;

/// Predictions of many blocks.
#[derive(Serialize)]
struct ManyReport<'r> {
    core: &'r str,
    basis: &'static str,
    repetition: &'static str,
    environment: &'static str,
    blocks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<ScoreReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    worst: Vec<WorstRow>,
    /// Without measurements the predictions are the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    predictions: Vec<PredictedRow>,
}

/// Agreement with measurements; errors are shares.
#[derive(Serialize)]
struct ScoreReport {
    rows: usize,
    mape: f64,
    median: f64,
    signed_median: f64,
    /// `None`: no two rows differ in both.
    kendall_tau: Option<f64>,
}

#[derive(Serialize)]
struct WorstRow {
    line: usize,
    measured: f64,
    predicted: f64,
    binds: &'static str,
    hex: String,
}

#[derive(Serialize)]
struct PredictedRow {
    line: usize,
    cycles: f64,
    binds: &'static str,
    hex: String,
}

/// Runs the subcommand.
pub(crate) fn run(args: &ThroughputArgs) -> Outcome {
    if args.cpu == "list" {
        return list(args.format);
    }
    let Some(input) = &args.input else {
        return Err("what code? Give it in hexadecimal, or name a file".into());
    };
    let core = microarchitectures().named(&args.cpu).ok_or_else(|| {
        let name = &args.cpu;
        format!("no timing model of {name:?}; vlbr throughput --cpu list shows them")
    })?;
    if args.jcc_erratum && core.name() != "skylake" {
        let name = core.name();
        return Err(
            format!("--jcc-erratum: {name} does not have it, Skylake to Cascade Lake do").into(),
        );
    }
    if let Some(output) = &args.output {
        if output == Path::new("-") {
            return Err(
                "-o needs a file; lines of hex alone give hex,cycles on standard output".into(),
            );
        }
        common::replaceable(output, args.force)?;
        if common::same_file(Path::new(input), output) {
            return Err(format!("{}: is the input", output.display()).into());
        }
    }
    let read = throughput_input::read(args, input)?;
    let environment = match args.bhive {
        true => Environment::Bhive,
        false => Environment::Unknown,
    };
    let repetition = match args.hot_loop {
        true => Repetition::Loop,
        false => Repetition::Unrolled,
    };
    let mut core = core.clone();
    core.pipeline.jcc_erratum |= args.jcc_erratum;
    let mut model = BlockModel::new(&core, environment);
    model.limit_uop_cache();
    match read {
        Input::Blocks { name, codes } => {
            measured(args, false)?;
            let mut reports = Vec::new();
            for code in &codes {
                let report = explain(&mut model, code, repetition)
                    .map_err(|error| format!("{name}: {error}"))?;
                reports.push(report);
            }
            if let Some(output) = &args.output {
                let rows = codes.iter().zip(&reports);
                write(output, rows.map(|(c, r)| (c.bytes.as_slice(), r.cycles)))?;
            }
            show_blocks(&reports, args.format)?;
        }
        Input::Rows { name, rows } => {
            measured(args, rows[0].cycles.is_some())?;
            let start = Instant::now();
            let judged =
                judge(&mut model, &rows, repetition).map_err(|error| format!("{name}:{error}"))?;
            let seconds = start.elapsed().as_secs_f64().max(1e-9);
            if let Some(output) = &args.output {
                let pairs = rows.iter().zip(&judged.rows);
                write(
                    output,
                    pairs.map(|(row, j)| (row.bytes.as_slice(), j.cycles)),
                )?;
            }
            let report = many(
                &model,
                repetition,
                &rows,
                &judged,
                args.worst.unwrap_or(WORST),
            );
            match args.format {
                TextOrJson::Json => common::print_json(&report)?,
                TextOrJson::Text => common::print(&many_text(&report, &rows, &judged, args)?)?,
            }
            // Not part of the result, which is the same at every run. Nothing is left to do if standard
            // error is gone.
            let _ = writeln!(
                io::stderr(),
                "{}, {:.0} a second on one core",
                blocks(rows.len()),
                rows.len() as f64 / seconds
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses to tell errors of what was not measured.
fn measured(args: &ThroughputArgs, is: bool) -> Result<(), String> {
    match args.worst {
        Some(_) if !is => Err("--worst: the input has no measured cycles".to_owned()),
        _ => Ok(()),
    }
}

fn blocks(count: usize) -> String {
    format!("{count} {}", if count == 1 { "block" } else { "blocks" })
}

fn list(format: TextOrJson) -> Outcome {
    let row = |core: &'static Microarchitecture| CoreRow {
        name: core.name(),
        basis: core.basis.name(),
        aliases: core.aliases(),
        title: core.title(),
    };
    let rows: Vec<CoreRow<'_>> = microarchitectures().all().iter().map(row).collect();
    if format == TextOrJson::Json {
        common::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    writeln!(out, "{:<12} {:<40} processors", "# --cpu", "basis")?;
    for row in &rows {
        writeln!(out, "{:<12} {:<40} {}", row.name, row.basis, row.title)?;
        writeln!(out, "{:<12} also: {}", "", row.aliases.join(" "))?;
    }
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn show_blocks(reports: &[BlockReport], format: TextOrJson) -> Result<(), Box<dyn Error>> {
    match format {
        TextOrJson::Json => common::print_json(&reports),
        TextOrJson::Text => {
            let texts: Vec<String> = reports.iter().map(BlockReport::to_string).collect();
            common::print(&texts.join("\n"))
        }
    }
}

fn many<'r>(
    model: &BlockModel<'r>,
    repetition: Repetition,
    rows: &[Row],
    judged: &Judged,
    worst: usize,
) -> ManyReport<'r> {
    let worst_row = |at: usize| WorstRow {
        line: rows[at].line,
        measured: rows[at].cycles.unwrap_or_default(),
        predicted: judged.rows[at].cycles,
        binds: judged.rows[at].part.name(),
        hex: hex(&rows[at].bytes),
    };
    let predicted = |(row, own): (&Row, &JudgedRow)| PredictedRow {
        line: row.line,
        cycles: own.cycles,
        binds: own.part.name(),
        hex: hex(&row.bytes),
    };
    let predictions = match judged.score {
        Some(_) => Vec::new(),
        None => rows.iter().zip(&judged.rows).map(predicted).collect(),
    };
    ManyReport {
        core: model.core().name(),
        basis: model.core().basis.name(),
        repetition: repetition.name(),
        environment: model.environment().name(),
        blocks: rows.len(),
        score: judged.score.map(|score| ScoreReport {
            rows: score.rows,
            mape: score.mape,
            median: score.median,
            signed_median: score.signed,
            kendall_tau: score.tau,
        }),
        worst: judged
            .worst(rows, worst)
            .into_iter()
            .map(worst_row)
            .collect(),
        predictions,
    }
}

fn many_text(
    report: &ManyReport<'_>,
    rows: &[Row],
    judged: &Judged,
    args: &ThroughputArgs,
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let Some(score) = &report.score else {
        // Without measurements the predictions are the result.
        if args.output.is_none() {
            writeln!(out, "hex,cycles")?;
            for (row, own) in rows.iter().zip(&judged.rows) {
                writeln!(out, "{},{}", hex(&row.bytes), own.cycles)?;
            }
        }
        return Ok(out);
    };
    writeln!(
        out,
        "{} on {} ({}), {}{}",
        blocks(report.blocks),
        report.core,
        report.basis,
        report.repetition,
        if args.bhive {
            ", as BHive's profiler measures"
        } else {
            ""
        }
    )?;
    writeln!(out, "{:<14} {:.2} %", "MAPE", score.mape * 100.0)?;
    writeln!(out, "{:<14} {:.2} %", "median error", score.median * 100.0)?;
    writeln!(
        out,
        "{:<14} {:+.2} %",
        "signed median",
        score.signed_median * 100.0
    )?;
    let tau = score.kendall_tau.map(|tau| format!("{tau:.4}"));
    let tau = tau.unwrap_or_else(|| "-".to_owned());
    writeln!(out, "{:<14} {tau}", "Kendall's tau")?;
    if !report.worst.is_empty() {
        writeln!(
            out,
            "\n{:>7} {:>9} {:>9}  {:<10} worst",
            "line", "measured", "predicted", "binds"
        )?;
    }
    for row in &report.worst {
        writeln!(
            out,
            "{:>7} {:>9.2} {:>9.2}  {:<10} {}",
            row.line, row.measured, row.predicted, row.binds, row.hex
        )?;
    }
    Ok(out)
}

fn write<'b>(path: &Path, rows: impl Iterator<Item = (&'b [u8], f64)>) -> Result<(), ExportError> {
    let mut file = OutputFile::create(path)?;
    let mut text = String::from("hex,cycles\n");
    for (bytes, cycles) in rows {
        text += &format!("{},{cycles}\n", hex(bytes));
    }
    file.write_all(text.as_bytes())
        .map_err(|source| ExportError::File {
            path: path.to_owned(),
            source,
        })?;
    file.commit()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
