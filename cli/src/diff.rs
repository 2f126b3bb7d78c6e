//! `vlbr diff`

use std::fmt::{self, Write};
use std::process::ExitCode;

use vlbr_replay::diff::{Comparison, Divergence, Kind, Part, Run, Side, diff};

use crate::args::{DiffArgs, TextOrJson};
use crate::common::{self, Outcome, count};

/// Edges shown of each kind.
const EDGES: usize = 8;

/// Notes shown.
const NOTES: usize = 4;

/// Runs the subcommand.
pub(crate) fn run(args: &DiffArgs) -> Outcome {
    if let Some(share) = args.at_least
        && !(0.0..=1.0).contains(&share)
    {
        return Err(format!("--at-least {share}: a share lies between 0 and 1").into());
    }
    let bar = common::instruction_bar(0, "comparing");
    let comparison = diff(&args.a, &args.b, args.top, &mut |done| {
        bar.set_length(done);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    if args.format == TextOrJson::Json {
        common::print_json(&comparison)?;
    } else {
        let mut out = String::new();
        text(&mut out, &comparison)?;
        common::print(&out)?;
    }
    if let Some(least) = args.at_least
        && comparison.overlap < least
    {
        return Err(format!(
            "the edge overlap is {:.6}, below {least}",
            comparison.overlap
        )
        .into());
    }
    Ok(ExitCode::SUCCESS)
}

fn percent(share: f64) -> String {
    format!("{:.3}%", 100.0 * share)
}

fn text(out: &mut String, comparison: &Comparison) -> fmt::Result {
    let Comparison {
        a,
        b,
        overlap,
        common,
        only_a,
        only_b,
        divergence,
        functions,
        notes,
    } = comparison;
    for (letter, side) in [('A', a), ('B', b)] {
        writeln!(out, "{letter}: {}", described(side))?;
    }
    for note in notes.iter().take(NOTES) {
        writeln!(out, "note: {note}")?;
    }
    if notes.len() > NOTES {
        writeln!(out, "and {} notes more", notes.len() - NOTES)?;
    }
    writeln!(out, "edge overlap: {overlap:.6}")?;
    writeln!(out, "first divergence: {}", parted(divergence))?;
    writeln!(
        out,
        "edges: {} in both ({} of A, {} of B), {} only in A ({}), {} only in B ({})",
        common.edges,
        percent(common.share_a),
        percent(common.share_b),
        only_a.edges,
        percent(only_a.share_a),
        only_b.edges,
        percent(only_b.share_b),
    )?;
    for (title, part) in [
        ("edges in both with the largest differences", common),
        ("edges only in A", only_a),
        ("edges only in B", only_b),
    ] {
        edges(out, title, part)?;
    }
    if !functions.is_empty() {
        writeln!(out, "\n{:>9} {:>9} {:>9}  function", "A", "B", "overlap")?;
    }
    for function in functions {
        write!(
            out,
            "{:>9} {:>9} {:>9}  {}",
            percent(function.share_a),
            percent(function.share_b),
            percent(function.overlap),
            function.function
        )?;
        let bracketed = function.function.starts_with('[');
        let object = if bracketed { "" } else { &function.object };
        let space = if bracketed { "" } else { "  " };
        writeln!(out, "{space}{object}")?;
    }
    Ok(())
}

fn described(side: &Side) -> String {
    let kind = match side.kind {
        Kind::Trace => "trace",
        Kind::PerfData => "perf.data",
        Kind::Preaggregated => "pre-aggregated profile",
    };
    let samples = side.samples.map_or_else(String::new, |samples| {
        format!(", {} samples", count(samples))
    });
    format!(
        "{} ({kind}{samples}): {} taken branches over {} edges, {} left out",
        side.file.display(),
        count(side.taken),
        count(side.edges as u64),
        count(side.left_out)
    )
}

fn edges(out: &mut String, title: &str, part: &Part) -> fmt::Result {
    if part.top.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>9} {:>9}  {title}", "A", "B")?;
    for edge in part.top.iter().take(EDGES) {
        writeln!(
            out,
            "{:>9} {:>9}  {} -> {}",
            percent(edge.share_a),
            percent(edge.share_b),
            edge.from,
            edge.to
        )?;
    }
    Ok(())
}

fn parted(divergence: &Divergence) -> String {
    let run = |run: &Option<Run>| {
        run.as_ref().map_or_else(
            || "the thread has ended".to_owned(),
            |run| {
                format!(
                    "from {}, {} instructions, then {}",
                    run.start, run.instructions, run.then
                )
            },
        )
    };
    match divergence {
        Divergence::None { compared } => format!("none ({compared} threads or samples compared)"),
        Divergence::ControlFlow {
            thread,
            instruction,
            a,
            b,
        } => format!(
            "thread {thread}, after {} instructions\n  A: {}\n  B: {}",
            count(*instruction),
            run(a),
            run(b)
        ),
        Divergence::Samples { sample, what, a, b } => {
            format!("sample {sample}, {what}\n  A: {a}\n  B: {b}")
        }
        Divergence::NotCompared => "not looked for, profiles have no order".to_owned(),
    }
}
