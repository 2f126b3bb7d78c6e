//! A scene as text. `docs/scenes.md` describes every key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::SceneError;
use crate::exit_names::exit_named;

/// Most reasons of exits that a vCPU names.
const MOST_EXITS: usize = 256;
/// Longest time, in microseconds: eleven and a half days.
const LONGEST_US: u64 = 1_000_000_000_000;
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
    /// Instructions a clock, until a timing model exists.
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

    fn check(&self) -> Result<(), SceneError> {
        let bad = |at: &str, reason: String| Err(SceneError::value(at, reason));
        if !(1..=1024).contains(&self.cpus) {
            return bad("cpus", format!("{} is not from 1 to 1024", self.cpus));
        }
        if !(self.ipc.is_finite() && self.ipc > 0.0 && self.ipc <= 100.0) {
            return bad("ipc", format!("{} is not above 0 and up to 100", self.ipc));
        }
        if !(1..=100_000).contains(&self.mhz) {
            return bad("mhz", format!("{} is not from 1 to 100000", self.mhz));
        }
        self.check_times()?;
        if self.scheduling.slice_us == 0 {
            return bad("scheduling.slice-us", "is 0".to_owned());
        }
        if self.scheduling.halt_us == 0 {
            return bad("scheduling.halt-us", "is 0".to_owned());
        }
        if self.vm.len() > 1024 || self.vcpu.len() > 4096 {
            return bad("vm", "more than 1024 VMs or 4096 vCPUs".to_owned());
        }
        let mut names = BTreeSet::new();
        for (n, vm) in self.vm.iter().enumerate() {
            if !names.insert(&vm.name) {
                return bad(
                    &format!("vm[{n}].name"),
                    format!("{:?} is there twice", vm.name),
                );
            }
            if vm.guest.counters > 8 || vm.guest.fixed_counters > 4 || vm.guest.pmu_version > 5 {
                let at = format!("vm[{n}].guest");
                return bad(
                    &at,
                    "more than 8 counters, 4 fixed ones or version 5".to_owned(),
                );
            }
        }
        for (n, vcpu) in self.vcpu.iter().enumerate() {
            self.check_vcpu(n, vcpu, &names)?;
        }
        for (n, task) in self.task.iter().enumerate() {
            if task.cpu >= self.cpus {
                let at = format!("task[{n}].cpu");
                return bad(&at, format!("there is no cpu{}", task.cpu));
            }
            // A task that waits for a vCPU to run leaves out the times at which it still runs.
            let longer = task.every_us < task.for_us && task.when != TaskWhen::VcpuRuns;
            if task.for_us == 0 || task.every_us == 0 || longer {
                let at = format!("task[{n}].for-us");
                return bad(&at, "is 0, or more than every-us".to_owned());
            }
        }
        for (n, event) in self.event.iter().enumerate() {
            self.check_event(n, event)?;
        }
        if self.duration_us.is_none() && self.vcpu.iter().all(|vcpu| vcpu.is_endless()) {
            return bad(
                "duration-us",
                "is needed: no vCPU of the scene ends by itself".to_owned(),
            );
        }
        Ok(())
    }

    /// No time is so long that its clocks could not be counted.
    fn check_times(&self) -> Result<(), SceneError> {
        let scheduling = &self.scheduling;
        let mut times = vec![
            ("duration-us".to_owned(), self.duration_us.unwrap_or(0)),
            ("scheduling.slice-us".to_owned(), scheduling.slice_us),
            ("scheduling.rotation-us".to_owned(), scheduling.rotation_us),
            ("scheduling.halt-us".to_owned(), scheduling.halt_us),
        ];
        for (n, task) in self.task.iter().enumerate() {
            times.push((format!("task[{n}].from-us"), task.from_us));
            times.push((format!("task[{n}].every-us"), task.every_us));
            times.push((format!("task[{n}].for-us"), task.for_us));
        }
        for (n, event) in self.event.iter().enumerate() {
            times.push((format!("event[{n}].from-us"), event.from_us));
            times.push((format!("event[{n}].until-us"), event.until_us.unwrap_or(0)));
        }
        match times.into_iter().find(|(_, us)| *us > LONGEST_US) {
            None => Ok(()),
            Some((at, us)) => Err(SceneError::value(
                at,
                format!("{us} is more than {LONGEST_US} microseconds"),
            )),
        }
    }

    fn check_vcpu(
        &self,
        n: usize,
        vcpu: &VcpuSpec,
        names: &BTreeSet<&String>,
    ) -> Result<(), SceneError> {
        let bad =
            |key: &str, reason: String| Err(SceneError::value(format!("vcpu[{n}].{key}"), reason));
        if !names.contains(&vcpu.vm) {
            return bad("vm", format!("there is no VM {:?}", vcpu.vm));
        }
        if vcpu.trace.is_some() == vcpu.looped.is_some() {
            return bad("trace", "either trace or loop is given".to_owned());
        }
        if let Some(looped) = vcpu.looped
            && (looped.length < 2 || looped.length > 100 || looped.branches == 0)
        {
            return bad(
                "loop",
                "length goes from 2 to 100, branches from 1 on".to_owned(),
            );
        }
        if vcpu.instructions == Some(0) {
            return bad("instructions", "is 0".to_owned());
        }
        if let Some(cpu) = vcpu.cpus.iter().find(|cpu| **cpu >= self.cpus) {
            return bad("cpus", format!("there is no cpu{cpu}"));
        }
        let rates = vcpu.exits.rates();
        if rates.iter().any(|(_, rate)| *rate > 500_000) {
            return bad(
                "exits",
                "more than 500000 in a million instructions".to_owned(),
            );
        }
        let chances = [
            vcpu.exits.fast_path_per_million,
            vcpu.exits.user_space_per_million,
        ];
        if chances.iter().any(|chance| *chance > 1_000_000) {
            return bad("exits", "more than a million in a million".to_owned());
        }
        if vcpu.exit.len() > MOST_EXITS {
            return bad("exit", format!("more than {MOST_EXITS}"));
        }
        let moves = [
            vcpu.migrations_per_million.unwrap_or(0),
            vcpu.preempted_migrations_per_million,
        ];
        if moves.iter().any(|chance| *chance > 1_000_000) {
            let reason = "more than a million in a million".to_owned();
            return bad("migrations-per-million", reason);
        }
        let mut exits = vcpu.exit.iter().enumerate();
        exits.try_for_each(|(at, exit)| {
            exit.check().map_err(|(key, reason)| {
                SceneError::value(format!("vcpu[{n}].exit[{at}].{key}"), reason)
            })
        })
    }

    fn check_event(&self, n: usize, event: &EventSpec) -> Result<(), SceneError> {
        let bad =
            |key: &str, reason: String| Err(SceneError::value(format!("event[{n}].{key}"), reason));
        let targets = [
            event.cpu.is_some() && event.task.is_none() && event.vcpu.is_none(),
            event.all_cpus,
            event.task.is_some(),
            event.vcpu.is_some(),
        ];
        if targets.iter().filter(|given| **given).count() != 1 {
            return bad(
                "cpu",
                "one of cpu, all-cpus, task and vcpu is given; cpu may stand beside the last two"
                    .to_owned(),
            );
        }
        if let Some(cpu) = event.cpu.filter(|cpu| *cpu >= self.cpus) {
            return bad("cpu", format!("there is no cpu{cpu}"));
        }
        if let Some(task) = &event.task
            && !self.task.iter().any(|known| known.name == *task)
        {
            return bad("task", format!("there is no task {task:?}"));
        }
        if let Some(vcpu) = event.vcpu.filter(|vcpu| *vcpu >= self.vcpu.len()) {
            return bad("vcpu", format!("there is no vCPU {vcpu}"));
        }
        if event.until_us.is_some_and(|until| until <= event.from_us) {
            return bad("until-us", "is not after from-us".to_owned());
        }
        if event.branch_filter.is_some() && event.period == 0 {
            return bad(
                "period",
                "is 0, and only samples have a branch stack".to_owned(),
            );
        }
        Ok(())
    }
}

impl ExitSpec {
    /// What is wrong, and which key has it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if exit_named(&self.reason).is_none() {
            let reason = format!("{:?} is no exit of VMX as Linux names it", self.reason);
            return Err(("reason", reason));
        }
        if !(self.per_million > 0.0 && self.per_million <= 500_000.0) {
            let reason = format!("{} is not above 0 and up to 500000", self.per_million);
            return Err(("per-million", reason));
        }
        let chances = [
            ("fast-path-per-million", self.fast_path_per_million),
            ("user-space-per-million", self.user_space_per_million),
            ("sleeps-per-million", self.sleeps_per_million),
        ];
        match chances.iter().find(|(_, chance)| *chance > 1_000_000) {
            Some((key, _)) => Err((key, "more than a million in a million".to_owned())),
            None if self.sleep_us.is_some_and(|us| us == 0 || us > LONGEST_US) => {
                Err(("sleep-us", format!("is not from 1 to {LONGEST_US}")))
            }
            None => Ok(()),
        }
    }
}

impl VcpuSpec {
    /// Whether it runs as long as it is let.
    const fn is_endless(&self) -> bool {
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
