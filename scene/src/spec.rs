//! A scene as text. `docs/scenes.md` describes every key.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use vlbr_arch::Msr;
use vlbr_timing::TimingModel;

use crate::{MispredictsSpec, MonitorSpec, SceneError};

/// Longest text that is read.
const LONGEST: u64 = 1 << 20;

/// A scene.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scene {
    /// What it is called.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub description: String,
    /// The part, as `vlbr list` names it.
    pub part: String,
    /// Logical processors of the host.
    pub cpus: u16,
    /// Version of Linux, for policies that are part of none.
    pub kernel: Option<String>,
    /// The policy, if the command names none.
    #[serde(default = "default_policy")]
    pub policy: String,
    /// The cost model: `published`, or a file.
    #[serde(default = "default_costs")]
    pub cost_model: String,
    /// What tells when guests' instructions retire.
    #[serde(default)]
    pub timing: TimingModel,
    /// The core that the timing model is of; that of the part if none is named.
    pub microarchitecture: Option<String>,
    /// Who says which branches the scoreboard mispredicts.
    pub mispredicts: Option<MispredictsSpec>,
    /// The predictor; that of the core if none is named.
    pub predictor: Option<String>,
    /// Instructions a clock: of guests without a timing model, and of the host's tasks.
    #[serde(default = "one")]
    pub ipc: f64,
    /// Clocks a microsecond.
    #[serde(default = "default_mhz")]
    pub mhz: u32,
    /// How long it runs; otherwise until every trace has ended.
    pub duration_us: Option<u64>,
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: u64,
    /// KVM's module parameter.
    #[serde(default)]
    pub ignore_msrs: bool,
    /// Whether a violation of ownership ends the run.
    #[serde(default)]
    pub on_violation: OnViolation,
    /// The scheduler.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Virtual machines.
    #[serde(default)]
    pub vm: Vec<VmSpec>,
    /// Virtual processors.
    #[serde(default)]
    pub vcpu: Vec<VcpuSpec>,
    /// Tasks of the host.
    #[serde(default)]
    pub task: Vec<TaskSpec>,
    /// perf events of the host.
    #[serde(default)]
    pub event: Vec<EventSpec>,
    /// What user space does to vCPUs.
    #[serde(default)]
    pub monitor: Vec<MonitorSpec>,
}

/// What a violation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnViolation {
    /// It is reported.
    #[default]
    Report,
    /// It ends the run with an error.
    Fail,
}

/// The host's scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Scheduling {
    /// How long a task runs while another waits.
    pub slice_us: u64,
    /// perf's rotation timer; 0: none.
    pub rotation_us: u64,
    /// How long a vCPU sleeps after HLT, if nothing else tells.
    pub halt_us: u64,
    /// Idle processors go through a C-state deeper than C1.
    pub deep_c_states: bool,
    /// So many of a million switches of a vCPU onto a processor take it to another one.
    pub migrations_per_million: u32,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            slice_us: 3000,
            rotation_us: 4000,
            halt_us: 200,
            deep_c_states: false,
            migrations_per_million: 0,
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmSpec {
    /// Its name.
    pub name: String,
    /// `KVM_CAP_X86_GUEST_LBR` is switched on, with policies that have it.
    #[serde(default = "yes")]
    pub lbr: bool,
    /// The processor that its guests are told they have.
    #[serde(default)]
    pub guest: GuestModel,
}

/// What a guest's CPUID says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GuestModel {
    /// A part whose family and model it has; the host's if none is named.
    pub part: Option<String>,
    /// CPUID.1:ECX.PDCM.
    pub pdcm: bool,
    /// Version of perfmon.
    pub pmu_version: u8,
    /// General-purpose counters.
    pub counters: u8,
    /// Fixed counters.
    pub fixed_counters: u8,
}

impl Default for GuestModel {
    fn default() -> Self {
        Self {
            part: None,
            pdcm: true,
            pmu_version: 2,
            counters: 4,
            fixed_counters: 3,
        }
    }
}

/// A vCPU and what its guest executes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VcpuSpec {
    /// Its VM.
    pub vm: String,
    /// A trace, relative to the scene.
    pub trace: Option<PathBuf>,
    /// Which thread or vCPU of the trace, from 0.
    #[serde(default)]
    pub thread: usize,
    /// The trace begins again when it has ended.
    #[serde(default)]
    pub repeat: bool,
    /// A loop instead of a trace.
    #[serde(rename = "loop")]
    pub looped: Option<LoopSpec>,
    /// Instructions after which the guest stops.
    pub instructions: Option<u64>,
    /// Processors it may run on; all if none is named.
    #[serde(default)]
    pub cpus: Vec<u16>,
    /// Exits that the trace does not hold.
    #[serde(default)]
    pub exits: ExitRates,
    /// More of them, by the names that Linux prints.
    #[serde(default)]
    pub exit: Vec<ExitSpec>,
    /// Instead of the scheduler's: so many of a million wake-ups take it to another processor.
    pub migrations_per_million: Option<u32>,
    /// So many of a million times that another task takes its processor it goes on on another one.
    #[serde(default)]
    pub preempted_migrations_per_million: u32,
    /// A perf session in the guest: `EVENT:PERIOD[:call-graph|:FILTER]`.
    pub guest_perf: Option<String>,
    /// What the guest's kernel does with MSRs, beside the session.
    #[serde(default)]
    pub access: Vec<AccessSpec>,
}

/// RDMSR or WRMSR of a guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AccessSpec {
    /// Instructions of the guest before it.
    pub at: u64,
    /// It comes again after so many instructions more, and so on.
    pub every: Option<u64>,
    /// The register, by name or as `0x1d9`.
    pub msr: String,
    /// The value that WRMSR writes; without one it is RDMSR.
    pub write: Option<u64>,
}

impl AccessSpec {
    /// The register.
    ///
    /// # Errors
    /// There is none of the name.
    pub fn msr(&self) -> Result<Msr, vlbr_arch::UnknownMsr> {
        self.msr.parse()
    }
}

/// A loop of branches, without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoopSpec {
    /// Instructions from one taken branch to the next, that one included.
    #[serde(default = "five")]
    pub length: u16,
    /// Different branches.
    #[serde(default = "sixteen")]
    pub branches: u16,
}

/// VM exits for a million instructions, and where they are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ExitRates {
    /// External interrupts.
    pub external_interrupt: u32,
    /// EPT violations.
    pub ept_violation: u32,
    /// CPUID.
    pub cpuid: u32,
    /// Port I/O.
    pub io: u32,
    /// WRMSR of an MSR that is none of the LBR's or PMU's: a timer, an IPI.
    pub wrmsr: u32,
    /// HLT: the vCPU sleeps.
    pub hlt: u32,
    /// PAUSE.
    pub pause: u32,
    /// The preemption timer.
    pub preemption_timer: u32,
    /// So many of a million exits that the fast path can handle are handled there.
    pub fast_path_per_million: u32,
    /// So many of a million of the others go out to user space.
    pub user_space_per_million: u32,
    /// Branches that the host's kernel executes to handle one outside the fast path; 0: none is fed.
    pub host_branches: u16,
}

/// VM exits of one reason.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExitSpec {
    /// As the tracepoint `kvm:kvm_exit` names it, or its number, `0x4b`.
    pub reason: String,
    /// So many in a million instructions.
    pub per_million: f64,
    /// So many of a million of them are handled in the fast path.
    #[serde(default)]
    pub fast_path_per_million: u32,
    /// So many of a million of the others go out to user space.
    #[serde(default)]
    pub user_space_per_million: u32,
    /// After so many of a million of the others the vCPU's thread sleeps.
    #[serde(default)]
    pub sleeps_per_million: u32,
    /// How long, on average; the scheduler's `halt-us` if it is not given.
    pub sleep_us: Option<u64>,
}

/// When a task of the host becomes ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskWhen {
    /// Each time.
    #[default]
    Always,
    /// Only if a vCPU runs on its processor then, in whose place it runs.
    VcpuRuns,
    /// Only if none does.
    NoVcpuRuns,
}

/// A task of the host that becomes ready again and again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskSpec {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub cpu: u16,
    /// It has no user mode.
    #[serde(default)]
    pub kernel_thread: bool,
    /// When it becomes ready first.
    #[serde(default)]
    pub from_us: u64,
    /// From one time it becomes ready to the next.
    pub every_us: u64,
    /// How long it runs then.
    pub for_us: u64,
    /// Whether it becomes ready then.
    #[serde(default)]
    pub when: TaskWhen,
    /// It runs branches of its own, one in so many instructions; 0: none is fed.
    #[serde(default)]
    pub branch_every: u16,
}

/// A perf event of the host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventSpec {
    /// As `perf record -e` takes it.
    pub event: String,
    /// On a processor.
    pub cpu: Option<u16>,
    /// On every processor.
    #[serde(default)]
    pub all_cpus: bool,
    /// Of a task.
    pub task: Option<String>,
    /// Of the thread of a vCPU, by its number in the scene.
    pub vcpu: Option<usize>,
    /// Events between samples; 0: it only counts.
    #[serde(default)]
    pub period: u64,
    /// A branch stack, as `perf record -j` takes it.
    pub branch_filter: Option<String>,
    /// Always on, or in error.
    #[serde(default)]
    pub pinned: bool,
    /// Alone on the PMU.
    #[serde(default)]
    pub exclusive: bool,
    /// Not while a guest runs.
    #[serde(default)]
    pub exclude_guest: bool,
    /// Not while the host runs.
    #[serde(default)]
    pub exclude_host: bool,
    /// When it is opened.
    #[serde(default)]
    pub from_us: u64,
    /// When it is closed.
    pub until_us: Option<u64>,
}

fn default_policy() -> String {
    "v8".to_owned()
}

fn default_costs() -> String {
    "published".to_owned()
}

const fn one() -> f64 {
    1.0
}

const fn default_mhz() -> u32 {
    3000
}

const fn yes() -> bool {
    true
}

const fn five() -> u16 {
    5
}

const fn sixteen() -> u16 {
    16
}

impl Scene {
    /// Reads a scene.
    ///
    /// # Errors
    /// The file cannot be read, or is no scene: what and where.
    pub fn open(path: &Path) -> Result<Self, SceneError> {
        let read = |error| SceneError::Read {
            path: path.to_owned(),
            error,
        };
        let text = vlbr_traces::files::read_text(path, LONGEST).map_err(read)?;
        Self::from_toml(&text).map_err(|error| error.within(path))
    }

    /// Reads the text of a scene and checks it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn from_toml(text: &str) -> Result<Self, SceneError> {
        let scene: Self =
            vlbr_data::parse_toml(text).map_err(|error| SceneError::Text(error.to_string()))?;
        scene.check()?;
        Ok(scene)
    }
}

impl VcpuSpec {
    /// Whether it runs as long as it is let.
    pub(crate) const fn is_endless(&self) -> bool {
        self.instructions.is_none() && (self.looped.is_some() || self.repeat)
    }
}

impl ExitRates {
    /// Every rate by its name.
    #[must_use]
    pub const fn rates(&self) -> [(&'static str, u32); 8] {
        [
            ("external-interrupt", self.external_interrupt),
            ("ept-violation", self.ept_violation),
            ("cpuid", self.cpuid),
            ("io", self.io),
            ("wrmsr", self.wrmsr),
            ("hlt", self.hlt),
            ("pause", self.pause),
            ("preemption-timer", self.preemption_timer),
        ]
    }
}
