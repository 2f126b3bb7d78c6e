//! `vlbr contract`

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use vlbr_contract::{Bounds, Plan, Scene, Table};

use crate::common::{Outcome, print};
use crate::contract_args::{ContractArgs, ContractFormat, OnViolationArg};
use crate::vm;

/// Runs the subcommand.
pub(crate) fn run(args: &ContractArgs) -> Outcome {
    let scenes = scenes(args)?;
    if args.list {
        let lines = scenes.iter();
        let lines = lines.map(|scene| format!("{:<26} {}\n", scene.name(), scene.title()));
        print(&lines.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &args.output {
        prepare(folder)?;
    }
    let (catalog, _) = vm::catalog_with(&args.policy_file)?;
    let known = crate::known_policies();
    let policies = if !args.policy.is_empty() {
        let named = args.policy.iter().map(|name| catalog.named(name));
        named.collect::<Result<_, _>>()?
    } else if args.policy_file.is_empty() {
        catalog.all().to_vec()
    } else {
        let mut own = catalog.all().to_vec();
        own.retain(|policy| !known.all().iter().any(|known| Arc::ptr_eq(known, policy)));
        own
    };
    let threads = match args.jobs {
        Some(jobs) => usize::from(jobs.get()),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let plan = Plan {
        policies,
        scenes,
        bounds: Bounds {
            depth: args.depth,
            states: args.states.get(),
        },
        kept: args.resume.clone(),
        build: build(args.resume.is_some())?,
        threads,
    };
    let bar = bar(plan.len() as u64);
    let seen = Mutex::new(vec![0usize; plan.len()]);
    let done = AtomicUsize::new(0);
    let progress = |n: usize, states: usize, last: bool| {
        let Ok(mut seen) = seen.lock() else { return };
        seen[n] = states;
        let all: usize = seen.iter().sum();
        bar.set_message(format!("{} states", HumanCount(all as u64)));
        if last {
            bar.set_position(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
        }
    };
    let table = plan.run(&progress)?;
    bar.finish_and_clear();
    if let Some(folder) = &args.output {
        store(folder, &table)?;
    }
    print(&match args.format {
        ContractFormat::Text => table.text(),
        ContractFormat::Markdown => {
            let folder = args.output.as_deref().unwrap_or(Path::new("."));
            table.markdown(&folder.display().to_string())
        }
        ContractFormat::Json => serde_json::to_string_pretty(&table)? + "\n",
    })?;
    let fails = args.on_violation == OnViolationArg::Fail && !table.is_clean();
    Ok(if fails {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What tells this program from another build of it, where that matters.
fn build(kept: bool) -> Result<String, Box<dyn std::error::Error>> {
    if !kept {
        return Ok(String::new());
    }
    let meta = fs::metadata(std::env::current_exe()?)?;
    let since = meta.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!("{version} {} {}", meta.len(), since.as_nanos()))
}

fn scenes(args: &ContractArgs) -> Result<Vec<Scene>, Box<dyn std::error::Error>> {
    if args.scene.is_empty() {
        return Ok(Scene::all()?);
    }
    let mut scenes = Vec::new();
    for name in &args.scene {
        scenes.push(match Scene::builtin(name) {
            Some(scene) => scene,
            None if name.contains('/') || Path::new(name).exists() => Scene::load(Path::new(name))?,
            None => {
                let known: Vec<_> = Scene::names().collect();
                let known = known.join(", ");
                return Err(format!("no file and no scene {name:?}; there are {known}").into());
            }
        });
    }
    Ok(scenes)
}

/// Refuses to begin hours of work whose results could not be kept.
fn prepare(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let told = |error: io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(told)?;
    if fs::read_dir(folder).map_err(told)?.next().is_some() {
        return Err(format!("{}: the folder is not empty", folder.display()).into());
    }
    Ok(())
}

fn store(folder: &Path, table: &Table) -> Result<(), Box<dyn std::error::Error>> {
    for (name, text) in table.scenarios() {
        vm::write(Some(&folder.join(name)), &text)?;
    }
    Ok(())
}

/// A bar of explorations on standard error, if that is a terminal.
fn bar(all: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(all);
    let form = "{bar:40} {pos}/{len} explorations, {msg}, {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
