//! Arguments of the commands that replay a trace.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::TextOrJson;

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
