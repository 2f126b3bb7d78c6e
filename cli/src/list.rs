//! `vlbr list`

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use vlbr_cpu::Clock;
use vlbr_lbr::{Interface, Profile, SelectLayout};

use crate::args::{ListArgs, TextOrJson};
use crate::common::{self, Outcome};

#[derive(Serialize)]
struct Row<'p> {
    name: &'p str,
    aliases: &'p [String],
    title: &'p str,
    models: Vec<String>,
    interface: &'static str,
    depth: u32,
    format: u8,
    select: &'static str,
    call_stack: bool,
    near_taken_event: Option<String>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &ListArgs) -> Outcome {
    if let Some(cpu) = &args.events {
        return events(&common::profile(cpu)?, args.format);
    }
    let rows: Vec<Row<'_>> = Profile::all().iter().map(row).collect();
    if args.format == TextOrJson::Json {
        common::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    writeln!(
        out,
        "{:<18} {:>5} {:>6}  {:<12} {:<10} {:<22} processor",
        "# --cpu", "depth", "format", "filter", "call stack", "aliases"
    )?;
    for row in &rows {
        writeln!(
            out,
            "{:<18} {:>5} {:>6}  {:<12} {:<10} {:<22} {}",
            row.name,
            row.depth,
            format!("{:#x}", row.format),
            row.select,
            if row.call_stack { "yes" } else { "no" },
            row.aliases.join(","),
            row.title
        )?;
    }
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn row(profile: &Profile) -> Row<'_> {
    let (interface, select) = match profile.interface() {
        Interface::Arch(_) => ("arch", "LBR_CTL"),
        Interface::Legacy(legacy) => (
            "legacy",
            match legacy.select {
                SelectLayout::None => "none",
                SelectLayout::Nehalem => "nehalem",
                SelectLayout::SandyBridge => "sandy-bridge",
                SelectLayout::Haswell => "haswell",
            },
        ),
    };
    Row {
        name: profile.name(),
        aliases: profile.aliases(),
        title: profile.title(),
        models: profile
            .models()
            .iter()
            .map(|model| format!("{:02X}_{:02X}", model.family, model.model))
            .collect(),
        interface,
        depth: profile.max_depth(),
        format: profile.format().value(),
        select,
        call_stack: profile.has_call_stack(),
        near_taken_event: near_taken(profile.name()),
    }
}

/// The raw event of taken branches that a replay samples on.
fn near_taken(cpu: &str) -> Option<String> {
    let pmu = vlbr_pmu::Profile::named(cpu).ok()?;
    let options = vlbr_pmu::Options::default();
    let event = pmu
        .parse_event("br_inst_retired.near_taken", &options)
        .ok()?;
    Some(format!("r{:x}", event.encoding.config))
}

/// An event of a processor.
#[derive(Serialize)]
struct EventRow<'p> {
    name: &'p str,
    raw: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_counter: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<&'p [u8]>,
    counted: &'static str,
}

/// What a trace must have for an event to be counted.
fn counted(event: &vlbr_pmu::EventEntry) -> &'static str {
    use vlbr_pmu::{Source, SourceSet};
    let retirement = vlbr_cpu::Feed::sources(&vlbr_cpu::Code::new(), Clock::None);
    let clocks = vlbr_cpu::Feed::sources(&vlbr_cpu::Code::new(), Clock::Instructions);
    let inserts = SourceSet::of(Source::LbrInserts);
    let needed = event.counts().needed();
    if event.counts().is_empty() {
        "no"
    } else if needed.is_subset_of(retirement.without(inserts)) {
        "yes"
    } else if needed.is_subset_of(retirement) {
        "with an LBR"
    } else if needed.is_subset_of(clocks) {
        "with --timing or --clock"
    } else if needed.is_subset_of(retirement.with(SourceSet::MISPREDICTIONS)) {
        "with --timing scoreboard"
    } else {
        "no"
    }
}

fn events(profile: &Profile, format: TextOrJson) -> Outcome {
    let pmu = vlbr_pmu::Profile::named(profile.name())?;
    let rows: Vec<EventRow<'_>> = pmu
        .events()
        .iter()
        .map(|event| EventRow {
            name: event.name(),
            raw: format!("r{:x}", event.select().bits()),
            fixed_counter: event.fixed(),
            counters: event.counters(),
            counted: counted(event),
        })
        .collect();
    if format == TextOrJson::Json {
        common::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = format!(
        "# {}: retirement and what goes with it; Intel's list has more, of which a trace knows \
         nothing.\n# perf's names: instructions branches branch-misses cycles ref-cycles bus-cycles\n",
        pmu.title()
    );
    writeln!(
        out,
        "{:<40} {:<7} {:<12} counted",
        "# event", "raw", "counters"
    )?;
    for row in &rows {
        let counters = match (row.fixed_counter, row.counters) {
            (Some(i), _) => format!("FIXED_CTR{i}"),
            (None, Some(list)) => {
                let list: Vec<_> = list.iter().map(|n| format!("PMC{n}")).collect();
                list.join(",")
            }
            (None, None) => "PMC".to_owned(),
        };
        writeln!(
            out,
            "{:<40} {:<7} {counters:<12} {}",
            row.name, row.raw, row.counted
        )?;
    }
    common::print(&out)?;
    Ok(ExitCode::SUCCESS)
}
