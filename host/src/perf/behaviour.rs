//! What changed in perf from version to version, one switch for each rule.

use super::KernelVersion;

/// How perf serves a guest's LBR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestLbr {
    /// Not at all.
    None,
    /// The series "Guest LBR Enabling" v8: an event without counter (index -1), the flag
    /// `vcpu_lbr` of its processor, bit 62 in its filter so that nobody shares with it.
    V8,
    /// Config 0x1b00 on the false counter 58, whose bit in the guest mask says who owns the LBR.
    Virtual,
}

/// When `LBR_SELECT` is saved and restored with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectSave {
    /// Never.
    Never,
    /// While `vcpu_lbr` is set: v8 patch 11.
    GuestOwns,
    /// While an event with the flag `PERF_X86_EVENT_LBR_SELECT` is on.
    Flagged,
}

/// When entries have an INFO register for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InfoRule {
    /// With format 5 alone: format 7 is read without flags and cycles.
    Format5,
    /// With formats 5 and 7.
    HasInfo,
}

/// What enabling the LBR in call-stack mode does to `DEBUGCTL.FREEZE_LBRS_ON_PMI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallStackFreeze {
    /// It is not set, and left set if it was.
    LeftAlone,
    /// It is cleared.
    Cleared,
}

/// Where the hook of the LBR runs at a context switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedHook {
    /// In a bracket of disabling and enabling the PMU of its own.
    OwnBracket,
    /// Of a task with a context, inside the bracket that moves its events; of others not at all, so
    /// that the stack of a processor's event is not emptied for them.
    ContextsOnly,
    /// As before, and of tasks without a context in a bracket of its own.
    InSwitch,
}

/// What two tasks with clones of one context exchange when one follows the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloneSwap {
    /// Contexts; the LBR's data goes back to its task, the count of call-stack users with it.
    DataOnly,
    /// As before, and the counts are exchanged back.
    CountsBack,
    /// Contexts; the LBR's data is the task's and does not move.
    DataOfTask,
}

/// What keeps an exclusive group off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExclusiveRule {
    /// Any event on the processor.
    AnyOnCpu,
    /// A group of its own class in its own context.
    SameList,
}

/// Which MSRs are switched around VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestMsrs {
    /// GLOBAL_CTRL, and PEBS_ENABLE where PEBS is not isolated.
    Counters,
    /// As before, and with PEBS for guests DS_AREA, PEBS_DATA_CFG and PEBS_ENABLE.
    GuestPebs,
}

/// How `FIXED_CTR_CTRL` is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FixedControl {
    /// Read, changed and written for each event.
    ReadModifyWrite,
    /// Kept in memory and written when the PMU is enabled, if it changed.
    AtEnable,
}

/// How perf behaves. Every field can be set alone; [`Behaviour::of`] gives the fields of a
/// version. "Read" means the function was read in the source of that version, "recalled" that the
/// version of the change is from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Behaviour {
    /// Guest's LBR: [`GuestLbr::Virtual`] from 5.9. `intel/core.c:intel_vlbr_constraints`; absent
    /// from 5.4, read in 5.10. v8 was never merged.
    pub guest_lbr: GuestLbr,
    /// `lbr.c:intel_pmu_lbr_save`: by the flag from 5.9 (read in 5.10), never before (5.4).
    pub select_save: SelectSave,
    /// The flag of the virtual event's constraint reaches the event: 5.16, 5.10.198, 5.15.4 and
    /// 5.15.85 (read); not 5.13, 5.15.0 and 5.15.3 (read). First patch of 5.10 recalled: 5.10.82.
    pub select_flag_propagates: bool,
    /// A reset clears `LBR_SELECT` while an event with the flag is on: `lbr.c:intel_pmu_lbr_reset`
    /// from 5.16 (read); not 5.10.198, 5.15.4 and 5.15.85 (read), which have the flag alone.
    pub reset_clears_select: bool,
    /// `lbr.c:intel_pmu_lbr_save`, `need_info`: format 5 alone in 5.10.198 and 5.16.2,
    /// `lbr_has_info` from 5.17 (read).
    pub info: InfoRule,
    /// `lbr.c:__intel_pmu_lbr_enable`: 5.4 leaves FREEZE alone, 5.15 clears it (read); recalled for
    /// 5.9.
    pub call_stack_freeze: CallStackFreeze,
    /// `kernel/events/core.c:perf_event_context_sched_in`: in the switch from 5.11, and in 5.10.198
    /// and 5.15.85 (read). The change (44fae179ce73) forgot tasks without a context, which
    /// "perf/core: Flush PMU internal buffers for per-CPU events" repaired (patch read; 5.12,
    /// 5.11.7 and 5.10.24 recalled).
    pub sched_hook: SchedHook,
    /// `lbr.c:intel_pmu_lbr_swap_task_ctx`: from 5.5 (recalled; read in 5.10), until 6.14.
    pub clone_swap: CloneSwap,
    /// A pinned group that fails takes the pinned groups behind it in its context to ERROR:
    /// `kernel/events/core.c:merge_sched_in` from 5.7 (recalled; read in 5.10).
    pub pinned_cascade: bool,
    /// `kernel/events/core.c:group_can_go_on`: by list from 5.11 (the patch is of October 2020) and
    /// in 5.10.198 (read).
    pub exclusive: ExclusiveRule,
    /// `DEBUGCTL.FREEZE_WHILE_SMM` is set on every processor: the default of `freeze_on_smi` from
    /// 5.17, in 5.10.198, 5.15.85 and 5.16.1 (read), not in 5.16.0 (read). First stable patches
    /// recalled: 5.10.102, 5.15.25.
    pub freeze_on_smi: bool,
    /// Call-stack events of a processor are counted for all tasks and their stacks are saved and
    /// restored: `lbr.c:intel_pmu_lbr_add` from 6.15.
    pub system_wide_call_stacks: bool,
    /// Deleting an event gives back the call-stack user that adding it counted. No kernel does: all read
    /// versions (5.4, 5.15, 6.16) ask `cpuc->br_sel`, the filter of whichever event was added last.
    /// `lbr.c:intel_pmu_lbr_del`.
    pub callstack_users_by_event: bool,
    /// Deleting the leader of a group with branch counters resets the LBR:
    /// `lbr.c:intel_pmu_lbr_del` from 6.8 (recalled; read at 0011a51d).
    pub branch_counters: bool,
    /// `intel/core.c:intel_guest_get_msrs`: [`GuestMsrs::GuestPebs`] from 6.0 (recalled; read in
    /// 6.16).
    pub guest_msrs: GuestMsrs,
    /// `intel/core.c:intel_pmu_enable_fixed`: cached from 6.2 (recalled).
    pub fixed_control: FixedControl,
    /// PMU version 4 freezes its counters and acknowledges last: `intel_pmu_handle_irq_v4`. In 5.4
    /// by a boot parameter, off by default; later removed.
    pub counter_freezing: bool,
    /// Samples have the index of the newest entry, `hw_idx`: absent from 5.4, read in 5.10; recalled
    /// for 5.7.
    pub hw_index: bool,
    /// A pinned event that goes to ERROR wakes who polls it: from 6.15.
    pub error_wakes: bool,
    /// A task has one context for all kinds of events: the rewrite of 6.2 (recalled; read in 6.16,
    /// `kernel/events/core.c:perf_pmu_sched_task`). The hook then runs for the kinds that are in it,
    /// so that a task with events of software alone does not empty the LBR of a processor's event.
    pub one_task_context: bool,
    /// Events that are opened disabled are installed without interrupting their processor:
    /// `perf_install_in_context` from 5.7 (recalled).
    pub quiet_install: bool,
    /// Perf itself runs under a hypervisor and probes the LBR at boot: `check_msr`,
    /// `intel_pmu_init` 5.4, 5.15.
    pub under_hypervisor: bool,
    /// That probe drops the filter map if `LBR_SELECT` does not hold its value: 5.4, through the
    /// list of extra registers.
    pub probe_drops_select: bool,
    /// Architectural LBR is saved with XSAVES where its state has the size perf expects.
    pub xsaves: bool,
    /// PEBS stops by itself at VM entry: all parts with current microcode. If not,
    /// `PEBS_ENABLE` is switched.
    pub pebs_isolated: bool,
    /// KVM offers guests PEBS: EPT-friendly PEBS and a vPMU.
    pub guest_pebs: bool,
    /// Logical processors of a core, which share the slot of `LBR_SELECT` on Nehalem and Westmere:
    /// `intel_pmu_cpu_starting`. Not a matter of version.
    pub threads_per_core: u16,
    /// The virtual event competes for the shared slot of the branch filter, with a value that nobody
    /// else has, as KVM's comments describe it: `vmx_passthrough_lbr_msrs`. As coded, it does not.
    pub virtual_lbr_shares_register: bool,
}

impl Behaviour {
    /// Of a version of Linux, not under a hypervisor.
    #[must_use]
    pub fn of(version: KernelVersion) -> Self {
        let since = |major, minor| version.since(major, minor);
        let stable = |major, minor, patch| version.stable(major, minor, patch);
        let pick = |new: bool| move |yes, no| if new { yes } else { no };
        let virtual_lbr = since(5, 9);
        Self {
            guest_lbr: if virtual_lbr {
                GuestLbr::Virtual
            } else {
                GuestLbr::None
            },
            select_save: if virtual_lbr {
                SelectSave::Flagged
            } else {
                SelectSave::Never
            },
            select_flag_propagates: since(5, 16) || stable(5, 10, 82) || stable(5, 15, 4),
            reset_clears_select: since(5, 16),
            info: if since(5, 17) {
                InfoRule::HasInfo
            } else {
                InfoRule::Format5
            },
            call_stack_freeze: if virtual_lbr {
                CallStackFreeze::Cleared
            } else {
                CallStackFreeze::LeftAlone
            },
            sched_hook: if since(5, 12) || stable(5, 11, 7) || stable(5, 10, 24) {
                SchedHook::InSwitch
            } else if since(5, 11) {
                SchedHook::ContextsOnly
            } else {
                SchedHook::OwnBracket
            },
            clone_swap: match (since(5, 5), since(6, 15)) {
                (_, true) => CloneSwap::DataOfTask,
                (true, false) => CloneSwap::CountsBack,
                (false, false) => CloneSwap::DataOnly,
            },
            pinned_cascade: since(5, 7),
            exclusive: if since(5, 11) || stable(5, 10, 198) {
                ExclusiveRule::SameList
            } else {
                ExclusiveRule::AnyOnCpu
            },
            freeze_on_smi: since(5, 17)
                || stable(5, 10, 102)
                || stable(5, 15, 25)
                || stable(5, 16, 1),
            system_wide_call_stacks: since(6, 15),
            callstack_users_by_event: false,
            branch_counters: since(6, 8),
            guest_msrs: if since(6, 0) {
                GuestMsrs::GuestPebs
            } else {
                GuestMsrs::Counters
            },
            fixed_control: pick(since(6, 2))(FixedControl::AtEnable, FixedControl::ReadModifyWrite),
            counter_freezing: false,
            hw_index: since(5, 7),
            error_wakes: since(6, 15),
            one_task_context: since(6, 2),
            quiet_install: since(5, 7),
            under_hypervisor: false,
            probe_drops_select: !since(5, 9),
            xsaves: true,
            pebs_isolated: true,
            guest_pebs: false,
            threads_per_core: 1,
            virtual_lbr_shares_register: false,
        }
    }

    /// Linux 5.3 with the series "Guest LBR Enabling" v8.
    #[must_use]
    pub fn v8() -> Self {
        Self {
            guest_lbr: GuestLbr::V8,
            select_save: SelectSave::GuestOwns,
            ..Self::of(KernelVersion::new(5, 3, 0))
        }
    }
}
