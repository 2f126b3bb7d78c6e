//! What a scene consists of.

use std::sync::Arc;

use vlbr_arch::Msr;
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{Answer, GuestCpu, KvmBehaviour};
use vlbr_host::machine::{Checking, HostConfig, Input, Machine, Output};
use vlbr_host::perf::{Behaviour, EventAttr, KernelVersion, Target, parse_branch_filter};
use vlbr_host::policy::Policy;
use vlbr_host::{CpuId, TaskId, VcpuId};
use vlbr_pmu::{Device as _, SourceSet};

use crate::ContractError;

/// The kernel of policies that are part of none.
const KERNEL: KernelVersion = KernelVersion::new(6, 16, 0);
/// Of the host's event: it never overflows.
const PERIOD: u64 = 1 << 20;
/// What the host's event counts: nothing that a scene's branches are.
const COUNTS: &str = "cycles";
const FILTER: &str = "any,u,k";

/// The class of the host's event, which needs the LBR too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rival {
    /// Of the processor, pinned.
    PinnedOnCpu,
    /// Of the processor, flexible.
    FlexibleOnCpu,
    /// Of the vCPU's thread, pinned.
    PinnedOfThread,
    /// Of the vCPU's thread, flexible.
    FlexibleOfThread,
}

impl Rival {
    /// Every class with its name.
    pub const NAMED: [(Self, &'static str); 4] = [
        (Self::PinnedOnCpu, "pinned-cpu"),
        (Self::FlexibleOnCpu, "flexible-cpu"),
        (Self::PinnedOfThread, "pinned-task"),
        (Self::FlexibleOfThread, "flexible-task"),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMED[self as usize].1
    }

    const fn pinned(self) -> bool {
        matches!(self, Self::PinnedOnCpu | Self::PinnedOfThread)
    }

    const fn on_cpu(self) -> bool {
        matches!(self, Self::PinnedOnCpu | Self::FlexibleOnCpu)
    }

    /// What a scenario says of it behind its name.
    pub(crate) fn text(self) -> String {
        let of = if self.on_cpu() { "on cpu0" } else { "of v0" };
        let pinned = if self.pinned() { " pinned" } else { "" };
        format!("{COUNTS} {of}{pinned} period {PERIOD} branch {FILTER}")
    }
}

/// One vCPU, one processor, one event of the host that comes and goes.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The part, as `vlbr list` names it.
    pub part: String,
    /// The policy of the host.
    pub policy: Arc<dyn Policy>,
    /// The class of the host's event.
    pub rival: Rival,
    /// Most branches of the guest on a path.
    pub guest_branches: u8,
    /// Most branches of the host on a path.
    pub host_branches: u8,
    /// How often the host's event is opened or enabled on a path, at most. Without a bound some kernels
    /// have no end of states: `lbr_callstack_users` of 6.16 goes down each time.
    pub openings: u8,
}

/// A scene before its first action.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) machine: Machine,
    pub(crate) rival: Box<EventAttr>,
    pub(crate) target: Target,
    /// What a scenario says of the host's event.
    pub(crate) event_text: String,
    /// The same as steps of a scenario.
    pub(crate) lines: Vec<String>,
}

impl Scene {
    /// The vCPU.
    pub(crate) const VCPU: VcpuId = VcpuId(0);
    /// Its thread.
    pub(crate) const THREAD: TaskId = TaskId(0);
    /// The processor.
    pub(crate) const CPU: CpuId = CpuId(0);

    /// One vCPU, one processor and one event on Skylake, with one branch of the guest and one of
    /// the host, and an event that is opened or enabled twice.
    #[must_use]
    pub fn smallest(policy: Arc<dyn Policy>, rival: Rival) -> Self {
        Self {
            part: "skylake".to_owned(),
            policy,
            rival,
            guest_branches: 1,
            host_branches: 1,
            openings: 2,
        }
    }

    fn config(&self) -> HostConfig {
        let version = self.policy.kernel().unwrap_or(KERNEL);
        let mut behaviour = Behaviour::of(version);
        self.policy.adjust(&mut behaviour);
        // As in scenarios.
        let mut options = Options::default();
        options.pmu.feeds = SourceSet::ALL;
        HostConfig {
            part: self.part.clone(),
            cpus: 1,
            options,
            behaviour,
            kvm: KvmBehaviour::of(version),
            ignore_msrs: false,
        }
    }

    /// The vCPU's thread runs, in user space, and the vCPU was given its LBR.
    pub(crate) fn start(&self) -> Result<Start, ContractError> {
        let mut machine = Machine::new(&self.config(), Arc::clone(&self.policy), Checking::On)?;
        let processor = machine.host().hardware().cpu(Self::CPU);
        if processor.lbr_msrs().select.is_none() {
            return Err(ContractError::Part(self.part.clone()));
        }
        let format = processor.peek(Msr::PERF_CAPABILITIES).unwrap_or(0) & 0x3f;
        let pmu = processor.logical().pmu();
        let counts = pmu.profile().parse_event(COUNTS, pmu.options());
        let counts = counts.map_err(|error| ContractError::Event(error.to_string()))?;
        let filter = parse_branch_filter(FILTER);
        let filter = filter.map_err(|error| ContractError::Event(error.to_string()))?;
        let mut rival = EventAttr::sampling(&counts, PERIOD, Some(filter));
        rival.pinned = self.rival.pinned();
        let models = processor.logical().lbr().profile().models();
        let model = *models
            .first()
            .ok_or_else(|| ContractError::Part(self.part.clone()))?;

        let vm = machine.add_vm();
        let guest_cpu = GuestCpu {
            model,
            pdcm: true,
            pmu_version: 2,
            gp_counters: 4,
            fixed_counters: 3,
            arch_lbr_ebx: 0,
        };
        machine.add_vcpu(vm, guest_cpu)?;
        let mut lines = vec!["vcpu v0 in a".to_owned()];
        if self.policy.check_capability(machine.host()) != 0 {
            let enabled = machine.apply(&Input::EnableCapability(vm, true, true))?;
            if let Output::Stack(s) = enabled {
                lines.push(format!(
                    "cap a on => {} {:#x} {:#x} {:#x} {:#x}",
                    s.nr, s.tos, s.from, s.to, s.info
                ));
            }
        }
        machine.apply(&Input::Switch(Self::CPU, Some(Self::THREAD)))?;
        lines.push("switch cpu0 v0".to_owned());
        let told = Input::UserWrite(Self::THREAD, Self::VCPU, Msr::PERF_CAPABILITIES, format);
        let refused = match machine.apply(&told)? {
            Output::User(Answer::Done) => "",
            _ => " => error",
        };
        lines.push(format!(
            "user v0 v0 wrmsr IA32_PERF_CAPABILITIES {format:#x}{refused}"
        ));
        let _ = machine.take_results();
        Ok(Start {
            machine,
            rival: Box::new(rival),
            target: match self.rival.on_cpu() {
                true => Target::Cpu(Self::CPU),
                false => Target::Task(Self::THREAD),
            },
            event_text: self.rival.text(),
            lines,
        })
    }
}
