//! Arguments of `vlbr corpus` and `vlbr scenario`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::TextOrJson;

/// `vlbr corpus`
#[derive(Debug, Subcommand)]
pub(crate) enum CorpusCommand {
    /// Replay every trace under every configuration, run every scene under its policies and every scenario,
    /// and compare with the golden results.
    Check(CorpusArgs),
    /// Write the golden results anew.
    Bless(CorpusArgs),
    /// List traces and scenes with their configurations, and scenarios.
    List(CorpusArgs),
}

/// Arguments of the corpus commands.
#[derive(Debug, Args)]
pub(crate) struct CorpusArgs {
    /// Folder with a `corpus.toml`.
    pub(crate) dir: PathBuf,
    /// Threads to use; 0 takes all cores.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub(crate) jobs: usize,
    /// Only part I of N.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,
    /// Only traces, scenes and scenarios whose names begin so, as `corpus list` has them; may be given several
    /// times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Write a JUnit report.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
}

/// `vlbr scenario`
#[derive(Debug, Subcommand)]
pub(crate) enum ScenarioCommand {
    /// Run scenario files, or all below folders.
    Run {
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Policy of one's own, which scenarios can then name; may be given several times.
        #[arg(long, value_name = "FILE.toml")]
        policy_file: Vec<PathBuf>,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
    /// Write scenario files as JSON lines for other emulators: docs/scenario-export.md.
    Export {
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Only cases of this processor; may be given several times.
        #[arg(long, value_name = "NAME")]
        cpu: Vec<String>,
        /// Where to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Overwrite the output.
        #[arg(short, long)]
        force: bool,
    },
}
