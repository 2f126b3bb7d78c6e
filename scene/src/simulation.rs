//! A scene over time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use vlbr_cpu::processor::Options;
use vlbr_cpu::{Clock, Feed};
use vlbr_host::kvm::{GuestCpu, KvmBehaviour, Note};
use vlbr_host::machine::{Checking, HostConfig, Input, Machine, Output};
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, EventId, KernelVersion, LbrDataId, StackState, Target,
    VersionError, parse_branch_filter, with_event_privileges,
};
use vlbr_host::policy::Policy;
use vlbr_host::{CpuId, TaskId, VcpuId};
use vlbr_pmu::{Device as _, Unfed};

use crate::guest::{Guest, GuestSource};
use crate::random::Random;
use crate::{
    EventSpec, GuestModel, GuestPerf, GuestSample, OnViolation, Scene, SceneError, VcpuTally,
};

mod happenings;
mod host_task;
mod run_guest;

use happenings::{Agenda, Happening};

/// The kernel of policies that are part of none, if the scene says nothing.
const KERNEL: KernelVersion = KernelVersion::new(6, 8, 0);

/// What a run led to.
#[derive(Debug)]
pub struct Outcome {
    /// The host as it stands, with ledger, journal and findings.
    pub machine: Machine,
    /// Each vCPU.
    pub vcpus: Vec<VcpuTally>,
    /// Samples of guests' sessions, by vCPU.
    pub samples: Vec<Vec<GuestSample>>,
    /// Samples that host events took.
    pub host_samples: u64,
    /// Clocks from begin to end.
    pub cycles: u64,
}

/// A task and what it waits for.
#[derive(Clone, Debug)]
struct TaskState {
    id: TaskId,
    /// Number of the vCPU whose thread it is.
    vcpu: Option<usize>,
    /// Number in the scene, of others.
    spec: Option<usize>,
    /// Where it may run.
    cpus: Vec<u16>,
    /// Clocks it has left to run until it sleeps.
    left: u64,
    /// Where it ran last.
    last: Option<u16>,
    branches: u64,
}

#[derive(Clone, Debug, Default)]
struct CpuState {
    now: u64,
    slice_end: u64,
    running: Option<usize>,
    ready: VecDeque<usize>,
    /// Deep C-states so far.
    deep: u64,
}

/// A stack that perf saved at a switch out.
#[derive(Clone, Copy, Debug)]
struct Left {
    last: Option<(LbrDataId, u64)>,
    cpu: usize,
    deep: u64,
}

#[derive(Debug)]
struct VcpuState<'s> {
    guest: Guest<'s>,
    feed: Feed<'s>,
    tally: VcpuTally,
    /// Instruction counts at which the scene's exits are due, by kind.
    due: [u64; 8],
    /// The earliest of them.
    next_exit: u64,
    random: Random,
    /// What the processor's LBR held for perf when the stack was saved, and how often the processor
    /// had then been through a deep C-state. `None`: nothing was saved.
    left: Option<Left>,
    perf: Option<GuestPerf>,
    perf_started: bool,
    samples: Vec<GuestSample>,
    /// LBR accesses before this time slice.
    lbr_before_slice: u64,
    ended: bool,
}

/// A scene under a policy.
#[derive(Debug)]
pub struct Simulation<'s> {
    scene: &'s Scene,
    machine: Machine,
    cpus: Vec<CpuState>,
    tasks: Vec<TaskState>,
    vcpus: Vec<VcpuState<'s>>,
    agenda: Agenda,
    events: BTreeMap<usize, Vec<EventId>>,
    random: Random,
    host_samples: u64,
    /// Clocks for a thousand instructions.
    clocks_per_thousand: u64,
    end: Option<u64>,
    /// Interrupt-driven host samples are kept by nobody; they are counted.
    kept_samples: usize,
}

/// Most samples of a vCPU that are kept.
const KEPT_SAMPLES: usize = 1 << 15;

impl<'s> Simulation<'s> {
    /// A scene under a policy, at its beginning. `sources` are the guests of its vCPUs, in their
    /// order.
    ///
    /// # Errors
    /// The scene does not fit the part, or names what is not there.
    pub fn new(
        scene: &'s Scene,
        sources: &'s [GuestSource],
        policy: &Arc<dyn Policy>,
        checking: Checking,
    ) -> Result<Self, SceneError> {
        let config = config(scene, sources, &**policy)?;
        let mut machine = Machine::new(&config, Arc::clone(policy), checking)?;
        let (mut tasks, mut vcpus) = (Vec::new(), Vec::new());
        let vms: Vec<_> = scene.vm.iter().map(|_| machine.add_vm()).collect();
        let lbr = vlbr_lbr::Profile::named(&scene.part)
            .map_err(|error| SceneError::value("part", error.to_string()))?;
        let pmu = vlbr_pmu::Profile::named(lbr.name())
            .map_err(|error| SceneError::value("part", error.to_string()))?;
        for (n, spec) in scene.vcpu.iter().enumerate() {
            let at = |key: &str| format!("vcpu[{n}].{key}");
            let vm = scene.vm.iter().position(|vm| vm.name == spec.vm);
            let vm = vm.ok_or_else(|| SceneError::value(at("vm"), "there is no such VM"))?;
            let guest = guest_cpu(lbr, &scene.vm[vm].guest)
                .map_err(|reason| SceneError::value(format!("vm[{vm}].guest.part"), reason))?;
            let id = machine.add_vcpu(vms[vm], guest)?;
            tasks.push(TaskState {
                id: machine.host().vcpu(id).thread,
                vcpu: Some(n),
                spec: None,
                cpus: match spec.cpus.is_empty() {
                    true => (0..scene.cpus).collect(),
                    false => spec.cpus.clone(),
                },
                left: u64::MAX,
                last: None,
                branches: 0,
            });
            let perf = match &spec.guest_perf {
                Some(text) => Some(GuestPerf::parse(text, lbr, pmu)?),
                None => None,
            };
            let source = sources
                .get(n)
                .ok_or_else(|| SceneError::value(at("trace"), "is missing"))?;
            let mut random = Random::new(scene.seed, 1 + n as u64);
            let due = spec
                .exits
                .rates()
                .map(|(_, rate)| due(&mut random, 0, rate));
            vcpus.push(VcpuState {
                guest: Guest::new(source),
                feed: Feed::new(source.code(), machine.feeds(), Clock::Instructions),
                tally: VcpuTally::default(),
                next_exit: due.iter().copied().min().unwrap_or(u64::MAX),
                due,
                random,
                left: None,
                perf,
                perf_started: false,
                samples: Vec::new(),
                lbr_before_slice: 0,
                ended: false,
            });
        }
        for (vm, spec) in vms.iter().zip(&scene.vm) {
            // Policies without the capability refuse it, and switch LBR on by other means.
            if spec.lbr {
                let _ = machine.apply(&Input::EnableCapability(*vm, true, true));
            }
        }
        let mut agenda = Agenda::default();
        for (n, spec) in scene.task.iter().enumerate() {
            tasks.push(TaskState {
                id: machine.add_task(&spec.name, spec.kernel_thread),
                vcpu: None,
                spec: Some(n),
                cpus: vec![spec.cpu],
                left: 0,
                last: None,
                branches: 0,
            });
            let task = tasks.len() - 1;
            agenda.add(clocks(scene, spec.from_us), Happening::Wake(task));
        }
        for (n, spec) in scene.event.iter().enumerate() {
            attr(n, spec, lbr, pmu)?;
            agenda.add(clocks(scene, spec.from_us), Happening::Open(n));
            if let Some(until) = spec.until_us {
                agenda.add(clocks(scene, until), Happening::Close(n));
            }
        }
        for task in 0..scene.vcpu.len() {
            agenda.add(0, Happening::Wake(task));
        }
        if scene.scheduling.rotation_us != 0 && !scene.event.is_empty() {
            for cpu in 0..scene.cpus {
                let at = clocks(scene, scene.scheduling.rotation_us);
                agenda.add(at, Happening::Rotate(cpu));
            }
        }
        Ok(Self {
            cpus: vec![CpuState::default(); scene.cpus.into()],
            clocks_per_thousand: ((1000.0 / scene.ipc) as u64).max(1),
            end: scene.duration_us.map(|us| clocks(scene, us)),
            random: Random::new(scene.seed, 0),
            scene,
            machine,
            tasks,
            vcpus,
            agenda,
            events: BTreeMap::new(),
            host_samples: 0,
            kept_samples: KEPT_SAMPLES,
        })
    }

    /// The machine as it stands.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Reads and writes MSR by MSR, where whole stacks could be moved at once.
    pub fn set_msr_by_msr(&mut self, on: bool) {
        for cpu in 0..self.cpus.len() {
            let hardware = self.machine.host_mut().hardware_mut();
            hardware.cpu_mut(CpuId(cpu as u16)).set_msr_by_msr(on);
        }
    }

    /// Runs the scene to its end. `progress` is told the instructions of all guests so far.
    ///
    /// # Errors
    /// A trace is damaged; a violation that ends the run.
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome, SceneError> {
        let mut rounds = 0u32;
        while self.advance()? {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(64) {
                progress(self.instructions());
            }
            self.stop_at_violation()?;
        }
        for cpu in 0..self.cpus.len() {
            let running = self.cpus[cpu].running;
            if let Some(vcpu) = running.and_then(|task| self.tasks[task].vcpu) {
                self.end_slice(vcpu);
            }
        }
        self.close_all()?;
        self.machine.finish();
        self.stop_at_violation()?;
        let cycles = self.cpus.iter().map(|cpu| cpu.now).max().unwrap_or(0);
        let (mut tallies, mut samples) = (Vec::new(), Vec::new());
        for (n, mut vcpu) in self.vcpus.into_iter().enumerate() {
            let journal = self.machine.host().journal();
            let levels = [Note::FastPath, Note::RunLoop, Note::UserSpace];
            let exits = levels.map(|level| journal.count(VcpuId(n as u16), level));
            vcpu.tally.exits.total = exits.iter().sum();
            tallies.push(vcpu.tally);
            samples.push(vcpu.samples);
        }
        Ok(Outcome {
            machine: self.machine,
            vcpus: tallies,
            samples,
            host_samples: self.host_samples,
            cycles,
        })
    }

    fn instructions(&self) -> u64 {
        let vcpus = self.vcpus.iter();
        vcpus.map(|vcpu| vcpu.tally.instructions).sum()
    }

    fn stop_at_violation(&self) -> Result<(), SceneError> {
        if self.scene.on_violation == OnViolation::Report {
            return Ok(());
        }
        match self.machine.findings().violations().first() {
            None => Ok(()),
            Some(violation) => Err(SceneError::Violation(Box::new(violation.clone()))),
        }
    }

    /// What comes next in time happens. `false`: the scene is over.
    fn advance(&mut self) -> Result<bool, SceneError> {
        if !self.vcpus.is_empty() && self.vcpus.iter().all(|vcpu| vcpu.ended) {
            return Ok(false);
        }
        let next = self.agenda.first();
        // Of processors with something to do the one that is behind, by number.
        let busy = (0..self.cpus.len())
            .filter(|cpu| self.has_work(*cpu))
            .min_by_key(|cpu| (self.cpus[*cpu].now, *cpu));
        let until = match (next, self.end) {
            (Some(next), Some(end)) => next.min(end),
            (Some(next), None) => next,
            (None, Some(end)) => end,
            (None, None) => u64::MAX,
        };
        match busy {
            Some(cpu) if self.cpus[cpu].now < until => {
                self.run_cpu(cpu, until)?;
                Ok(true)
            }
            _ => {
                if self.end.is_some_and(|end| end <= until) || next.is_none() {
                    return Ok(false);
                }
                let Some((at, happening)) = self.agenda.take() else {
                    return Ok(false);
                };
                self.happens(at, happening)?;
                Ok(true)
            }
        }
    }

    fn has_work(&self, cpu: usize) -> bool {
        let cpu = &self.cpus[cpu];
        cpu.running.is_some() || !cpu.ready.is_empty()
    }

    fn apply(&mut self, input: &Input) -> Result<Output, SceneError> {
        Ok(self.machine.apply(input)?)
    }

    /// The processor's clock goes on to `at`, if it is behind.
    fn catch_up(&mut self, cpu: usize, at: u64) {
        let state = &mut self.cpus[cpu];
        state.now = state.now.max(at);
        self.set_clock(cpu);
    }

    fn set_clock(&mut self, cpu: usize) {
        let now = vlbr_arch::Cycles::new(self.cpus[cpu].now);
        let hardware = self.machine.host_mut().hardware_mut();
        hardware.cpu_mut(CpuId(cpu as u16)).set_now(now);
    }

    /// Runs a processor up to a time, or a little beyond.
    fn run_cpu(&mut self, cpu: usize, until: u64) -> Result<(), SceneError> {
        let Some(task) = self.cpus[cpu].running else {
            return self.pick(cpu);
        };
        let slice_end = self.cpus[cpu].slice_end;
        if self.cpus[cpu].now >= slice_end {
            if self.cpus[cpu].ready.is_empty() {
                self.cpus[cpu].slice_end = self.cpus[cpu].now + self.slice();
            } else {
                self.cpus[cpu].ready.push_back(task);
                return self.pick(cpu);
            }
        }
        let until = until.min(self.cpus[cpu].slice_end);
        match self.tasks[task].vcpu {
            Some(vcpu) => self.run_vcpu(cpu, vcpu, until),
            None => self.run_task(cpu, task, until),
        }
    }

    fn slice(&self) -> u64 {
        clocks(self.scene, self.scene.scheduling.slice_us)
    }

    /// The next task that is ready gets the processor, or it idles.
    fn pick(&mut self, cpu: usize) -> Result<(), SceneError> {
        let next = self.cpus[cpu].ready.pop_front();
        self.switch_to(cpu, next)
    }

    fn switch_to(&mut self, cpu: usize, next: Option<usize>) -> Result<(), SceneError> {
        let before = self.cpus[cpu].running;
        if before == next {
            return Ok(());
        }
        let leaves = before.and_then(|task| self.tasks[task].vcpu);
        if let Some(vcpu) = leaves {
            self.end_slice(vcpu);
        }
        if let Some(vcpu) = next.and_then(|task| self.tasks[task].vcpu) {
            self.comes_back(cpu, vcpu);
        }
        self.set_clock(cpu);
        let task = next.map(|next| self.tasks[next].id);
        self.apply(&Input::Switch(CpuId(cpu as u16), task))?;
        if let Some(vcpu) = leaves {
            self.has_left(cpu, vcpu);
        }
        self.cpus[cpu].running = next;
        self.cpus[cpu].slice_end = self.cpus[cpu].now + self.slice();
        if let Some(next) = next {
            let last = self.tasks[next].last.replace(cpu as u16);
            if let Some(vcpu) = self.tasks[next].vcpu {
                let tally = &mut self.vcpus[vcpu].tally.switches;
                tally.pairs += u64::from(last.is_some());
                tally.migrations += u64::from(last.is_some_and(|last| last != cpu as u16));
            }
        } else if self.scene.scheduling.deep_c_states {
            self.apply(&Input::DeepCState(CpuId(cpu as u16)))?;
            self.cpus[cpu].deep += 1;
        }
        Ok(())
    }

    /// What perf saved of the vCPU that was switched out.
    fn has_left(&mut self, cpu: usize, vcpu: usize) {
        let perf = self.machine.host().perf();
        let thread = self.machine.host().vcpu(VcpuId(vcpu as u16)).thread;
        let saved = perf
            .lbr_context(thread)
            .filter(|context| context.stack_state() == StackState::Valid);
        let valid = saved.map(|context| {
            let entries = context.entries().into_iter();
            match self.machine.host().lbr_msrs().arch {
                true => entries.take_while(|e| e.from().value != 0).count() as u64,
                false => context.valid_lbrs().into(),
            }
        });
        let left = Left {
            last: perf.lbr_cpu(CpuId(cpu as u16)).last(),
            cpu,
            deep: self.cpus[cpu].deep,
        };
        let nr = u64::from(self.machine.host().lbr_msrs().nr);
        let state = &mut self.vcpus[vcpu];
        state.left = valid.map(|_| left);
        if let Some(valid) = valid {
            state.tally.saved.saves += 1;
            state.tally.saved.entries += valid;
            state.tally.saved.full += u64::from(valid == nr);
        }
    }

    /// Whether what perf saved of the vCPU still stands in the registers, when it is switched in.
    fn comes_back(&mut self, cpu: usize, vcpu: usize) {
        let Some(left) = self.vcpus[vcpu].left.take() else {
            return;
        };
        let perf = self.machine.host().perf();
        let last = perf.lbr_cpu(CpuId(cpu as u16)).last();
        let same = left.cpu == cpu && left.last.is_some() && left.last == last;
        let deep = self.cpus[cpu].deep != left.deep;
        let tally = &mut self.vcpus[vcpu].tally.switches;
        tally.kept += u64::from(same && !deep);
        tally.disturbed += u64::from(!same || deep);
        tally.c_states += u64::from(same && deep);
    }

    /// What is counted when a time slice of a vCPU ends.
    fn end_slice(&mut self, vcpu: usize) {
        let state = &mut self.vcpus[vcpu];
        let accesses = state.tally.lbr_accesses + state.tally.debugctl_accesses;
        state.tally.slices_with_lbr += u64::from(accesses != state.lbr_before_slice);
        state.lbr_before_slice = accesses;
    }

    fn close_all(&mut self) -> Result<(), SceneError> {
        let open: Vec<_> = self.events.values().flatten().copied().collect();
        self.events.clear();
        for event in open {
            self.apply(&Input::Close(event))?;
        }
        Ok(())
    }

    /// How often something was noted, over all vCPUs.
    #[must_use]
    pub fn notes(&self, note: Note) -> u64 {
        self.machine.host().journal().total(note)
    }
}

/// Clocks of so many microseconds.
fn clocks(scene: &Scene, us: u64) -> u64 {
    us.saturating_mul(scene.mhz.into())
}

/// The instruction count at which an exit with this rate comes next.
fn due(random: &mut Random, now: u64, per_million: u32) -> u64 {
    match per_million {
        0 => u64::MAX,
        rate => now.saturating_add(random.gap(1_000_000 / u64::from(rate))),
    }
}

/// The Linux that a scene runs on under a policy: the policy's, if it is part of one, then the scene's.
///
/// # Errors
/// The scene's is no version.
pub fn kernel(scene: &Scene, policy: &dyn Policy) -> Result<KernelVersion, SceneError> {
    match (&scene.kernel, policy.kernel()) {
        (_, Some(kernel)) => Ok(kernel),
        (Some(text), None) => text
            .parse()
            .map_err(|error: VersionError| SceneError::value("kernel", error.to_string())),
        (None, None) => Ok(KERNEL),
    }
}

fn config(
    scene: &Scene,
    sources: &[GuestSource],
    policy: &dyn Policy,
) -> Result<HostConfig, SceneError> {
    let kernel = kernel(scene, policy)?;
    let mut behaviour = Behaviour::of(kernel);
    policy.adjust(&mut behaviour);
    let mut options = Options::default();
    options.pmu.unfed = Unfed::Hold;
    options.pmu.feeds = sources.iter().fold(options.pmu.feeds, |feeds, source| {
        feeds.with(run_guest::sources(source))
    });
    Ok(HostConfig {
        part: scene.part.clone(),
        cpus: scene.cpus.into(),
        options,
        behaviour,
        kvm: KvmBehaviour::of(kernel),
        ignore_msrs: scene.ignore_msrs,
    })
}

fn guest_cpu(host: &vlbr_lbr::Profile, model: &GuestModel) -> Result<GuestCpu, String> {
    let part = match &model.part {
        Some(name) => vlbr_lbr::Profile::named(name).map_err(|error| error.to_string())?,
        None => host,
    };
    let family_and_model = part.models().first();
    let arch_lbr_ebx = match part.interface() {
        vlbr_lbr::Interface::Arch(arch) => arch.ebx,
        vlbr_lbr::Interface::Legacy(_) => 0,
    };
    Ok(GuestCpu {
        model: *family_and_model.ok_or_else(|| format!("{} has no model number", part.name()))?,
        pdcm: model.pdcm,
        pmu_version: model.pmu_version,
        gp_counters: model.counters,
        fixed_counters: model.fixed_counters,
        arch_lbr_ebx,
    })
}

/// What `perf record` would open for an event of the scene.
fn attr(
    n: usize,
    spec: &EventSpec,
    lbr: &vlbr_lbr::Profile,
    pmu: &vlbr_pmu::Profile,
) -> Result<EventAttr, SceneError> {
    let bad = |key: &str, reason: String| SceneError::value(format!("event[{n}].{key}"), reason);
    let event = pmu
        .parse_event(&spec.event, &vlbr_pmu::Options::default())
        .map_err(|error| bad("event", error.to_string()))?;
    let filter = match &spec.branch_filter {
        None => None,
        Some(names) => {
            let types = parse_branch_filter(names)
                .map_err(|error| bad("branch-filter", error.to_string()))?;
            let types = with_event_privileges(types, event.user, event.kernel);
            vlbr_host::perf::LbrFilter::new(lbr, types)
                .map_err(|error| bad("branch-filter", error.to_string()))?;
            Some(types)
        }
    };
    let mut attr = EventAttr::sampling(&event, spec.period, filter);
    attr.pinned = spec.pinned;
    attr.exclusive = spec.exclusive;
    attr.exclude_guest = spec.exclude_guest;
    attr.exclude_host = spec.exclude_host;
    Ok(attr)
}

impl Simulation<'_> {
    /// Opens an event of the scene, on one processor or on each.
    fn open_event(&mut self, n: usize) -> Result<(), SceneError> {
        let spec = &self.scene.event[n];
        let lbr = self
            .machine
            .host()
            .hardware()
            .fresh()
            .lbr()
            .profile()
            .clone();
        let pmu = self
            .machine
            .host()
            .hardware()
            .fresh()
            .pmu()
            .profile()
            .clone();
        let attr = attr(n, spec, &lbr, &pmu)?;
        let task = match (&spec.task, spec.vcpu) {
            (Some(name), _) => {
                let found = self
                    .tasks
                    .iter()
                    .find(|task| task.spec.is_some_and(|n| self.scene.task[n].name == *name));
                found.map(|task| task.id)
            }
            (None, Some(vcpu)) => Some(self.machine.host().vcpu(VcpuId(vcpu as u16)).thread),
            (None, None) => None,
        };
        let targets: Vec<_> = match (task, spec.cpu) {
            (Some(task), Some(cpu)) => vec![Target::TaskOnCpu(task, CpuId(cpu))],
            (Some(task), None) => vec![Target::Task(task)],
            (None, Some(cpu)) => vec![Target::Cpu(CpuId(cpu))],
            (None, None) => (0..self.scene.cpus)
                .map(|cpu| Target::Cpu(CpuId(cpu)))
                .collect(),
        };
        for target in targets {
            let input = Input::Open(Box::new(attr), target, Creator::User, None);
            if let Output::Event(event) = self.apply(&input)? {
                self.events.entry(n).or_default().push(event);
            }
        }
        Ok(())
    }
}
