//! An event.

use super::X86Br;
use super::core::ContextId;
use super::{Creator, EventAttr, EventCause, EventId, EventKind, EventState, StateOf, Target};
use crate::CpuId;

/// The LBR part of `struct hw_perf_event`: `branch_reg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Branch {
    /// `branch_reg.reg`: the software mask.
    pub(crate) br_sel: X86Br,
    /// `branch_reg.config`: the value of the filter register, with bits 62 and 63 of software;
    /// `None` without such a register.
    pub(crate) config: Option<u64>,
    /// `branch_reg.alloc`: it holds a reference to the slot.
    pub(crate) alloc: bool,
}

/// `struct hw_perf_event`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct HwEvent {
    /// `idx`: `None` is -1.
    pub(crate) idx: Option<u8>,
    /// `last_cpu` and `last_tag`: where it was assigned last.
    pub(crate) last: Option<(CpuId, u32)>,
    /// `PERF_HES_STOPPED`.
    pub(crate) stopped: bool,
    /// `PERF_HES_UPTODATE`.
    pub(crate) uptodate: bool,
    /// `PERF_HES_ARCH`.
    pub(crate) arch: bool,
    /// `prev_count`: the counter's value at the last update.
    pub(crate) prev_count: u64,
    /// `period_left`.
    pub(crate) period_left: i64,
    /// `sample_period`.
    pub(crate) sample_period: u64,
    /// `last_period`.
    pub(crate) last_period: u64,
    /// `PERF_X86_EVENT_LBR_SELECT`.
    pub(crate) lbr_select: bool,
    /// v8: scheduled without a counter.
    pub(crate) no_counter: bool,
    /// Its branch filter, if it needs the LBR.
    pub(crate) branch: Option<Branch>,
}

/// `struct perf_event`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub(crate) attr: EventAttr,
    pub(crate) target: Target,
    pub(crate) creator: Creator,
    pub(crate) state: EventState,
    pub(crate) oncpu: Option<CpuId>,
    pub(crate) context: ContextId,
    pub(crate) leader: EventId,
    pub(crate) siblings: Vec<EventId>,
    /// `group_index`: its place in the tree.
    pub(crate) group_index: u64,
    /// The event it was inherited from.
    pub(crate) parent: Option<EventId>,
    /// It is in no context any more: its task or processor is gone.
    pub(crate) detached: bool,
    pub(crate) hw: HwEvent,
    pub(crate) count: u64,
    pub(crate) since: u64,
    pub(crate) enabled: u64,
    pub(crate) running: u64,
    /// `total_time_running` is not 0. Kept apart, because the model's clock may stand still.
    pub(crate) ran: bool,
    pub(crate) wakeups: u32,
}

impl Event {
    /// What it was opened with; an event that repairs PEBS with the LBR has its branch filter.
    #[must_use]
    pub const fn attr(&self) -> &EventAttr {
        &self.attr
    }

    /// What it is bound to.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// Who opened it.
    #[must_use]
    pub const fn creator(&self) -> Creator {
        self.creator
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> EventState {
        self.state
    }

    /// The processor it is on: `oncpu`, where perf has -1 for none.
    #[must_use]
    pub const fn oncpu(&self) -> Option<CpuId> {
        self.oncpu
    }

    /// `hw.idx`: general-purpose counters from 0, fixed ones from 32, 58 for the guest's LBR, -1
    /// without counter. Kept when the event is taken off.
    #[must_use]
    pub fn index(&self) -> i8 {
        self.hw.idx.map_or(-1, |idx| idx as i8)
    }

    /// The leader of its group; itself, if it leads or stands alone.
    #[must_use]
    pub const fn leader(&self) -> EventId {
        self.leader
    }

    /// What it counted, as of the last update.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Clocks it was enabled and clocks it was on, as of its last change of state.
    #[must_use]
    pub const fn times(&self) -> (u64, u64) {
        (self.enabled, self.running)
    }

    /// It was on before: `total_time_running` is not 0.
    #[must_use]
    pub const fn has_run(&self) -> bool {
        self.ran
    }

    /// How often who polls it was woken because it went to ERROR.
    #[must_use]
    pub const fn error_wakeups(&self) -> u32 {
        self.wakeups
    }

    /// The value `LBR_SELECT` or `IA32_LBR_CTL` would get, with the bits 62 and 63 of software;
    /// `None` if the event does not need the LBR or there is no such register.
    #[must_use]
    pub fn branch_config(&self) -> Option<u64> {
        self.hw.branch.and_then(|branch| branch.config)
    }

    /// The classes the software filter keeps for it.
    #[must_use]
    pub fn br_sel(&self) -> Option<X86Br> {
        self.hw.branch.map(|branch| branch.br_sel)
    }

    pub(crate) const fn is_software(&self) -> bool {
        matches!(self.attr.kind, EventKind::Software)
    }

    /// `needs_branch_stack`.
    pub(crate) const fn needs_branch_stack(&self) -> bool {
        self.hw.branch.is_some()
    }

    /// `perf_event_set_state`: what the table says, and the times up to `now`.
    pub(crate) fn change(&mut self, cause: EventCause, now: u64) {
        let Some(next) = self.state.after(cause) else {
            return;
        };
        self.update_times(now);
        self.state = next;
    }

    /// `__perf_update_times`.
    pub(crate) fn update_times(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        if self.state >= EventState::Inactive {
            self.enabled += passed;
        }
        if self.state == EventState::Active {
            self.running += passed;
        }
        self.since = now;
    }
}
