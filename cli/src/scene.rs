//! `vlbr scene`

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use vlbr_scene::import::{Import, ImportError, ImportOptions, TextKind};
use vlbr_traces::files::open_regular;

use crate::common::{self, Outcome};
use crate::scene_args::{ImportArgs, ImportKind, SceneCommand, TableOrJson};
use crate::vm;

/// Runs the subcommand.
pub(crate) fn run(command: &SceneCommand) -> Outcome {
    match command {
        SceneCommand::Import(args) => import(args),
    }
}

fn import(args: &ImportArgs) -> Outcome {
    let kind = match args.kind {
        ImportKind::Auto => None,
        ImportKind::PerfScript => Some(TextKind::PerfScript),
        ImportKind::TraceCmd => Some(TextKind::TraceCmd),
    };
    let mut import = Import::new(kind);
    for path in &args.files {
        let mut reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = open_regular(path).map_err(|error| ImportError::Read {
                path: path.clone(),
                error,
            })?;
            Box::new(BufReader::new(file))
        };
        import.read(path, &mut *reader)?;
    }
    let imported = import.finish(&ImportOptions {
        name: args.name.clone(),
        part: args.part.clone(),
        mhz: args.mhz,
        ipc: args.ipc,
        duration_us: args.duration_us,
        guest_perf: args.guest_perf.clone(),
    })?;
    vm::write(Some(&args.output), &imported.text)?;
    common::print(&match args.format {
        TableOrJson::Table => imported.summary.text(),
        TableOrJson::Json => serde_json::to_string_pretty(&imported.summary)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}
