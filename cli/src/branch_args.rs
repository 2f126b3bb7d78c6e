//! Arguments of `vlbr branches`.

use std::path::PathBuf;

use clap::Args;

use crate::args::TextOrJson;

/// `vlbr branches`
#[derive(Debug, Args)]
pub(crate) struct BranchesArgs {
    /// Trace, or one of the Championship Branch Prediction of 2025 (gzip).
    pub(crate) file: PathBuf,
    /// Processor whose predictor is taken, see `vlbr list`.
    #[arg(long, default_value = "skylake", value_name = "NAME")]
    pub(crate) cpu: String,
    /// Predictor in its place: that of a core, tage, gshare, bimodal, always-taken; or a TOML file of your
    /// own (docs/branches.md).
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "cpu")]
    pub(crate) predictor: Option<String>,
    /// One predictor for all threads, as if they ran on one processor in the order of the trace; else each
    /// thread or vCPU has its own.
    #[arg(long)]
    pub(crate) shared: bool,
    /// Instructions of each thread that the predictor learns from before anything is counted.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) warmup: u64,
    /// Stop when so many instructions are counted.
    #[arg(long, value_name = "N")]
    pub(crate) instructions: Option<u64>,
    /// Start when control first reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) from: Option<String>,
    /// Stop when control then reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) to: Option<String>,
    /// Branches in the table of the worst.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) worst: usize,
    /// Write the branches for the championship's simulator instead of predicting them: gzip.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cpu", "predictor", "shared", "warmup", "worst", "format"])]
    pub(crate) cbp: Option<PathBuf>,
    /// Overwrite the output file.
    #[arg(short, long, requires = "cbp")]
    pub(crate) force: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
    /// Run what lies before the damage of a damaged trace.
    #[arg(long)]
    pub(crate) salvage: bool,
}
