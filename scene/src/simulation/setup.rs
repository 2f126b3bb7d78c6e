//! What a scene's part, kernel and events make.

use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{GuestCpu, KvmBehaviour};
use vlbr_host::machine::{HostConfig, Input, Machine, Output};
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, KernelVersion, Target, VersionError, parse_branch_filter,
    with_event_privileges,
};
use vlbr_host::policy::Policy;
use vlbr_host::{CpuId, VcpuId};
use vlbr_pmu::{Device as _, Unfed};

use super::{Simulation, run_guest};
use crate::guest::GuestSource;
use crate::{EventSpec, GuestModel, Scene, SceneError, SceneTime};

/// The kernel of policies that are part of none, if the scene says nothing.
const KERNEL: KernelVersion = KernelVersion::new(6, 8, 0);

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

pub(super) fn config(
    scene: &Scene,
    sources: &[GuestSource],
    time: &SceneTime,
    policy: &dyn Policy,
) -> Result<HostConfig, SceneError> {
    let kernel = kernel(scene, policy)?;
    let mut behaviour = Behaviour::of(kernel);
    policy.adjust(&mut behaviour);
    let mut options = Options::default();
    options.pmu.unfed = Unfed::Hold;
    options.pmu.feeds = sources.iter().fold(options.pmu.feeds, |feeds, source| {
        feeds.with(run_guest::sources(source, time.clock()))
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

pub(super) fn guest_cpu(host: &vlbr_lbr::Profile, model: &GuestModel) -> Result<GuestCpu, String> {
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

/// What events of the scene may count: clocks and what else a model tells, if there is one.
pub(super) fn event_options(time: &SceneTime, machine: &Machine) -> vlbr_pmu::Options {
    let mut options = vlbr_pmu::Options::default();
    if let SceneTime::Model(_) = time {
        options.feeds = machine.feeds();
    }
    options
}

/// What `perf record` would open for an event of the scene.
pub(super) fn attr(
    n: usize,
    spec: &EventSpec,
    lbr: &vlbr_lbr::Profile,
    (pmu, options): (&vlbr_pmu::Profile, &vlbr_pmu::Options),
) -> Result<EventAttr, SceneError> {
    let bad = |key: &str, reason: String| SceneError::value(format!("event[{n}].{key}"), reason);
    let event = pmu
        .parse_event(&spec.event, options)
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
    pub(super) fn open_event(&mut self, n: usize) -> Result<(), SceneError> {
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
        let options = event_options(self.time, &self.machine);
        let attr = attr(n, spec, &lbr, (&pmu, &options))?;
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
