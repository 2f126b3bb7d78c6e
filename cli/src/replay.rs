//! `vlbr replay`

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vlbr_host::perf::parse_branch_filter;
use vlbr_pmu::SkidUnit;
use vlbr_replay::{Entrance, Format, Names, Region, ReplayError, Report, Session, SessionOptions};
use vlbr_traces::files::is_descriptor;
use vlbr_traces::perfdata::BranchSampleType;
use vlbr_traces::vlt::{Scope, Trace};

use crate::args::{DeviceArgs, ReplayArgs, ReplayFormat, TimingArg};
use crate::common::{self, Outcome, count};

/// Runs the subcommand.
pub(crate) fn run(args: &ReplayArgs) -> Outcome {
    if args.format == Some(ReplayFormat::BoltExact) {
        refuse_sampling(&args.device)?;
    }
    let trace = common::open(&args.file, args.device.salvage)?;
    let mut options = session_options(&trace, &args.device)?;
    options.eager = args.eager;
    let session = Session::new(&trace, options)?;
    let bar = common::instruction_bar(trace.instructions(), "replaying");
    let mut progress = |done| bar.set_position(done);
    let format = match (args.format, &args.output) {
        (Some(format), _) => Some(format),
        (None, Some(_)) => Some(ReplayFormat::PerfData),
        (None, None) => None,
    };
    let Some(format) = format else {
        let report = vlbr_replay::report(&session, args.top, &mut progress)?;
        bar.finish_and_clear();
        common::print(&table(&report))?;
        return Ok(ExitCode::SUCCESS);
    };
    let kind = match format {
        ReplayFormat::PerfData => Format::PerfData,
        ReplayFormat::PerfScript => Format::PerfScript,
        ReplayFormat::Bolt => Format::Bolt,
        ReplayFormat::BoltExact => Format::BoltExact,
        ReplayFormat::Folded => Format::Folded,
        ReplayFormat::Json => Format::Json,
    };
    let path = match &args.output {
        Some(path) => path.clone(),
        None if kind == Format::PerfData => "perf.data".into(),
        None => "-".into(),
    };
    if matches!(kind, Format::Bolt | Format::BoltExact) {
        say_which_program(&trace);
    } else if kind == Format::PerfData && trace.meta().scope == Scope::System {
        eprintln!(
            "vlbr: perf takes this kernel for the one it runs on unless told --kallsyms FILE"
        );
    }
    if common::same_file(&args.file, &path) {
        return Err(format!("{}: is the trace itself", path.display()).into());
    }
    if kind == Format::PerfData && is_descriptor(&path) {
        return Err(format!("{}: not a regular file", path.display()).into());
    }
    let arguments = std::env::args_os();
    let cmdline: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let summary = match vlbr_replay::export(&session, kind, &path, &cmdline, &mut progress) {
        Err(error) if path == Path::new("-") && common::is_broken_pipe(&error) => {
            return Ok(ExitCode::SUCCESS);
        }
        result => result?,
    };
    bar.finish_and_clear();
    if kind != Format::BoltExact {
        eprintln!(
            "[ vlbr replay: {} samples, {} branch entries of {} -> {} ]",
            count(summary.samples),
            count(summary.entries),
            vlbr_replay::describe(&session),
            path.display()
        );
        if let Some(timing) = session.timing() {
            eprintln!("[ vlbr replay: time by the {timing} ]");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a profile of every branch leaves out.
fn refuse_sampling(args: &DeviceArgs) -> Result<(), String> {
    for (given, name) in [
        (!args.event.is_empty(), "--event"),
        (args.count.is_some(), "--count"),
        (args.freq.is_some(), "--freq"),
        (args.branch_filter.is_some(), "--branch-filter"),
        (args.call_graph.is_some(), "--call-graph"),
        (args.skid.is_some(), "--skid"),
        (args.timing.timing != TimingArg::None, "--timing"),
        (args.timing.warmup > 0, "--warmup"),
    ] {
        if given {
            return Err(format!(
                "bolt-exact has every branch and no samples: without {name}"
            ));
        }
    }
    Ok(())
}

/// A BOLT profile is of the first program; names those it leaves out.
fn say_which_program(trace: &Trace) {
    let paths = trace.processes().iter().map(|process| &process.path);
    let mut programs: Vec<&PathBuf> = Vec::new();
    for path in paths.filter(|path| !path.as_os_str().is_empty()) {
        if !programs.contains(&path) {
            programs.push(path);
        }
    }
    if let [first, others @ ..] = &programs[..]
        && !others.is_empty()
    {
        eprintln!(
            "vlbr: the profile is of {} alone, not of {} other program(s): {}{}",
            first.display(),
            others.len(),
            others[0].display(),
            if others.len() > 1 { " ..." } else { "" }
        );
    }
}

/// The session that the arguments ask for.
pub(crate) fn session_options(
    trace: &Trace,
    args: &DeviceArgs,
) -> Result<SessionOptions, Box<dyn Error>> {
    let mut options = SessionOptions::new(common::profile(&args.cpu)?);
    options.device = common::device_options(args.options.as_deref())?;
    if args.call_graph.is_some() {
        // perf record --call-graph lbr: user call stacks without flags and cycles.
        options.branches = BranchSampleType::USER
            | BranchSampleType::CALL_STACK
            | BranchSampleType::NO_FLAGS
            | BranchSampleType::NO_CYCLES
            | BranchSampleType::HW_INDEX;
    } else if let Some(names) = &args.branch_filter {
        options.branches = parse_branch_filter(names)?;
    }
    options.event = (!args.event.is_empty()).then(|| args.event.join(","));
    options.period = args.count;
    options.frequency = args.freq;
    options.counters = common::pmu_options(args.pmu.pmu_options.as_deref())?;
    if let Some(skid) = args.skid {
        options.counters.skid = skid;
        options.counters.skid_unit = SkidUnit::Instructions;
    }
    options.clock = common::clock(args.pmu.clock);
    options.timing = common::timing(&args.timing)?;
    options.jobs = args.jobs;
    options.region = region(trace, args.from.as_deref(), args.to.as_deref())?;
    Ok(options)
}

/// The part of the trace between two symbols or addresses.
pub(crate) fn region(
    trace: &Trace,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Region, Box<dyn Error>> {
    if from.is_none() && to.is_none() {
        return Ok(Region::whole());
    }
    let names = Names::new(trace)?;
    let start = from
        .map(|name| Entrance::new(trace, &names, name))
        .transpose()?;
    let end = to
        .map(|name| Entrance::new(trace, &names, name))
        .transpose()?;
    let not_reached =
        |name: Option<&str>| ReplayError::NotReached(name.unwrap_or_default().to_owned());
    let region = Region::between(trace, start.as_ref(), end.as_ref())
        .map_err(ReplayError::from)?
        .ok_or_else(|| not_reached(from))?;
    if to.is_some() && !region.has_end() {
        return Err(not_reached(to).into());
    }
    Ok(region)
}

/// The report for people.
fn table(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, report);
    out
}

fn write_table(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "# ran       : {}", report.command)?;
    writeln!(
        out,
        "# recorded  : {}, {} process(es), {} thread(s), {} instructions",
        report.engine,
        report.processes,
        report.threads,
        count(report.instructions)
    )?;
    writeln!(
        out,
        "# processor : {}, {} LBR entries",
        report.processor, report.depth
    )?;
    writeln!(out, "# sampled   : {}", report.sampling)?;
    if let Some(timing) = &report.timing {
        writeln!(out, "# timing    : {timing}")?;
    }
    if let Some(cycles) = report.cycles {
        let rate = report.instructions as f64 / cycles.max(1) as f64;
        let cycles = count(cycles);
        writeln!(
            out,
            "# cycles    : {cycles}, {rate:.2} instructions per cycle"
        )?;
    }
    writeln!(
        out,
        "# events    : {}; LBR inserts {}{}",
        count(report.events),
        count(report.pushes),
        if report.pops > 0 {
            format!(", pops {}", count(report.pops))
        } else {
            String::new()
        }
    )?;
    for (event, counted) in &report.group {
        writeln!(out, "# counted   : {:>16} {event}", count(*counted))?;
    }
    writeln!(
        out,
        "# samples   : {} with {} entries; {} entries empty or removed by perf's software \
         filter; {} stacks shorter than the LBR",
        count(report.samples),
        count(report.entries),
        count(report.removed),
        count(report.short)
    )?;
    match &report.damage {
        None => writeln!(out, "# lost      : nothing")?,
        Some(damage) => writeln!(out, "# lost      : everything behind {damage}")?,
    }
    writeln!(
        out,
        "#\n# {} edges; the hottest:",
        count(report.edges as u64)
    )?;
    writeln!(
        out,
        "#{:>7}  {:>12}  {:>8}  from -> to",
        "share", "count", "mispred"
    )?;
    for edge in &report.hottest {
        writeln!(
            out,
            "{:>7.2}%  {:>12}  {:>8}  {} -> {}",
            100.0 * edge.share,
            count(edge.count),
            count(edge.mispredicted),
            edge.from,
            edge.to
        )?;
    }
    writeln!(
        out,
        "#\n# LBR of the first thread at its end, youngest entry first:"
    )?;
    for (index, entry) in report.last_stack.iter().enumerate() {
        writeln!(
            out,
            "{index:>4}  {:#018x} -> {:#018x}  {} -> {}",
            entry.from, entry.to, entry.from_symbol, entry.to_symbol
        )?;
    }
    Ok(())
}
