//! What a caller hands to the writer and to the exporters: the file, its mappings, its samples.

use std::path::PathBuf;

use super::abi::BranchSampleType;
use super::entry::BranchEntry;

/// Process and thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Process (thread group).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
}

/// The event that is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventInfo {
    /// Name, as perf prints it.
    pub name: String,
    /// `perf_event_attr.type`: 0 hardware, 4 raw.
    pub event_type: u32,
    /// `perf_event_attr.config`.
    pub config: u64,
    /// Events between two samples.
    pub period: u64,
    /// Samples a second, in place of a period.
    pub frequency: Option<u64>,
    /// Skid asked for: 0 arbitrary to 3 none.
    pub precise_ip: u8,
    /// User code is not counted.
    pub exclude_user: bool,
    /// Kernel code is not counted.
    pub exclude_kernel: bool,
}

impl EventInfo {
    fn user(name: &str, event_type: u32, config: u64, period: u64) -> Self {
        Self {
            name: name.to_owned(),
            event_type,
            config,
            period,
            frequency: None,
            precise_ip: 0,
            exclude_user: false,
            exclude_kernel: true,
        }
    }

    /// `instructions`: type 0, config 1. User mode only.
    #[must_use]
    pub fn instructions(period: u64) -> Self {
        Self::user("instructions", 0, 1, period)
    }

    /// `branches`: type 0, config 4. User mode only.
    #[must_use]
    pub fn branches(period: u64) -> Self {
        Self::user("branches", 0, 4, period)
    }

    /// `br_inst_retired.near_taken` as a raw event of type 4. User mode only.
    ///
    /// `config` is umask and event of the CPU: 0x20c4 on Skylake, say.
    #[must_use]
    pub fn near_taken(config: u64, period: u64) -> Self {
        Self::user("br_inst_retired.near_taken", 4, config, period)
    }
}

/// What is written in the header of a perf.data file. All of it is given by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub os_release: String,
    /// Version of the program that wrote the file.
    pub version: String,
    /// CPUs, available and online.
    pub nr_cpus: u32,
    /// Name of the CPU, such as `Intel(R) Xeon(R) Platinum 8173M CPU @ 2.00GHz`.
    pub cpu_desc: String,
    /// Vendor, family, model and stepping, such as `GenuineIntel,6,85,4`.
    pub cpuid: String,
    /// What cycles and times are of, if a model made them; perf.data has no field for it.
    pub timing: Option<String>,
    /// Command line.
    pub cmdline: Vec<String>,
    /// The event.
    pub event: EventInfo,
    /// Events counted beside it, read with every sample: a group whose leader is sampled.
    pub group: Vec<EventInfo>,
    /// Which branches were recorded, and what of them. Empty: samples have no branch stack.
    pub branch_sample_type: BranchSampleType,
    /// Depth of the LBR, written as the PMU's `branches` capability.
    pub lbr_depth: Option<u32>,
    /// Samples have call chains.
    pub callchain: bool,
    /// Build-ids go into the MMAP2 records as well, in place of device and inode.
    pub build_id_in_mmap: bool,
}

impl FileInfo {
    /// User-mode samples of `event` with branch stacks of any branch, by an unnamed machine.
    #[must_use]
    pub fn new(event: EventInfo) -> Self {
        Self {
            hostname: "vlbr".to_owned(),
            os_release: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nr_cpus: 1,
            cpu_desc: String::new(),
            cpuid: String::new(),
            timing: None,
            cmdline: Vec::new(),
            event,
            group: Vec::new(),
            branch_sample_type: BranchSampleType::USER | BranchSampleType::ANY,
            lbr_depth: None,
            callchain: false,
            build_id_in_mmap: false,
        }
    }

    /// `perf record --call-graph lbr`: call stacks of user code in the branch stack, without flags
    /// and cycles, and a call chain that holds only the sampled address.
    #[must_use]
    pub fn with_lbr_callgraph(mut self) -> Self {
        self.branch_sample_type = BranchSampleType::USER
            | BranchSampleType::CALL_STACK
            | BranchSampleType::NO_FLAGS
            | BranchSampleType::NO_CYCLES
            | BranchSampleType::HW_INDEX;
        self.callchain = true;
        self
    }
}

/// Executable code at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Process. Not used when `kernel` is set.
    pub pid: u32,
    /// Thread that mapped. Not used when `kernel` is set.
    pub tid: u32,
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Offset in the file; of the kernel, the address of `_text` as linked or as run.
    pub pgoff: u64,
    /// Path of the file, `[kernel.kallsyms]_text` for the kernel, `[name]` for a module.
    pub path: PathBuf,
    /// Build-id, at most 20 bytes.
    pub build_id: Option<Vec<u8>>,
    /// `PROT_*` bits.
    pub prot: u32,
    /// `MAP_*` bits.
    pub flags: u32,
    /// Kernel code, of every process.
    pub kernel: bool,
}

impl Mapping {
    /// A private mapping, readable and executable, of a file into a process.
    #[must_use]
    pub fn user(pid: u32, start: u64, len: u64, pgoff: u64, path: impl Into<PathBuf>) -> Self {
        Self {
            pid,
            tid: pid,
            start,
            len,
            pgoff,
            path: path.into(),
            build_id: None,
            prot: 5,
            flags: 2,
            kernel: false,
        }
    }

    /// The kernel's text, `_text` at `start`.
    #[must_use]
    pub fn kernel(start: u64, len: u64) -> Self {
        Self {
            pid: u32::MAX,
            tid: 0,
            start,
            len,
            pgoff: start,
            path: PathBuf::from("[kernel.kallsyms]_text"),
            build_id: None,
            prot: 5,
            flags: 0,
            kernel: true,
        }
    }

    /// First address after the mapping, `u64::MAX` when that overflows.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether `address` lies in the mapping.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        address >= self.start && address - self.start < self.len
    }
}

/// One sample, as the replay makes it and every exporter takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRecord<'a> {
    /// Instruction pointer.
    pub ip: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Time in ns.
    pub time_ns: u64,
    /// CPU.
    pub cpu: u32,
    /// Events since the last sample.
    pub period: u64,
    /// The sampled code is the kernel's.
    pub kernel: bool,
    /// Branch stack, newest entry first.
    pub branches: &'a [BranchEntry],
    /// Index of the newest entry in the hardware ring, when asked for.
    pub hw_idx: Option<u64>,
    /// Call chain with its `PERF_CONTEXT_*` markers, innermost first.
    pub callchain: Option<&'a [u64]>,
    /// What each event of the group has counted on this task or CPU, the sampled one first; empty
    /// if the event is no group's.
    pub counts: &'a [u64],
    /// Which instance of the group counted: counts only grow in one, as in an event that perf opened
    /// on one task or CPU.
    pub instance: u32,
}

impl SampleRecord<'_> {
    /// Process and thread.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        TaskId {
            pid: self.pid,
            tid: self.tid,
        }
    }
}
