//! Arguments of the commands that make traces, describe and compare them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::TextOrJson;

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
