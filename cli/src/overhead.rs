//! `vlbr overhead`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use vlbr_scene::report::{Overhead, OverheadOptions};

use crate::common::Outcome;
use crate::scene_args::{OverheadArgs, OverheadFormat};
use crate::vm;

/// Runs the subcommand.
pub(crate) fn run(args: &OverheadArgs) -> Outcome {
    let file = vm::open(&args.common)?;
    let (catalog, _) = vm::catalog(&args.common)?;
    let policies = match args.policy.is_empty() {
        true => catalog.all().to_vec(),
        false => args
            .policy
            .iter()
            .map(|name| catalog.named(name))
            .collect::<Result<_, _>>()?,
    };
    let model = file.cost_model(args.common.cost_model.as_deref())?;
    let options = OverheadOptions {
        policies,
        model: &model,
        scenes: None,
        key: None,
    };
    let bar = bar();
    let progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let overhead = Overhead::run(&file, &options, &progress)?;
    bar.finish_and_clear();
    let text = match args.format {
        OverheadFormat::Json => serde_json::to_string_pretty(&overhead)? + "\n",
        OverheadFormat::Table => overhead.text(),
    };
    vm::write(args.common.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// A bar of runs on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
