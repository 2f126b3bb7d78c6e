//! Arguments of `vlbr contract`.

use std::num::{NonZeroU8, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `vlbr contract`
#[derive(Debug, Args)]
pub(crate) struct ContractArgs {
    /// Policy; may be given several times. Default: those of --policy-file, or every
    /// built-in one.
    #[arg(long)]
    pub(crate) policy: Vec<String>,
    /// Policy of one's own, which --policy can then name; may be given several times.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) policy_file: Vec<PathBuf>,
    /// Scene: the name of a built-in one, or a file; may be given several times. Default: every
    /// built-in one.
    #[arg(long, value_name = "NAME|FILE.scene")]
    pub(crate) scene: Vec<String>,
    /// Most actions of a path.
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<NonZeroUsize>,
    /// States after which a scene is explored no further, the nearest first.
    #[arg(long, value_name = "N", default_value = "150000")]
    pub(crate) states: NonZeroUsize,
    /// Scenes explored at once; default: as many as there are processors.
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroU8>,
    /// Folder that keeps what was explored, scene by scene: a run of the same program that was stopped goes
    /// on there.
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Folder for the scenarios that show broken rules; it must not be there, or be empty.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Whether a broken rule is a failure: exit status 1, behind everything that is written.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) on_violation: OnViolationArg,
    /// List the built-in scenes instead.
    #[arg(long)]
    pub(crate) list: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ContractFormat,
}

/// What a broken rule does to the exit status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnViolationArg {
    /// Nothing.
    #[default]
    Report,
    /// It is 1.
    Fail,
}

/// Output of `vlbr contract`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContractFormat {
    /// Each policy: scenes, bounds, broken rules with their shortest paths.
    #[default]
    Text,
    /// Policies by rules, as Markdown.
    Markdown,
    /// JSON.
    Json,
}
