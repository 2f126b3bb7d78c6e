//! A scene over time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use vlbr_cpu::Feed;
use vlbr_host::kvm::Note;
use vlbr_host::machine::{Checking, Input, Machine, MsrValues, Output};
use vlbr_host::perf::{EventId, LbrDataId, PmiSample};
use vlbr_host::policy::Policy;
use vlbr_host::{CpuId, TaskId, VcpuId};

use crate::guest::{Guest, GuestSource};
use crate::random::Random;
use crate::timeline::Watch;
use crate::{
    GuestPerf, GuestSample, HostStacks, MonitorTally, OnViolation, Scene, SceneError, SceneTime,
    VcpuTally,
};

mod accesses;
mod clock;
mod drawn;
mod exit_kind;
mod fed;
mod happenings;
mod host_task;
mod monitor;
#[cfg(test)]
mod one_clock;
mod passing;
mod pmis;
mod progress;
mod run_guest;
mod setup;
mod step;
mod switch;

use accesses::DueAccess;
use clock::{GuestClock, clocks_per_thousand};
use exit_kind::ExitKind;
use fed::Fed;
use happenings::{Agenda, Happening};
pub use passing::{CpuTime, TimeTally};
use progress::Progress;
pub use setup::kernel;
use setup::{attr, config, event_options, guest_cpu};

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
    /// The branch stacks of these.
    pub host_stacks: HostStacks,
    /// What user space did to vCPUs, in the order in which it did.
    pub monitored: Vec<MonitorTally>,
    /// Clocks from begin to end.
    pub cycles: u64,
    /// Where they went; `None` if time is nominal.
    pub time: Option<TimeTally>,
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
    /// Clocks of its slice that it had left when a task of the host took its place; 0: it gets a
    /// whole one.
    slice_left: u64,
    /// Where it ran last.
    last: Option<u16>,
    /// When it left that.
    left_at: u64,
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
    time: CpuTime,
    /// Clocks of the host that counters have not been given.
    owed: u64,
}

/// A stack that perf saved at a switch out.
#[derive(Clone, Copy, Debug)]
struct Left {
    last: Option<(LbrDataId, u64)>,
    cpu: usize,
    deep: u64,
    /// No entry was valid, so that perf takes the registers for reset when it looks.
    empty: bool,
}

#[derive(Debug)]
struct VcpuState<'s> {
    guest: Guest<'s>,
    clock: GuestClock,
    /// Clocks of the guest so far.
    clocks: u64,
    feed: Fed<'s>,
    tally: VcpuTally,
    /// The kinds of exits that the scene's rates say.
    exits: Vec<ExitKind>,
    /// Instruction counts at which they are due, by kind.
    due: Vec<u64>,
    /// Accesses of the scene, with the instruction counts at which they are due.
    accesses: Vec<DueAccess>,
    /// The earliest of them all.
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
    /// PMIs for which the guest's handler has begun.
    pmis: u64,
    /// It runs.
    handles_pmi: bool,
    /// What user space is to do when the thread runs.
    asked: VecDeque<usize>,
    /// What it read last.
    msrs: MsrValues,
    ended: bool,
}

/// A scene under a policy.
#[derive(Debug)]
pub struct Simulation<'s> {
    scene: &'s Scene,
    time: &'s SceneTime,
    machine: Machine,
    cpus: Vec<CpuState>,
    tasks: Vec<TaskState>,
    vcpus: Vec<VcpuState<'s>>,
    agenda: Agenda,
    events: BTreeMap<usize, Vec<EventId>>,
    random: Random,
    host_samples: u64,
    host_stacks: HostStacks,
    monitored: Vec<MonitorTally>,
    /// Clocks for a thousand instructions of the host.
    clocks_per_thousand: u64,
    end: Option<u64>,
    /// Interrupt-driven host samples are kept by nobody; they are counted.
    kept_samples: usize,
    /// What was spent on processors, while it is dealt with.
    spent: Vec<(usize, u64)>,
    /// What is drawn of the run.
    watch: Option<Box<Watch<'s>>>,
}

/// Most samples of a vCPU that are kept.
const KEPT_SAMPLES: usize = 1 << 15;

impl<'s> Simulation<'s> {
    /// A scene under a policy, at its beginning. `sources` are the guests of its vCPUs, in their
    /// order, for which `time` was made: that of the scene ([`SceneTime::of`]) or another.
    ///
    /// # Errors
    /// The scene does not fit the part, or names what is not there.
    pub fn new(
        scene: &'s Scene,
        sources: &'s [GuestSource],
        time: &'s SceneTime,
        policy: &Arc<dyn Policy>,
        checking: Checking,
    ) -> Result<Self, SceneError> {
        let config = config(scene, sources, time, &**policy)?;
        let mut machine = Machine::new(&config, Arc::clone(policy), checking)?;
        if let SceneTime::Model(time) = time {
            let hardware = machine.host_mut().hardware_mut();
            hardware.set_prices(time.prices.clone());
        }
        let (mut tasks, mut vcpus) = (Vec::new(), Vec::<VcpuState<'_>>::new());
        let vms: Vec<_> = scene.vm.iter().map(|_| machine.add_vm()).collect();
        let lbr = vlbr_lbr::Profile::named(&scene.part)
            .map_err(|error| SceneError::value("part", error.to_string()))?;
        let pmu = vlbr_pmu::Profile::named(lbr.name())
            .map_err(|error| SceneError::value("part", error.to_string()))?;
        let options = event_options(time, &machine);
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
                slice_left: 0,
                last: None,
                left_at: 0,
                branches: 0,
            });
            let perf = match &spec.guest_perf {
                Some(text) => Some(GuestPerf::parse(text, lbr, pmu, &options)?),
                None => None,
            };
            let source = sources
                .get(n)
                .ok_or_else(|| SceneError::value(at("trace"), "is missing"))?;
            let mut random = Random::new(scene.seed, 1 + n as u64);
            let exits = ExitKind::of(scene, spec);
            let due: Vec<_> = exits.iter().map(|kind| kind.due(&mut random, 0)).collect();
            vcpus.push(VcpuState {
                guest: Guest::new(source),
                clock: GuestClock::new(scene, time, n),
                clocks: 0,
                feed: Fed::new(Feed::new(source.code(), machine.feeds(), time.clock())),
                tally: VcpuTally::default(),
                accesses: accesses::of(n, spec)?,
                next_exit: 0,
                due,
                exits,
                random,
                left: None,
                perf,
                perf_started: false,
                samples: Vec::new(),
                lbr_before_slice: 0,
                pmis: 0,
                handles_pmi: false,
                asked: VecDeque::new(),
                msrs: MsrValues::new(),
                ended: false,
            });
            if let Some(vcpu) = vcpus.last_mut() {
                vcpu.find_next();
            }
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
                slice_left: 0,
                last: None,
                left_at: 0,
                branches: 0,
            });
            let task = tasks.len() - 1;
            agenda.add(clocks(scene, spec.from_us), Happening::Wake(task));
        }
        for (n, spec) in scene.event.iter().enumerate() {
            attr(n, spec, lbr, (pmu, &options))?;
            agenda.add(clocks(scene, spec.from_us), Happening::Open(n));
            if let Some(until) = spec.until_us {
                agenda.add(clocks(scene, until), Happening::Close(n));
            }
        }
        for (n, spec) in scene.monitor.iter().enumerate() {
            agenda.add(clocks(scene, spec.at_us), Happening::Monitor(n));
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
            clocks_per_thousand: clocks_per_thousand(scene),
            end: scene.duration_us.map(|us| clocks(scene, us)),
            random: Random::new(scene.seed, 0),
            scene,
            time,
            machine,
            tasks,
            vcpus,
            agenda,
            events: BTreeMap::new(),
            host_samples: 0,
            host_stacks: HostStacks::default(),
            monitored: Vec::new(),
            kept_samples: KEPT_SAMPLES,
            spent: Vec::new(),
            watch: None,
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
    pub fn run(self, progress: &mut dyn FnMut(u64)) -> Result<Outcome, SceneError> {
        let mut rounds = 0u32;
        self.observed(&mut |run| {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(64) {
                progress(run.instructions());
            }
        })
    }

    /// Runs the scene to its end. `look` sees it after whatever happens at a time and after each
    /// stretch that a task runs.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub(crate) fn observed(mut self, look: &mut dyn FnMut(&Self)) -> Result<Outcome, SceneError> {
        let mut progress = Progress::default();
        while self.advance()? {
            if self.is_modelled_time() && self.end.is_none() {
                progress.made(&self)?;
            }
            look(&self);
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
        self.draw_at(0, None);
        if let Some(watch) = self.watch.take() {
            watch.finish().map_err(SceneError::Timeline)?;
        }
        let cycles = self.cpus.iter().map(|cpu| cpu.now).max().unwrap_or(0);
        let time = self.is_modelled_time().then(|| TimeTally {
            cpus: self.cpus.iter().map(|cpu| cpu.time).collect(),
            guests: self.vcpus.iter().map(|vcpu| vcpu.clocks).collect(),
        });
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
            host_stacks: self.host_stacks,
            monitored: self.monitored,
            cycles,
            time,
        })
    }

    /// perf events of the scene that are open, by number.
    pub(crate) const fn events(&self) -> &BTreeMap<usize, Vec<EventId>> {
        &self.events
    }

    fn host_took(&mut self, samples: &[PmiSample]) {
        self.host_samples += samples.len() as u64;
        samples
            .iter()
            .for_each(|sample| self.host_stacks.add(sample));
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
        let output = self.machine.apply(input)?;
        self.pass_costs()?;
        if self.watch.is_some() {
            self.draw(input);
        }
        Ok(output)
    }

    /// The processor's clock goes on to `at`, if it is behind.
    fn catch_up(&mut self, cpu: usize, at: u64) {
        let state = &mut self.cpus[cpu];
        state.time.idle += at.saturating_sub(state.now);
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
                return self.make_way(cpu, task);
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
