//! `vlbr overhead`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use vlbr_scene::OnViolation;
use vlbr_scene::report::{Overhead, OverheadOptions, Sweep};

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
    let sweep = args.sweep.as_deref().map(Sweep::parse).transpose()?;
    let scenes = match &sweep {
        Some(sweep) => Some(sweep.scenes(&file)?),
        None => None,
    };
    let options = OverheadOptions {
        policies,
        model: &model,
        scenes,
        key: sweep.map(|sweep| sweep.key().to_owned()),
        jobs: args.jobs,
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
        OverheadFormat::Mail => overhead.mail(&command()),
        OverheadFormat::Svg => overhead.svg()?,
        OverheadFormat::Html => overhead.html(&command())?,
    };
    vm::write(args.common.output.as_deref(), &text)?;
    let mut rows = overhead.points.iter().flat_map(|point| &point.rows);
    let ends = file.scene().on_violation == OnViolation::Fail;
    Ok(match ends && rows.any(|row| row.failed.is_some()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// The command as a shell takes it, for whoever wants to run it again.
fn command() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@[]".contains(c);
    let arguments = std::env::args_os().skip(1).map(|argument| {
        let argument = argument.to_string_lossy();
        match argument.chars().all(plain) && !argument.is_empty() {
            true => argument.into_owned(),
            false => format!("'{}'", argument.replace('\'', "'\\''")),
        }
    });
    let words: Vec<String> = std::iter::once("vlbr".to_owned())
        .chain(arguments)
        .collect();
    words.join(" ")
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
