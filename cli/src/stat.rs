//! `vlbr stat`

use std::fmt::Write;
use std::process::ExitCode;

use vlbr_cpu::Slots;
use vlbr_host::perf::parse_branch_filter;
use vlbr_replay::{BranchMisses, SessionOptions, Stat, ThreadCounts, TimingModel};
use vlbr_traces::perfdata::BranchSampleType;

use crate::args::{StatArgs, TextOrJson};
use crate::common::{self, Outcome, count};
use crate::replay::region;

/// Runs the subcommand.
pub(crate) fn run(args: &StatArgs) -> Outcome {
    let trace = common::open(&args.file, args.salvage)?;
    let mut options = SessionOptions::new(common::profile(&args.cpu)?);
    options.device = common::device_options(args.options.as_deref())?;
    options.counters = common::pmu_options(args.pmu.pmu_options.as_deref())?;
    options.clock = common::clock(args.pmu.clock);
    options.timing = common::timing(&args.timing)?;
    let mut steps = trace.code().steps().iter();
    if args.branches > 0
        && options.timing.model != TimingModel::Scoreboard
        && !steps.any(|step| step.exit.is_mispredicted())
    {
        return Err(
            "--branches: the trace has recorded no misprediction; --timing scoreboard predicts branches"
                .into(),
        );
    }
    options.jobs = args.jobs;
    options.region = region(&trace, args.from.as_deref(), args.to.as_deref())?;
    options.branches = match &args.branch_filter {
        Some(names) => parse_branch_filter(names)?,
        None => BranchSampleType::ANY,
    };
    let lbr = args.branch_any || args.branch_filter.is_some();
    // Every event is counted all the time, so the braces of a group say nothing more.
    let events = (!args.event.is_empty()).then(|| args.event.join(","));
    let events = events.map(|text| match text.contains("}:") {
        true => text,
        false => text.replace(['{', '}'], ""),
    });
    let bar = common::instruction_bar(trace.instructions(), "counting");
    let mut progress = |done| bar.set_position(done);
    let stat = vlbr_replay::stat(
        &trace,
        &options,
        events.as_deref(),
        lbr,
        args.branches,
        &mut progress,
    )?;
    bar.finish_and_clear();
    if args.topdown && stat.slots.is_none() {
        return Err("--topdown: only --timing scoreboard knows issue slots".into());
    }
    let format = if args.json_output {
        TextOrJson::Json
    } else {
        args.format
    };
    let text = match (format, &args.field_separator) {
        (TextOrJson::Json, _) => serde_json::to_string_pretty(&stat)? + "\n",
        (TextOrJson::Text, Some(separator)) => lines(&stat, args, separator),
        (TextOrJson::Text, None) => table(&stat, args),
    };
    common::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// How perf calls a thread or CPU in front of its counts.
fn label(thread: &ThreadCounts) -> String {
    match thread.vcpu {
        Some(vcpu) => format!("CPU{vcpu}"),
        None => {
            let comm = thread.program.rsplit('/').next().unwrap_or_default();
            format!("{comm}-{}", thread.tid)
        }
    }
}

/// Every count with what stands in front of it.
fn rows<'s>(stat: &'s Stat, args: &StatArgs) -> Vec<Row<'s>> {
    let mut rows = Vec::new();
    for (number, event) in stat.events.iter().enumerate() {
        let mut row = |who, count, time| {
            rows.push(Row {
                who,
                count,
                event: &event.event,
                time,
            });
        };
        if args.per_thread {
            for thread in &stat.threads {
                row(label(thread), thread.counts[number], thread.time_ns);
            }
        } else {
            let time = stat.threads.iter().map(|thread| thread.time_ns);
            row(String::new(), event.count, time.sum());
        }
    }
    rows
}

/// A count.
struct Row<'s> {
    /// Thread or vCPU, if it is counted by itself.
    who: String,
    count: u64,
    event: &'s str,
    /// Time that it was counted, in ns.
    time: u64,
}

/// Lines with a separator, as `perf stat -x` prints them.
fn lines(stat: &Stat, args: &StatArgs, separator: &str) -> String {
    let mut out = String::new();
    for row in rows(stat, args) {
        let (count, time) = (row.count.to_string(), row.time.to_string());
        let fields = [&count, "", row.event, &time, "100.00", "", ""];
        if args.per_thread {
            out.push_str(&row.who);
            out.push_str(separator);
        }
        out.push_str(&fields.join(separator));
        out.push('\n');
    }
    out
}

fn table(stat: &Stat, args: &StatArgs) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, stat, args);
    out
}

fn write_table(out: &mut String, stat: &Stat, args: &StatArgs) -> std::fmt::Result {
    writeln!(
        out,
        "\n Performance counter stats for '{}':\n",
        stat.command
    )?;
    let rows = rows(stat, args);
    let width = rows.iter().map(|row| row.who.len()).max().unwrap_or(0);
    for row in &rows {
        let Row {
            who,
            count: number,
            event,
            ..
        } = row;
        let comment = if args.per_thread {
            None
        } else {
            share(stat, event, *number).or_else(|| per_cycle(stat, event, *number))
        };
        let line = format!("{:>18}      {event:<40}", count(*number));
        let who = if width > 0 {
            format!(" {who:<width$}")
        } else {
            String::new()
        };
        let line = format!("{who}{line}{}", comment.unwrap_or_default());
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    if let Some(slots) = stat.slots.filter(|_| args.topdown) {
        write_slots(out, &slots)?;
    }
    write_branches(out, &stat.branches)?;
    let counters: Vec<_> = stat
        .events
        .iter()
        .map(|event| event.counter.as_str())
        .collect();
    writeln!(
        out,
        " {}, counted on {}{}",
        stat.processor,
        counters.join(", "),
        match stat.runs {
            0 | 1 => String::new(),
            runs => format!(" in {runs} runs of the whole trace, nothing scaled"),
        }
    )?;
    if let Some(timing) = &stat.timing {
        writeln!(out, " Time: {timing}")?;
    }
    if stat.warmup > 0 {
        let warmup = count(stat.warmup);
        writeln!(
            out,
            " Not counted: the first {warmup} instructions of each thread"
        )?;
    }
    if stat.nominal_clock {
        writeln!(
            out,
            " Clocks are nominal, one an instruction: no measurement"
        )?;
    }
    if let Some(damage) = &stat.damage {
        writeln!(out, " Not counted: everything behind {damage}")?;
    }
    Ok(())
}

/// The branches that were mispredicted most often.
fn write_branches(out: &mut String, branches: &[BranchMisses]) -> std::fmt::Result {
    if branches.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:>14}  {:>16}  {:>7}  {:>8}  branch",
        "mispredicted", "of", "rate", "MPKI"
    )?;
    for branch in branches {
        let rate = 100.0 * branch.mispredicted as f64 / branch.executed.max(1) as f64;
        writeln!(
            out,
            "{:>14}  {:>16}  {rate:>6.2}%  {:>8.3}  {}",
            count(branch.mispredicted),
            count(branch.executed),
            branch.mpki,
            branch.symbol
        )?;
    }
    writeln!(out)
}

/// What became of the issue slots, as perf's --topdown tells it.
fn write_slots(out: &mut String, slots: &Slots) -> std::fmt::Result {
    let total = slots.total().max(1);
    for (name, part) in [
        ("retiring", slots.retiring),
        ("bad speculation", slots.bad_speculation),
        ("frontend bound", slots.frontend),
        ("backend bound", slots.backend),
    ] {
        let percent = 100.0 * part as f64 / total as f64;
        writeln!(
            out,
            "{:>18}      {name:<16} # {percent:>6.2}% of slots",
            count(part)
        )?;
    }
    writeln!(out)
}

/// perf's comment behind instructions, if cycles of the same levels were counted too.
fn per_cycle(stat: &Stat, event: &str, number: u64) -> Option<String> {
    let (name, levels) = event.split_once(':').unwrap_or((event, ""));
    let cycles = stat.events.iter().find(|other| {
        let (name, of) = other.event.split_once(':').unwrap_or((&other.event, ""));
        ["cycles", "cpu-cycles"].contains(&name) && of == levels
    })?;
    if name != "instructions" || cycles.count == 0 {
        return None;
    }
    let rate = number as f64 / cycles.count as f64;
    Some(format!("  # {rate:>6.2}  insn per cycle"))
}

/// perf's comment behind events of branches, if all branches of the same levels were counted too.
fn share(stat: &Stat, event: &str, number: u64) -> Option<String> {
    let (name, levels) = event.split_once(':').unwrap_or((event, ""));
    let name = name.to_ascii_lowercase();
    if !name.starts_with("br_") && name != "branch-misses" {
        return None;
    }
    let all = stat.events.iter().find(|other| {
        let (name, of) = other.event.split_once(':').unwrap_or((&other.event, ""));
        ["branches", "branch-instructions"].contains(&name) && of == levels
    })?;
    if all.count == 0 {
        return None;
    }
    let percent = 100.0 * number as f64 / all.count as f64;
    Some(format!("  # {percent:>6.2}% of all branches"))
}
