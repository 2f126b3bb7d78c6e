//! Arguments of the commands that run scenes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::{MispredictsArg, TimingArg};

/// What the commands for scenes share.
#[derive(Debug, Args)]
pub(crate) struct SceneArgs {
    /// Scene: docs/scenes.md.
    #[arg(value_name = "SCENE.toml")]
    pub(crate) scene: PathBuf,
    /// Policy of one's own, which --policy can then name; may be given several times.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) policy_file: Vec<PathBuf>,
    /// Give guests that have none a perf session.
    #[arg(long, value_name = "EVENT:PERIOD[:call-graph|:FILTER]")]
    pub(crate) guest_perf: Option<String>,
    /// Cost model instead of the scene's.
    #[arg(long, value_name = "published|FILE")]
    pub(crate) cost_model: Option<String>,
    #[command(flatten)]
    pub(crate) timing: SceneTimingArgs,
    /// Write there instead of on standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What tells the time of a scene.
#[derive(Debug, Args)]
pub(crate) struct SceneTimingArgs {
    /// Timing model instead of the scene's: guests execute by it, and VM transitions and MSR accesses take
    /// what the cost model says.
    #[arg(long, value_enum, value_name = "MODEL")]
    pub(crate) timing: Option<TimingArg>,
    /// Core that the timing model is of; default: that of the scene's part.
    #[arg(long, value_name = "NAME")]
    pub(crate) microarchitecture: Option<String>,
    /// Who says which branches the scoreboard mispredicts.
    #[arg(long, value_enum, value_name = "WHO")]
    pub(crate) mispredicts: Option<MispredictsArg>,
    /// The predictor; default: that of the core.
    #[arg(long, value_name = "NAME")]
    pub(crate) predictor: Option<String>,
}

/// `vlbr scene`
#[derive(Debug, Subcommand)]
pub(crate) enum SceneCommand {
    /// Make a scene of what `perf script` or `trace-cmd report` print of a machine: docs/scenes.md.
    Import(ImportArgs),
}

/// `vlbr scene import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Text with kvm:kvm_entry, kvm_exit, kvm_msr, kvm_userspace_exit and sched:sched_switch; several
    /// are read one after the other; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Whose text it is.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: ImportKind,
    /// The scene.
    #[arg(short, long, value_name = "SCENE.toml")]
    pub(crate) output: PathBuf,
    /// Name of the scene.
    #[arg(long, default_value = "imported")]
    pub(crate) name: String,
    /// Processor of the scene, see `vlbr list`.
    #[arg(long, default_value = "skylake-server", value_name = "NAME")]
    pub(crate) part: String,
    /// Clocks a microsecond.
    #[arg(long, default_value_t = 3000)]
    pub(crate) mhz: u32,
    /// Instructions a clock.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) ipc: f64,
    /// How long the scene runs; without, as long as the recording, but at most 100,000.
    #[arg(long, value_name = "US")]
    pub(crate) duration_us: Option<u64>,
    /// Give the guests a perf session.
    #[arg(long, value_name = "EVENT:PERIOD[:call-graph|:FILTER]")]
    pub(crate) guest_perf: Option<String>,
    /// Form of what was counted, on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TableOrJson,
}

/// Whose text is imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportKind {
    /// Found out.
    #[default]
    Auto,
    /// `perf script`.
    PerfScript,
    /// `trace-cmd report`, or the kernel's file `trace`.
    TraceCmd,
}

/// `vlbr vm`
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    #[command(flatten)]
    pub(crate) common: SceneArgs,
    /// Policy instead of the scene's; of --policy-file the last one is taken without this.
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Check rules of ownership, and compare what guests read with a processor of their own.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) checks: OnOff,
    /// Write a timeline there, which ui.perfetto.dev shows.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) timeline: Option<PathBuf>,
    /// Show every row of the ledger.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TableOrJson,
}

/// `vlbr overhead`
#[derive(Debug, Args)]
pub(crate) struct OverheadArgs {
    #[command(flatten)]
    pub(crate) common: SceneArgs,
    /// Policies to compare; all without.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) policy: Vec<String>,
    /// Run the scene with several values of a key: scheduling.slice-us=100..6400*2, part=haswell,skylake,
    /// vcpu.exits.external-interrupt=0..400+100, guest-perf.period=..., event=on,off.
    #[arg(long, value_name = "KEY=RANGE")]
    pub(crate) sweep: Option<String>,
    /// Threads to use; 0 takes all cores.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    pub(crate) jobs: usize,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OverheadFormat,
}

/// A switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// On.
    #[default]
    On,
    /// Off.
    Off,
}

/// Output for people or for machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableOrJson {
    /// Tables.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// Outputs of `vlbr overhead`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverheadFormat {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
    /// Plain text of at most 72 columns, for mail.
    Mail,
    /// A picture.
    Svg,
    /// A page with picture and tables.
    Html,
}
