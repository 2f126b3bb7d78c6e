//! `vlbr info`

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vlbr_arch::BranchClass;
use vlbr_traces::files::open_regular;
use vlbr_traces::perfdata::{PerfFile, Record};
use vlbr_traces::vlt::{FileFunctions, FileState, Info, Scope, Trace};

use crate::args::{InfoArgs, TextOrJson};
use crate::common::{self, Outcome, count};

/// First bytes of a perf.data file.
const PERF_MAGIC: &[u8; 8] = b"PERFILE2";

/// A trace in numbers.
#[derive(Serialize)]
struct TraceTable<'a> {
    command: String,
    recorder: String,
    engine: String,
    scope: &'static str,
    instructions: u64,
    kernel_instructions: u64,
    user_instructions: u64,
    branches: u64,
    taken_branches: u64,
    transfers: BTreeMap<String, u64>,
    mispredicted: u64,
    gaps: u64,
    steps: u64,
    blocks: u64,
    distinct_steps: u64,
    modes: BTreeMap<String, u64>,
    threads: Vec<ThreadRow>,
    mappings: Vec<MappingRow>,
    names: Option<NamesTable>,
    file_bytes: u64,
    bits_per_instruction: BTreeMap<&'static str, f64>,
    notes: BTreeMap<&'a str, String>,
    damage: Option<String>,
}

#[derive(Serialize)]
struct ThreadRow {
    pid: u32,
    tid: u32,
    vcpu: Option<u32>,
    program: String,
    instructions: u64,
    steps: u64,
    chunks: u64,
}

/// The functions the trace names.
#[derive(Serialize)]
struct NamesTable {
    functions: u64,
    named_files: u64,
    unnamed_files: Vec<UnnamedFile>,
}

#[derive(Serialize)]
struct UnnamedFile {
    path: String,
    reason: &'static str,
}

#[derive(Serialize)]
struct MappingRow {
    pid: u32,
    start: u64,
    length: u64,
    offset: u64,
    path: String,
    build_id: String,
}

/// Runs the subcommand.
pub(crate) fn run(args: &InfoArgs) -> Outcome {
    let mut magic = [0; 8];
    let name = args.file.display();
    let length = open_regular(&args.file)
        .and_then(|file| file.take(8).read(&mut magic))
        .map_err(|error| format!("{name}: {error}"))?;
    if length == 8 && &magic == PERF_MAGIC {
        return perf_data(&args.file, args.format);
    }
    let trace = common::open(&args.file, args.salvage)?;
    let info = Info::collect(&trace).map_err(common::about(&args.file))?;
    let table = table(&trace, &info);
    if args.format == TextOrJson::Json {
        common::print_json(&table)?;
    } else {
        common::print(&text(&table)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table<'a>(trace: &'a Trace, info: &Info) -> TraceTable<'a> {
    let meta = trace.meta();
    let events_apart = |class: &BranchClass| {
        use vlbr_arch::FarKind as F;
        !matches!(
            class,
            BranchClass::Far(
                F::Interrupt | F::Exception | F::DebugException | F::TsxAbort | F::Smi
            )
        )
    };
    let sizes = &info.sizes;
    let bits = |bytes| info.bits_per_instruction(bytes);
    let whole = sizes.total();
    TraceTable {
        command: vlbr_replay::words(&meta.command_line),
        recorder: meta.recorder.clone(),
        engine: format!("{} {}", meta.engine, meta.engine_version)
            .trim()
            .to_owned(),
        scope: match meta.scope {
            Scope::User => "user code of processes",
            Scope::System => "a whole machine",
        },
        instructions: info.instructions.total(),
        kernel_instructions: info.instructions.kernel,
        user_instructions: info.instructions.user,
        branches: info.branches.total(),
        taken_branches: info
            .transfers
            .iter()
            .filter(|(class, _)| events_apart(class))
            .map(|(_, totals)| totals.total())
            .sum(),
        transfers: info
            .transfers
            .iter()
            .map(|(class, totals)| (format!("{class:?}"), totals.total()))
            .collect(),
        mispredicted: info.mispredicted,
        gaps: info.gaps,
        steps: info.steps.total(),
        blocks: info.blocks,
        distinct_steps: info.distinct_steps,
        modes: info
            .modes
            .iter()
            .map(|((size, cpl, source), steps)| {
                let name = format!("{}-bit CPL {} {source:?}", size.bits(), cpl.number());
                (name.to_lowercase(), *steps)
            })
            .collect(),
        threads: trace
            .threads()
            .iter()
            .zip(&info.threads)
            .map(|(thread, sums)| {
                let process = &trace.processes()[thread.process.0 as usize];
                ThreadRow {
                    pid: process.pid,
                    tid: thread.tid,
                    vcpu: thread.vcpu,
                    program: process.path.display().to_string(),
                    instructions: sums.instructions,
                    steps: sums.steps,
                    chunks: sums.chunks,
                }
            })
            .collect(),
        mappings: trace
            .mappings()
            .iter()
            .map(|mapping| MappingRow {
                pid: trace.processes()[mapping.process.0 as usize].pid,
                start: mapping.start,
                length: mapping.length,
                offset: mapping.offset,
                path: mapping.path.display().to_string(),
                build_id: mapping
                    .build_id
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            })
            .collect(),
        names: trace.functions().map(names),
        file_bytes: whole,
        bits_per_instruction: BTreeMap::from([
            ("whole file", bits(whole)),
            ("chunks", bits(sizes.chunks)),
            ("code", bits(sizes.blocks + sizes.steps)),
            ("side streams", bits(sizes.sides)),
            ("symbols", bits(sizes.symbols)),
        ]),
        notes: notes(meta.notes.iter().chain(trace.notes())),
        damage: trace.damage().map(ToString::to_string),
    }
}

/// Notes by name; what several have said under one name is joined.
fn notes<'a>(all: impl Iterator<Item = &'a (String, String)>) -> BTreeMap<&'a str, String> {
    let mut notes: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in all {
        match notes.get_mut(name.as_str()) {
            Some(said) => {
                said.push_str("; ");
                said.push_str(value);
            }
            None => {
                notes.insert(name, value.clone());
            }
        }
    }
    notes
}

fn names(files: &[FileFunctions]) -> NamesTable {
    let reason = |file: &FileFunctions| match file.state {
        FileState::Read if !file.functions.is_empty() => None,
        FileState::Read => Some("it has no symbols for what ran"),
        FileState::Unreadable => Some("it could not be read"),
        FileState::Another => Some("another file had taken its place"),
    };
    let unnamed = files.iter().filter_map(|file| {
        Some(UnnamedFile {
            path: file.path.display().to_string(),
            reason: reason(file)?,
        })
    });
    let unnamed_files: Vec<_> = unnamed.collect();
    NamesTable {
        functions: files.iter().map(|file| file.functions.len() as u64).sum(),
        named_files: (files.len() - unnamed_files.len()) as u64,
        unnamed_files,
    }
}

fn text(table: &TraceTable<'_>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<22} {value}");
    line("command", table.command.clone())?;
    line(
        "recorded by",
        format!("{}, {}", table.recorder, table.engine),
    )?;
    line("scope", table.scope.to_owned())?;
    line(
        "instructions",
        format!(
            "{} ({} at CPL 0)",
            count(table.instructions),
            count(table.kernel_instructions)
        ),
    )?;
    line(
        "branches",
        format!(
            "{}, taken {}",
            count(table.branches),
            count(table.taken_branches)
        ),
    )?;
    for (class, number) in &table.transfers {
        line(&format!("  {class}"), count(*number))?;
    }
    line(
        "steps",
        format!(
            "{} of {} kinds",
            count(table.steps),
            count(table.distinct_steps)
        ),
    )?;
    line("blocks", count(table.blocks))?;
    line("steps left unknown", count(table.gaps))?;
    for (mode, steps) in &table.modes {
        line(&format!("  {mode}"), format!("{} steps", count(*steps)))?;
    }
    for thread in &table.threads {
        line(
            &format!("thread {}/{}", thread.pid, thread.tid),
            format!(
                "{} instructions in {} chunks, {}",
                count(thread.instructions),
                thread.chunks,
                thread.program
            ),
        )?;
    }
    for mapping in &table.mappings {
        line(
            &format!("mapping {}", mapping.pid),
            format!(
                "{:#x}+{:#x} @{:#x} {}",
                mapping.start, mapping.length, mapping.offset, mapping.path
            ),
        )?;
    }
    if let Some(names) = &table.names {
        line(
            "functions",
            format!(
                "{} named, in {} of {} files",
                count(names.functions),
                names.named_files,
                names.named_files + names.unnamed_files.len() as u64
            ),
        )?;
        for file in &names.unnamed_files {
            line("  no names of", format!("{}: {}", file.path, file.reason))?;
        }
    }
    line("file", format!("{} bytes", count(table.file_bytes)))?;
    for (part, bits) in &table.bits_per_instruction {
        line(
            &format!("  {part}"),
            format!("{bits:.4} bit per instruction"),
        )?;
    }
    for (name, value) in &table.notes {
        line(name, value.clone())?;
    }
    if let Some(damage) = &table.damage {
        line("damage", damage.clone())?;
    }
    Ok(out)
}

/// A perf.data file in numbers.
#[derive(Serialize)]
struct PerfTable {
    events: Vec<String>,
    records: u64,
    samples: u64,
    branch_entries: u64,
    mappings: u64,
}

fn perf_data(path: &Path, format: TextOrJson) -> Outcome {
    let about = |error: &dyn Error| format!("{}: {error}", path.display());
    let mut perf = PerfFile::open(path).map_err(|error| about(&error))?;
    let mut table = PerfTable {
        events: perf
            .metadata()
            .events
            .iter()
            .map(|event| {
                format!(
                    "type {} config {:#x}",
                    event.attr.event_type, event.attr.config
                )
            })
            .collect(),
        records: 0,
        samples: 0,
        branch_entries: 0,
        mappings: 0,
    };
    let mut records = perf.records().map_err(|error| about(&error))?;
    while let Some(raw) = records.next_record().map_err(|error| about(&error))? {
        table.records += 1;
        match raw.parse().map_err(|error| about(&error))? {
            Record::Sample(sample) => {
                table.samples += 1;
                let stack = sample.branch_stack.as_ref();
                table.branch_entries += stack.map_or(0, |stack| stack.entries.len() as u64);
            }
            Record::Mmap(_) => table.mappings += 1,
            _ => {}
        }
    }
    if format == TextOrJson::Json {
        common::print_json(&table)?;
    } else {
        let mut out = String::new();
        for event in &table.events {
            writeln!(out, "event          {event}")?;
        }
        writeln!(out, "records        {}", count(table.records))?;
        writeln!(out, "samples        {}", count(table.samples))?;
        writeln!(out, "branch entries {}", count(table.branch_entries))?;
        writeln!(out, "mappings       {}", count(table.mappings))?;
        common::print(&out)?;
    }
    Ok(ExitCode::SUCCESS)
}
