//! Arguments of the command.

pub(crate) use crate::corpus_args::{CorpusArgs, CorpusCommand, ScenarioCommand};
pub(crate) use crate::replay_args::{
    ClockArg, DeviceArgs, MispredictsArg, ReplayArgs, ReplayFormat, StatArgs, TimingArg, TimingArgs,
};
pub(crate) use crate::scene_args::{OverheadArgs, SceneCommand, VmArgs};
pub(crate) use crate::throughput::ThroughputArgs;
pub(crate) use crate::trace_args::{
    ConvertArgs, DiffArgs, EngineArg, GenArgs, InfoArgs, RecordArgs,
};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Record programs without LBR hardware, replay them through an emulated Last Branch Record.
#[derive(Debug, Parser)]
#[command(name = "vlbr", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record what a program or a whole guest executes.
    Record(RecordArgs),
    /// Replay a trace through the LBR of a processor and sample it.
    Replay(ReplayArgs),
    /// Count events over a trace, as `perf stat` does.
    Stat(StatArgs),
    /// Run the branches of a trace through the branch predictor of a processor.
    Branches(crate::branch_args::BranchesArgs),
    /// Say what a trace or a perf.data file holds.
    Info(InfoArgs),
    /// Convert a `qemu -d in_asm,exec,nochain` log into a trace, or rewrite a trace.
    Convert(ConvertArgs),
    /// Make a trace of a synthetic guest or program: docs/gen.md.
    Gen(GenArgs),
    /// Compare two traces, profiles or perf.data files.
    Diff(DiffArgs),
    /// Check a folder of traces against its golden results.
    #[command(subcommand)]
    Corpus(CorpusCommand),
    /// Golden scenarios.
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Make a cost model of what the timing programs printed.
    Calibrate(CalibrateArgs),
    /// Scenes: virtual machines that use LBR, tasks and events of their host.
    #[command(subcommand)]
    Scene(SceneCommand),
    /// Run virtual machines that use LBR under a policy of the hypervisor.
    Vm(VmArgs),
    /// Compare what policies for the guest's LBR cost.
    Overhead(OverheadArgs),
    /// Try every interleaving of small scenes against the rules of docs/contract.md.
    Contract(crate::contract_args::ContractArgs),
    /// Say how many cycles a block of code takes, and why: docs/throughput.md.
    Throughput(ThroughputArgs),
    /// Say which consecutive LBR entries of a perf.data file the code explains.
    Explain(ExplainArgs),
    /// List the processors there are.
    List(ListArgs),
    /// Model-specific registers.
    #[command(subcommand)]
    Msr(MsrCommand),
}

/// Output for people or for machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// Tables.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// `vlbr calibrate`
#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// Output of the timing programs of calibrate/module and calibrate/image, all of one processor.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where costs come from that were not timed: `published` or a cost model's file.
    #[arg(long, default_value = "published", value_name = "published|FILE")]
    pub(crate) base: String,
    /// Cost model to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Take readings from below a hypervisor or an emulator, as estimates (class E).
    #[arg(long)]
    pub(crate) allow_virtual: bool,
    /// Output format of the figures.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
}

/// `vlbr explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// perf.data file.
    pub(crate) file: PathBuf,
    /// The ELF file its entries lie in.
    #[arg(long, value_name = "ELF")]
    pub(crate) binary: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
}

/// `vlbr list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// List the events of this processor instead, and which of them a trace feeds.
    #[arg(long, value_name = "NAME")]
    pub(crate) events: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
}

/// `vlbr msr`
#[derive(Debug, Subcommand)]
pub(crate) enum MsrCommand {
    /// List the registers of a processor: owner, access, reserved bits, reset value, scope.
    List {
        /// Processor, see `vlbr list`.
        #[arg(long)]
        cpu: String,
        /// Registers by number, name or range: 0x1d9, IA32_DEBUGCTL, 0x680-0x69f; all without.
        #[arg(value_name = "MSR")]
        registers: Vec<String>,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: TextOrJson,
    },
}
