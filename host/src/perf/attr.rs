//! What is asked for when an event is opened: `struct perf_event_attr`, as far as placement and the
//! LBR look at it.

use vlbr_arch::PerfEvtSel;
use vlbr_pmu::{CounterSet, EventSpec};
use vlbr_traces::perfdata::BranchSampleType;

use crate::{CpuId, TaskId};

/// The event number of [`crate::perf::Perf`]. Numbers are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u32);

impl core::fmt::Display for EventId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "event{}", self.0)
    }
}

/// What an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An event of the core's PMU.
    Counter {
        /// Event, unit mask and the bits that choose what is counted.
        select: PerfEvtSel,
        /// Counters that can count it: its static constraint.
        counters: CounterSet,
    },
    /// `INTEL_FIXED_VLBR_EVENT`, config 0x1b00: the guest's LBR since 5.9.
    VirtualLbr,
    /// An event of software, which needs no hardware.
    Software,
}

impl EventKind {
    /// `perf_event_attr.config` of [`EventKind::VirtualLbr`].
    pub const VIRTUAL_LBR_CONFIG: u64 = 0x1b00;

    /// What `perf -e` names.
    #[must_use]
    pub const fn of(spec: &EventSpec) -> Self {
        Self::Counter {
            select: spec.select,
            counters: spec.counters,
        }
    }

    /// Type RAW with config 0: any general-purpose counter, and it counts nothing.
    pub const RAW_0: Self = Self::Counter {
        select: PerfEvtSel::from_bits(0),
        counters: CounterSet(u32::MAX as u64),
    };
}

/// `struct perf_event_attr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventAttr {
    /// What is counted.
    pub kind: EventKind,
    /// Always on, or in ERROR.
    pub pinned: bool,
    /// Alone on the PMU.
    pub exclusive: bool,
    /// Not in root operation.
    pub exclude_host: bool,
    /// Not in non-root operation.
    pub exclude_guest: bool,
    /// Not above CPL 0.
    pub exclude_user: bool,
    /// Not at CPL 0.
    pub exclude_kernel: bool,
    /// 1 and up ask for PEBS.
    pub precise_ip: u8,
    /// Events between samples; 0 counts without sampling.
    pub period: u64,
    /// Starts OFF.
    pub disabled: bool,
    /// Children get a copy.
    pub inherit: bool,
    /// A branch stack in each sample.
    pub branch_sample_type: Option<BranchSampleType>,
}

impl EventAttr {
    /// A flexible event that only counts, everywhere.
    #[must_use]
    pub const fn counting(kind: EventKind) -> Self {
        Self {
            kind,
            pinned: false,
            exclusive: false,
            exclude_host: false,
            exclude_guest: false,
            exclude_user: false,
            exclude_kernel: false,
            precise_ip: 0,
            period: 0,
            disabled: false,
            inherit: false,
            branch_sample_type: None,
        }
    }

    /// What `perf record -e SPEC -c PERIOD` opens, with a branch stack if a filter is given.
    #[must_use]
    pub const fn sampling(
        spec: &EventSpec,
        period: u64,
        branches: Option<BranchSampleType>,
    ) -> Self {
        let mut attr = Self::counting(EventKind::of(spec));
        attr.exclude_user = !spec.user;
        attr.exclude_kernel = !spec.kernel;
        attr.precise_ip = spec.precise;
        attr.period = period;
        attr.branch_sample_type = branches;
        attr
    }

    const fn guest_lbr(kind: EventKind) -> Self {
        let mut attr = Self::counting(kind);
        attr.pinned = true;
        attr.exclude_host = true;
        let user = BranchSampleType::USER.0;
        attr.branch_sample_type = Some(BranchSampleType(user | BranchSampleType::CALL_STACK.0));
        attr
    }

    /// The vCPU's event of the series "Guest LBR Enabling" v8, patch 09.
    pub const V8_GUEST_LBR: Self = Self::guest_lbr(EventKind::RAW_0);

    /// The vCPU's event since 5.12: `intel_pmu_create_guest_lbr_event`.
    pub const VIRTUAL_GUEST_LBR: Self = Self::guest_lbr(EventKind::VirtualLbr);

    /// `is_sampling_event`.
    #[must_use]
    pub const fn is_sampling(&self) -> bool {
        self.period != 0
    }
}

/// What an event is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Whatever runs on a processor.
    Cpu(CpuId),
    /// A task, wherever it runs.
    Task(TaskId),
    /// A task while it runs on a processor.
    TaskOnCpu(TaskId, CpuId),
}

impl Target {
    /// The task.
    #[must_use]
    pub const fn task(self) -> Option<TaskId> {
        match self {
            Self::Cpu(_) => None,
            Self::Task(task) | Self::TaskOnCpu(task, _) => Some(task),
        }
    }

    /// The processor: `event->cpu`.
    #[must_use]
    pub const fn cpu(self) -> Option<CpuId> {
        match self {
            Self::Cpu(cpu) | Self::TaskOnCpu(_, cpu) => Some(cpu),
            Self::Task(_) => None,
        }
    }
}

/// Who opened an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Creator {
    /// A process: `event->owner` is its task.
    User,
    /// KVM: `event->owner` is the tombstone of kernel events.
    Kvm,
    /// Another part of the kernel, with the same tombstone.
    KernelOther,
}

impl Creator {
    /// `is_kernel_event`.
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        !matches!(self, Self::User)
    }
}
