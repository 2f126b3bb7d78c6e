//! `vlbr explain`

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use vlbr_traces::explain::{PairClass, explain_perf_data};
use vlbr_traces::perfdata::PerfFile;

use crate::args::{ExplainArgs, TextOrJson};
use crate::common::{self, Outcome, count};

#[derive(Serialize)]
struct Row {
    class: &'static str,
    pairs: u64,
}

#[derive(Serialize)]
struct Table {
    pairs: u64,
    explained_share: f64,
    classes: Vec<Row>,
    not_a_branch: u64,
    through_system_call: u64,
}

/// Runs the subcommand.
pub(crate) fn run(args: &ExplainArgs) -> Outcome {
    let name = args.file.display();
    let mut perf = PerfFile::open(&args.file).map_err(|error| format!("{name}: {error}"))?;
    let pairs = explain_perf_data(&mut perf, &[args.binary.as_path()])
        .map_err(|error| format!("{name}: {error}"))?;
    let table = Table {
        pairs: pairs.total(),
        explained_share: pairs.explained_share(),
        classes: PairClass::ALL
            .iter()
            .map(|&class| Row {
                class: class.label(),
                pairs: pairs.count(class),
            })
            .collect(),
        not_a_branch: pairs.not_a_branch,
        through_system_call: pairs.through_system_call,
    };
    if args.format == TextOrJson::Json {
        common::print_json(&table)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    writeln!(
        out,
        "# pairs of consecutive entries, older TO to newer FROM: {}",
        count(table.pairs)
    )?;
    for row in &table.classes {
        let share = 100.0 * row.pairs as f64 / table.pairs.max(1) as f64;
        writeln!(
            out,
            "{:>12}  {share:>6.2}%  {}",
            count(row.pairs),
            row.class
        )?;
    }
    writeln!(
        out,
        "# of the explained: {} end at no branch (interrupt or exception), {} pass a system call",
        count(table.not_a_branch),
        count(table.through_system_call)
    )?;
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}
