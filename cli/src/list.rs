//! `vlbr list`

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
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
