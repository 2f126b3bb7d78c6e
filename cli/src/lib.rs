//! The vlbr command: arguments, progress and tables. What it does is in the libraries.
//!
//! It is a library so that a program of one's own can be the command with policies of its own:
//! `examples/my-policy`.
#![forbid(unsafe_code)]

mod args;
mod branch_args;
mod branches;
mod calibrate;
mod common;
mod contract;
mod contract_args;
mod convert;
mod corpus;
mod corpus_args;
mod corpus_scenarios;
mod corpus_scenes;
mod diff;
mod explain;
mod generate;
mod info;
mod list;
mod msr;
mod overhead;
mod record;
mod replay;
mod replay_args;
mod scenario;
mod scene;
mod scene_args;
mod stat;
mod throughput;
mod throughput_input;
mod trace_args;
mod vm;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use signal_hook::consts::SIGXFSZ;
use vlbr_host::policy::Catalog;

use args::{Cli, Command};

/// The policies that the command knows before it reads any.
static CATALOG: OnceLock<Catalog> = OnceLock::new();

/// The policies that the command knows before it reads any.
fn known_policies() -> Catalog {
    CATALOG.get_or_init(Catalog::builtin).clone()
}

/// The command, with these policies: reads its arguments and does what they say.
#[must_use]
pub fn run(policies: Catalog) -> ExitCode {
    // Set once, before anything asks.
    let _ = CATALOG.set(policies);
    // A file size limit shall fail the write, not kill the command. A handler, other than an ignored
    // signal, is not inherited by what is recorded.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        common::complain(&error);
        return ExitCode::FAILURE;
    }
    let result = match Cli::parse().command {
        Command::Replay(args) => replay::run(&args),
        Command::Scenario(command) => scenario::run(&command),
        Command::Throughput(args) => throughput::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::List(args) => list::run(&args),
        Command::Msr(command) => msr::run(&command),
        Command::Record(args) => record::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Branches(args) => branches::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Gen(args) => generate::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Corpus(command) => corpus::run(&command),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Scene(command) => scene::run(&command),
        Command::Vm(args) => vm::run(&args),
        Command::Overhead(args) => overhead::run(&args),
        Command::Contract(args) => contract::run(&args),
    };
    result.unwrap_or_else(|error| {
        common::complain(&*error);
        ExitCode::FAILURE
    })
}
