//! All state of perf, and what may be looked at.

use std::collections::BTreeMap;

use super::core::{Context, ContextId, Holder};
use super::lbr::{CpuLbr, GuestLbrs, LbrContext, LbrDataId, LbrModel, SharedSlot};
use super::x86::{CpuPmu, PmuModel};
use super::{Behaviour, CloneSwap, Event, EventId, SystemWide};
use crate::hardware::Hardware;
use crate::{CpuId, TaskId};

/// What perf keeps of a processor: `struct perf_cpu_context` and `struct cpu_hw_events`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CpuState {
    pub(crate) online: bool,
    /// Who is on, as the hooks of context switches told.
    pub(crate) current: Option<TaskId>,
    /// The processor's own context.
    pub(crate) context: ContextId,
    /// `task_ctx`: the task's, while it is on.
    pub(crate) task_context: Option<ContextId>,
    /// An exclusive group is on.
    pub(crate) exclusive: bool,
    /// `active_oncpu`: hardware events that are on.
    pub(crate) active: u32,
    /// `pmu_disable_count`.
    pub(crate) disabled: u32,
    pub(crate) pmu: CpuPmu,
    pub(crate) lbr: CpuLbr,
}

/// What perf keeps of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TaskState {
    pub(crate) context: Option<ContextId>,
    /// `perf_ctx_data`, from 6.15.
    pub(crate) data: Option<LbrDataId>,
    pub(crate) exiting: bool,
}

/// perf of one host: every event, context and register image, for all processors.
///
/// A deterministic state machine: what runs where and when comes in from outside, through the hooks
/// of context switches, timers and interrupts. It can be cloned, compared and hashed. It touches
/// the processors only through [`Hardware`], so that the ledger counts every access.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Perf {
    pub(crate) behaviour: Behaviour,
    pub(crate) model: LbrModel,
    pub(crate) pmu: PmuModel,
    pub(crate) events: BTreeMap<EventId, Event>,
    pub(crate) contexts: BTreeMap<ContextId, Context>,
    pub(crate) tasks: BTreeMap<TaskId, TaskState>,
    pub(crate) data: BTreeMap<LbrDataId, LbrContext>,
    pub(crate) guests: GuestLbrs,
    pub(crate) cpus: Vec<CpuState>,
    /// Slots of `LBR_SELECT`, one for each core or processor.
    pub(crate) slots: Vec<SharedSlot>,
    pub(crate) system_wide: SystemWide,
    pub(crate) next_event: u32,
    pub(crate) next_context: u32,
    pub(crate) next_data: u32,
    /// RDMSR and WRMSR that faulted: the kernel warns and goes on.
    pub(crate) unchecked: u64,
    /// WRMSR that the part would do and the model of the PMU cannot.
    pub(crate) not_modelled: u64,
}

impl Perf {
    /// perf after boot, before any event. It writes no register: [`Perf::boot`] does.
    #[must_use]
    pub fn new(behaviour: Behaviour, hardware: &Hardware) -> Self {
        let first = hardware.cpu(CpuId(0));
        let model = LbrModel::of(first, &behaviour);
        let pmu = PmuModel::of(first.logical());
        let mut perf = Self {
            behaviour,
            model,
            pmu,
            events: BTreeMap::new(),
            contexts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            data: BTreeMap::new(),
            guests: GuestLbrs::default(),
            cpus: Vec::new(),
            slots: vec![SharedSlot::default(); hardware.cpus()],
            system_wide: SystemWide::default(),
            next_event: 0,
            next_context: 0,
            next_data: 0,
            unchecked: 0,
            not_modelled: 0,
        };
        for cpu in 0..hardware.cpus() {
            let holder = Holder::Cpu(CpuId(cpu as u16));
            let context = perf.new_context(holder);
            perf.cpus.push(CpuState {
                online: true,
                current: None,
                context,
                task_context: None,
                exclusive: false,
                active: 0,
                disabled: 0,
                pmu: CpuPmu::default(),
                lbr: CpuLbr::default(),
            });
        }
        perf
    }

    /// How it behaves.
    #[must_use]
    pub const fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// What the driver knows about the part's LBR.
    #[must_use]
    pub const fn lbr_model(&self) -> &LbrModel {
        &self.model
    }

    /// An event that was not released.
    #[must_use]
    pub fn event(&self, id: EventId) -> Option<&Event> {
        self.events.get(&id)
    }

    /// Every event, by number.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (EventId, &Event)> {
        self.events.iter().map(|(id, event)| (*id, event))
    }

    /// Who is on, as the last hook of a context switch told; `None` before the first.
    #[must_use]
    pub fn current(&self, cpu: CpuId) -> Option<TaskId> {
        self.cpus.get(cpu.index())?.current
    }

    /// What is saved of a task's LBR; `None` if it has no such data.
    #[must_use]
    pub fn lbr_context(&self, task: TaskId) -> Option<&LbrContext> {
        let state = self.tasks.get(&task)?;
        let id = match self.behaviour.clone_swap {
            CloneSwap::DataOfTask => state.data,
            CloneSwap::DataOnly | CloneSwap::CountsBack => self.context(state.context?).data,
        }?;
        self.data.get(&id)
    }

    /// `x86_pmu.lbr_callstack_users`, from 6.15: the call-stack events of processors that are on. Below 0
    /// after the hazard that [`LbrContext::callstack_users`] tells of.
    #[must_use]
    pub const fn lbr_callstack_users(&self) -> i32 {
        self.system_wide.callstack_users
    }

    /// The LBR driver's state of a processor.
    ///
    /// # Panics
    /// There is no such processor.
    #[must_use]
    pub fn lbr_cpu(&self, cpu: CpuId) -> &CpuLbr {
        &self.cpus[cpu.index()].lbr
    }

    /// The slot of `LBR_SELECT` a processor takes part in.
    ///
    /// # Panics
    /// There is no such processor.
    #[must_use]
    pub fn shared_slot(&self, cpu: CpuId) -> &SharedSlot {
        &self.slots[self.slot_of(cpu)]
    }

    /// RDMSR and WRMSR of perf that faulted. The kernel warns of the first and goes on.
    #[must_use]
    pub const fn unchecked_msr_faults(&self) -> u64 {
        self.unchecked
    }

    /// WRMSR of perf that the part would do and the model of the PMU cannot: a counter is set to an
    /// event that nobody feeds, and stands still.
    #[must_use]
    pub const fn writes_not_modelled(&self) -> u64 {
        self.not_modelled
    }

    pub(crate) fn slot_of(&self, cpu: CpuId) -> usize {
        if self.model.slot_per_core {
            let threads = usize::from(self.behaviour.threads_per_core.max(1));
            cpu.index() / threads * threads
        } else {
            cpu.index()
        }
    }

    pub(crate) fn cpu(&self, cpu: CpuId) -> &CpuState {
        &self.cpus[cpu.index()]
    }

    pub(crate) fn cpu_mut(&mut self, cpu: CpuId) -> &mut CpuState {
        &mut self.cpus[cpu.index()]
    }

    /// An event that some list names.
    pub(crate) fn event_ref(&self, id: EventId) -> &Event {
        &self.events[&id]
    }

    /// As [`Perf::event_ref`].
    pub(crate) fn event_mut(&mut self, id: EventId) -> &mut Event {
        let event = self.events.get_mut(&id);
        event.expect("lists name events that exist")
    }

    /// A context that something names.
    pub(crate) fn context(&self, id: ContextId) -> &Context {
        &self.contexts[&id]
    }

    /// As [`Perf::context`].
    pub(crate) fn context_mut(&mut self, id: ContextId) -> &mut Context {
        let context = self.contexts.get_mut(&id);
        context.expect("what names a context keeps it")
    }

    pub(crate) fn task_mut(&mut self, task: TaskId) -> &mut TaskState {
        self.tasks.entry(task).or_default()
    }

    pub(crate) fn new_context(&mut self, holder: Holder) -> ContextId {
        let id = ContextId(self.next_context);
        self.next_context += 1;
        self.contexts.insert(id, Context::new(holder));
        id
    }

    pub(crate) fn new_data(&mut self) -> LbrDataId {
        let id = LbrDataId(self.next_data);
        self.next_data += 1;
        self.data.insert(id, LbrContext::default());
        id
    }

    /// Where a task is on.
    pub(crate) fn cpu_of(&self, task: TaskId) -> Option<CpuId> {
        let on = |state: &CpuState| state.online && state.current == Some(task);
        let cpu = self.cpus.iter().position(on)?;
        Some(CpuId(cpu as u16))
    }

    /// Where the events of a context are or could be on now.
    pub(crate) fn cpu_of_context(&self, id: ContextId) -> Option<CpuId> {
        match self.context(id).holder {
            Holder::Cpu(cpu) => Some(cpu).filter(|cpu| self.cpu(*cpu).online),
            Holder::Task(task) => self.cpu_of(task),
            Holder::Nobody => None,
        }
    }
}
