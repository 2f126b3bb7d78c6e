//! Fits the instruction tables to measured blocks and prints the error on blocks that the fit did
//! not see, beside that of the tables alone.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vlbr_timing::bound::{BlockModel, Bound, Part, Repetition};
use vlbr_timing::fit::{FitOptions, MeasuredBlock, cross_validate, fit, read_measured};
use vlbr_timing::score::{Score, score};
use vlbr_timing::{Environment, Microarchitecture, microarchitectures};

#[derive(Parser)]
#[command(about, name = "fit-timing")]
struct Arguments {
    /// Core: skylake, haswell.
    core: String,
    /// CSV of `hex,cycles` with a line of column names.
    blocks: PathBuf,
    /// Parts of the blocks; each is predicted by a fit to the others. 0: no cross-validation.
    #[arg(long, default_value_t = 5)]
    folds: usize,
    /// Fit to all blocks and write the changed forms here.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Further CSVs of `hex,cycles`: predictions of other tools, compared over the blocks they have.
    #[arg(long)]
    peer: Vec<PathBuf>,
    /// Print so many of the worst blocks.
    #[arg(long, default_value_t = 0)]
    worst: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fit-timing: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let core = microarchitectures()
        .named(&arguments.core)
        .ok_or_else(|| {
            let known = microarchitectures().names();
            format!("no core {:?} (known: {known})", arguments.core)
        })?
        .without_fit();
    let blocks = read(&arguments.blocks)?;
    let measured: Vec<f64> = blocks.iter().map(|b| b.cycles).collect();

    println!("{}, {} blocks", core.name(), blocks.len());
    let bounds = bounds(&core, Environment::Bhive, &blocks)?;
    let tables = cycles(&core, &bounds, |b| b.cycles());
    print("tables only", &tables, &measured);
    ablations(&core, &blocks, &bounds, &measured)?;
    binding(&bounds, &tables, &measured);

    let mut predicted = tables;
    let options = FitOptions::default();
    if arguments.folds > 0 {
        for (number, fold) in (1..).zip(cross_validate(&core, &blocks, arguments.folds, &options)) {
            println!(
                "fold {number}: {} blocks held out, {} forms changed, bias {:.3}, MAPE inside {:.2} %",
                fold.rows.len(),
                fold.changed,
                fold.bias,
                fold.inside * 100.0
            );
            for (&row, &cycles) in fold.rows.iter().zip(&fold.cycles) {
                predicted[row] = cycles;
            }
        }
        print("fitted, out of fold", &predicted, &measured);
    }
    for path in &arguments.peer {
        compare(path, &blocks, &predicted)?;
    }
    worst(&blocks, &predicted, arguments.worst);
    if let Some(path) = &arguments.write {
        write(path, &core, &blocks, &options)?;
    }
    Ok(())
}

fn read(path: &PathBuf) -> Result<Vec<MeasuredBlock>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    read_measured(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn bounds(
    core: &Microarchitecture,
    environment: Environment,
    blocks: &[MeasuredBlock],
) -> Result<Vec<Bound>, vlbr_timing::LowerError> {
    let mut model = BlockModel::new(core, environment);
    let start = std::time::Instant::now();
    let found: Result<Vec<Bound>, _> = blocks
        .iter()
        .map(|b| model.bound(&b.bytes, Repetition::Unrolled))
        .collect();
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    eprintln!("{:.0} blocks per second", blocks.len() as f64 / seconds);
    found
}

fn cycles(core: &Microarchitecture, bounds: &[Bound], of: impl Fn(&Bound) -> f32) -> Vec<f64> {
    let bias = core.parameters.bias;
    bounds
        .iter()
        .map(|b| f64::from((of(b) + bias).max(0.01)))
        .collect()
}

fn print(name: &str, predicted: &[f64], measured: &[f64]) {
    let pairs: Vec<(f64, f64)> = predicted
        .iter()
        .copied()
        .zip(measured.iter().copied())
        .collect();
    let Score {
        rows,
        mape,
        median,
        tau,
        signed,
    } = score(&pairs);
    println!(
        "{name:30} {rows:6} blocks  MAPE {:5.2} %  median {:5.2} %  tau {tau:.4}  signed {:+.2} %",
        mape * 100.0,
        median * 100.0,
        signed * 100.0,
        tau = tau.unwrap_or(f64::NAN)
    );
}

/// The error of the tables without each part and rule.
fn ablations(
    core: &Microarchitecture,
    blocks: &[MeasuredBlock],
    with: &[Bound],
    measured: &[f64],
) -> Result<(), Box<dyn std::error::Error>> {
    for part in Part::ALL {
        if with.iter().any(|b| b.of(part) > 0.0) {
            let predicted = cycles(core, with, |b| b.without(part).cycles());
            print(&format!("  without {}", part.name()), &predicted, measured);
        }
    }
    let mut changed = core.clone();
    changed.parameters.bias = 0.0;
    print(
        "  without bias",
        &cycles(&changed, with, |b| b.cycles()),
        measured,
    );
    type Change = fn(&mut Microarchitecture);
    let changes: [(&str, Change); 6] = [
        ("move elimination", |c| {
            c.parameters.eliminate = false;
            c.parameters.eliminate_vector = false;
        }),
        ("fusion of indexed loads", |c| {
            c.parameters.fuse_indexed = false
        }),
        ("a fast load", |c| {
            c.parameters.load_fast = c.parameters.load
        }),
        ("blocked forwarding", |c| {
            c.parameters.forward_blocked = c.parameters.forward;
        }),
        ("new pages", |c| c.parameters.page = 0.0),
        ("length-changing prefixes", |c| c.parameters.lcp = 0),
    ];
    for (name, change) in changes {
        let mut changed = core.clone();
        change(&mut changed);
        let found = bounds(&changed, Environment::Bhive, blocks)?;
        let predicted = cycles(&changed, &found, |b| b.cycles());
        print(&format!("  without {name}"), &predicted, measured);
    }
    let found = bounds(core, Environment::Unknown, blocks)?;
    let predicted = cycles(core, &found, |b| b.cycles());
    print("  registers unknown at entry", &predicted, measured);
    Ok(())
}

/// Which part binds how often, with the error there.
fn binding(bounds: &[Bound], predicted: &[f64], measured: &[f64]) {
    for part in Part::ALL {
        let rows: Vec<usize> = (0..bounds.len())
            .filter(|&row| bounds[row].binding().0 == part)
            .collect();
        if !rows.is_empty() {
            let pick = |of: &[f64]| -> Vec<f64> { rows.iter().map(|&row| of[row]).collect() };
            let name = format!("  bound by {}", part.name());
            print(&name, &pick(predicted), &pick(measured));
        }
    }
}

/// Scores another tool and this model over the blocks that the tool's file has.
fn compare(path: &PathBuf, blocks: &[MeasuredBlock], predicted: &[f64]) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let rows: std::collections::HashMap<String, usize> = (0..)
        .zip(blocks)
        .map(|(row, block)| (to_hex(&block.bytes), row))
        .collect();
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    let mut measured = Vec::new();
    for line in text.lines().skip(1) {
        let mut columns = line.split(',');
        let row = columns.next().and_then(|hex| rows.get(hex));
        let cycles = columns.next().and_then(|c| c.trim().parse::<f64>().ok());
        if let (Some(&row), Some(cycles)) = (row, cycles) {
            theirs.push(cycles);
            ours.push(predicted[row]);
            measured.push(blocks[row].cycles);
        }
    }
    println!("{}", path.display());
    print("  its predictions", &theirs, &measured);
    print("  this model", &ours, &measured);
    Ok(())
}

fn worst(blocks: &[MeasuredBlock], predicted: &[f64], count: usize) {
    let error = |row: usize| {
        let measured = blocks[row].cycles.max(1e-9);
        (predicted[row] - measured).abs() / measured
    };
    let mut rows: Vec<usize> = (0..blocks.len()).collect();
    rows.sort_by(|&a, &b| error(b).total_cmp(&error(a)).then(a.cmp(&b)));
    for &row in rows.iter().take(count) {
        println!(
            "{:9.2} measured {:9.2} predicted  {}",
            blocks[row].cycles,
            predicted[row],
            to_hex(&blocks[row].bytes)
        );
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(
    path: &PathBuf,
    core: &Microarchitecture,
    blocks: &[MeasuredBlock],
    options: &FitOptions,
) -> Result<(), String> {
    let rows: Vec<usize> = (0..blocks.len()).collect();
    let fitted = fit(core, blocks, &rows, options);
    let mut text = format!(
        "# Forms on {} as fitted by fit-timing to measured blocks of BHive (MIT), over the tables.\n\
         # bias {:.3}\n",
        core.name(),
        fitted.core.parameters.bias
    );
    for form in &fitted.changed {
        text += &format!("{form} {}\n", fitted.core.forms.get(*form));
    }
    let temporary = path.with_extension("part");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|e| format!("{}: {e}", path.display()))
}
