//! Arguments of the command.

pub(crate) use crate::scene_args::{OverheadArgs, SceneCommand, VmArgs};
pub(crate) use crate::throughput::ThroughputArgs;

use std::num::{NonZeroU32, NonZeroU64};
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

/// Recorders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// QEMU if it is there, else ptrace.
    #[default]
    Auto,
    /// QEMU's user or system emulation with the recording plugin.
    Qemu,
    /// Single-stepping; no other tool needed.
    Ptrace,
}

/// `vlbr record`
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Recorder.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: EngineArg,
    /// Record data addresses as well.
    #[arg(long)]
    pub(crate) mem: bool,
    /// Output file.
    #[arg(short, long, default_value = "trace.vlt", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Compression level of the trace, 1 to 19.
    #[arg(
        long,
        default_value_t = vlbr_traces::vlt::RECORDING_LEVEL,
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    pub(crate) level: i32,
    /// Record a whole guest instead of a program.
    #[arg(long, requires = "kernel", conflicts_with = "program")]
    pub(crate) system: bool,
    /// Kernel image of the guest.
    #[arg(
        long,
        requires = "system",
        conflicts_with = "program",
        value_name = "FILE"
    )]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk of the guest.
    #[arg(long, requires = "system", value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line of the guest.
    #[arg(long, requires = "system", value_name = "ARGS")]
    pub(crate) append: Option<String>,
    /// Memory of the guest, in MiB.
    #[arg(
        short,
        long,
        requires = "system",
        default_value_t = 512,
        value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) memory: u32,
    /// vCPUs of the guest.
    #[arg(long, requires = "system", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) smp: u32,
    /// Uncompressed kernel with symbols, or a kallsyms listing, for the guest's symbols.
    #[arg(long, requires = "system", value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,
    /// Another argument for QEMU, may be repeated.
    #[arg(
        long,
        requires = "system",
        value_name = "ARG",
        allow_hyphen_values = true
    )]
    pub(crate) qemu_arg: Vec<String>,
    /// Program and its arguments.
    #[arg(
        trailing_var_arg = true,
        required_unless_present = "system",
        value_name = "PROG"
    )]
    pub(crate) program: Vec<std::ffi::OsString>,
}

/// What feeds counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockArg {
    /// Nothing: events of clocks are refused.
    #[default]
    None,
    /// One core clock and one reference clock an instruction: nominal, no measurement.
    Instructions,
}

/// The counters.
#[derive(Clone, Debug, Args)]
pub(crate) struct PmuArgs {
    /// Options of the PMU (open points, errata, skid), a TOML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) pmu_options: Option<PathBuf>,
    /// What events of clocks (cycles, ref-cycles) count without a timing model.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) clock: ClockArg,
}

/// Timing models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimingArg {
    /// None: cycle fields read 0, and the trace takes a nanosecond an instruction.
    #[default]
    None,
    /// Every block takes what it would take as a hot loop.
    Bound,
    /// Every instruction goes through front end, ports, buffers and branch prediction of the core.
    Scoreboard,
}

/// Who says which branches were mispredicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MispredictsArg {
    /// A predictor, see --predictor.
    Predicted,
    /// The trace.
    Recorded,
}

/// The clock of a replay.
#[derive(Clone, Debug, Args)]
pub(crate) struct TimingArgs {
    /// Timing model: cycle fields of the LBR, counters of clocks and times of samples are of its clock.
    #[arg(long, value_enum, default_value_t, value_name = "MODEL")]
    pub(crate) timing: TimingArg,
    /// Core that the timing model is of; default: that of --cpu.
    #[arg(long, value_name = "NAME")]
    pub(crate) microarchitecture: Option<String>,
    /// Who says which branches the scoreboard mispredicts [default: predicted].
    #[arg(long, value_enum, value_name = "WHO")]
    pub(crate) mispredicts: Option<MispredictsArg>,
    /// The predictor; default: that of the core.
    #[arg(long, value_name = "NAME")]
    pub(crate) predictor: Option<String>,
    /// Core clocks a microsecond, by which a timing model tells time [default: 1000].
    #[arg(long, value_name = "N")]
    pub(crate) mhz: Option<NonZeroU32>,
    /// Clocks of the TSC (ref-cycles) a microsecond; default: as many as core clocks.
    #[arg(long, value_name = "N")]
    pub(crate) tsc_mhz: Option<NonZeroU32>,
    /// Instructions of each thread that run, LBR and timing model with them, before anything is counted
    /// or sampled.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) warmup: u64,
}

/// How to replay.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Processor, see `vlbr list`; or a TOML file of your own.
    #[arg(long, default_value = "skylake", value_name = "NAME")]
    pub(crate) cpu: String,
    /// Options of the device (open points, quirks), a TOML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) options: Option<PathBuf>,
    /// Sample any taken branch, as `perf record -b`.
    #[arg(short = 'b', long, conflicts_with_all = ["branch_filter", "call_graph"])]
    pub(crate) branch_any: bool,
    /// Branch filter, perf's names: any any_call any_ret ind_call call cond ind_jmp u k save_type...
    #[arg(
        short = 'j',
        long,
        value_name = "FILTER,...",
        conflicts_with = "call_graph"
    )]
    pub(crate) branch_filter: Option<String>,
    /// Record call stacks of user code with the LBR's call-stack mode; `lbr` is the only mode.
    /// Without a privilege level the event then counts user code only.
    #[arg(long, value_name = "MODE", value_parser = ["lbr"])]
    pub(crate) call_graph: Option<String>,
    /// Event to sample on, see `vlbr list --events`: perf's and Intel's names, rNNNN or
    /// cpu/event=...,umask=.../; modifiers u, k. Samples have branches with or without -b. A group '{LEADER,EVENT,...}:S' samples the leader and
    /// reads the others. Default: br_inst_retired.near_taken, else all taken branches, else branches;
    /// `instructions` with --call-graph.
    #[arg(short, long)]
    pub(crate) event: Vec<String>,
    /// Events between two samples; default 997, of instructions and clocks 10007.
    #[arg(short, long, value_name = "PERIOD")]
    pub(crate) count: Option<NonZeroU64>,
    /// Samples a second of the trace's time, one nanosecond an instruction unless --timing tells it: the
    /// period follows, as perf lets it.
    #[arg(short = 'F', long, value_name = "HZ", conflicts_with = "count")]
    pub(crate) freq: Option<NonZeroU64>,
    /// Instructions from an overflow to its interrupt: samples name a later address, and branches in
    /// between are not recorded where the LBR freezes.
    #[arg(long, value_name = "N")]
    pub(crate) skid: Option<u64>,
    #[command(flatten)]
    pub(crate) pmu: PmuArgs,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// Start when control first reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) from: Option<String>,
    /// Stop when control then reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) to: Option<String>,
    /// Threads to use; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) jobs: usize,
    /// Replay what lies before the damage of a damaged trace.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// Formats of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayFormat {
    /// perf.data.
    PerfData,
    /// Text as `perf script -F ip,brstack` prints it.
    PerfScript,
    /// BOLT's pre-aggregated profile, from the samples: perf2bolt --pa makes of it what it makes of
    /// perf-data.
    Bolt,
    /// BOLT's pre-aggregated profile of every branch, without LBR and samples.
    BoltExact,
    /// Folded call stacks for flame graphs (with --call-graph lbr).
    Folded,
    /// JSON: the summary and every sample.
    Json,
}

/// `vlbr replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Trace.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Output file; without it a table is printed (`-` writes text formats to stdout).
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Output format; perf-data with -o, else a table.
    #[arg(long, value_enum)]
    pub(crate) format: Option<ReplayFormat>,
    /// Write FROM, TO and INFO of every record at once instead of a reference to it.
    #[arg(long)]
    pub(crate) eager: bool,
    /// Edges in the table.
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with_all = ["output", "format"])]
    pub(crate) top: usize,
}

/// `vlbr stat`
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Trace.
    pub(crate) file: PathBuf,
    /// Events, separated by commas; may be repeated. See `vlbr list --events`: perf's and Intel's
    /// names, rNNNN, cpu/event=...,umask=.../; modifiers u, k. Default: instructions and branches by
    /// kind.
    #[arg(short, long, value_name = "EVENT,...")]
    pub(crate) event: Vec<String>,
    /// Processor, see `vlbr list`; or a TOML file of your own.
    #[arg(long, default_value = "skylake", value_name = "NAME")]
    pub(crate) cpu: String,
    /// Options of the LBR (open points, quirks), a TOML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) options: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pmu: PmuArgs,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// What became of the issue slots, which the scoreboard tells.
    #[arg(long)]
    pub(crate) topdown: bool,
    /// Also the N branches that were mispredicted most often, by the timing model or by the trace.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) branches: usize,
    /// The LBR records any taken branch, so that LBR_INSERTS can be counted.
    #[arg(short = 'b', long, conflicts_with = "branch_filter")]
    pub(crate) branch_any: bool,
    /// The LBR records with this filter, perf's names.
    #[arg(long, value_name = "FILTER,...")]
    pub(crate) branch_filter: Option<String>,
    /// Count each thread, or vCPU of a guest, by itself.
    #[arg(long)]
    pub(crate) per_thread: bool,
    /// JSON, as --format json.
    #[arg(short, long, conflicts_with_all = ["format", "field_separator"])]
    pub(crate) json_output: bool,
    /// Lines with this separator instead of a table, as perf's: count, unit, event, run time (in ns),
    /// percentage of it.
    #[arg(short = 'x', long, value_name = "SEP", conflicts_with_all = ["format", "topdown", "branches"])]
    pub(crate) field_separator: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
    /// Start when control first reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) from: Option<String>,
    /// Stop when control then reaches this symbol (or 0xADDRESS).
    #[arg(long, value_name = "SYM")]
    pub(crate) to: Option<String>,
    /// Threads to use; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) jobs: usize,
    /// Count what lies before the damage of a damaged trace.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// `vlbr info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Trace or perf.data file.
    pub(crate) file: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
    /// Describe what lies before the damage of a damaged trace.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// `vlbr convert`
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// QEMU log or trace.
    pub(crate) input: PathBuf,
    /// Trace to write.
    pub(crate) output: PathBuf,
    /// ELF file with the code, for a log without in_asm.
    #[arg(long, value_name = "ELF")]
    pub(crate) binary: Option<PathBuf>,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Compression level, 1 to 19.
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(crate) level: i32,
    /// Keep what lies before the damage of a damaged trace.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// `vlbr gen`
#[derive(Debug, Args)]
pub(crate) struct GenArgs {
    /// Spec, a TOML file.
    #[arg(required_unless_present = "like", conflicts_with = "like")]
    pub(crate) spec: Option<PathBuf>,
    /// Fit a spec to this trace instead, and say how far what it generates is from it.
    #[arg(long, value_name = "TRACE")]
    pub(crate) like: Option<PathBuf>,
    /// Trace to write.
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["like", "print_spec"])]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print the spec as TOML: the fitted one, or the given one with the options below.
    #[arg(long)]
    pub(crate) print_spec: bool,
    /// Seed, in place of the spec's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
    /// Instructions of each thread or vCPU, in place of the spec's.
    #[arg(long, value_name = "N")]
    pub(crate) instructions: Option<u64>,
    /// Threads or vCPUs, in place of the spec's.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Compression level of the trace, 1 to 19.
    #[arg(
        long,
        default_value_t = vlbr_traces::vlt::RECORDING_LEVEL,
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    pub(crate) level: i32,
    /// Output format of the fit's errors.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
    /// Fit to what lies before the damage of a damaged trace.
    #[arg(long, requires = "like")]
    pub(crate) salvage: bool,
}

/// `vlbr diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Trace, perf.data file or pre-aggregated profile.
    pub(crate) a: PathBuf,
    /// Trace, perf.data file or pre-aggregated profile.
    pub(crate) b: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TextOrJson,
    /// Functions in the table.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) top: usize,
    /// Exit with status 1 if the edge overlap is below this share (0 to 1).
    #[arg(long, value_name = "SHARE")]
    pub(crate) at_least: Option<f64>,
}

/// `vlbr corpus`
#[derive(Debug, Subcommand)]
pub(crate) enum CorpusCommand {
    /// Replay every trace under every configuration, run every scene under its policies, and compare with
    /// the golden results.
    Check(CorpusArgs),
    /// Write the golden results anew.
    Bless(CorpusArgs),
    /// List traces and scenes with their configurations.
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
