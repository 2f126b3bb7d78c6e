//! What event-based policies differ in. Each field is a knob: see [`super::Catalog`].

use serde::{Deserialize, Serialize};

macro_rules! knob {
    ($(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $( $(#[$vdoc])* $variant, )*
        }
    };
}
pub(super) use knob;

knob! {
    /// Who says that a guest has LBR.
    Feature {
        /// `KVM_CAP_X86_GUEST_LBR` of the VM (v8).
        Capability,
        /// The format in the guest's `IA32_PERF_CAPABILITIES` (upstream).
        PerfCapabilities,
    }
}
knob! {
    /// What an access gets while the event does not own the LBR.
    Denied {
        /// `#GP`.
        Gp,
        /// Reads give 0, writes vanish.
        Dummy,
    }
}
knob! {
    /// When accesses begin to pass.
    Open {
        /// With the first access of a time slice.
        FirstTouch,
        /// At VM entry, as soon as the event is active.
        AtEntry,
    }
}
knob! {
    /// What is tested before VM entry.
    EntryCheck {
        /// Pass-through is closed if the event does not own the LBR.
        Lost,
        /// It is closed if the event owns it: v8 as posted.
        Owned,
        /// Nothing.
        None,
    }
}
knob! {
    /// When the event is released.
    Release {
        /// At the end of a time slice without access, if recording is off.
        UnusedSlice,
        /// At each clean-up, if recording is off.
        RecordingOff,
        /// At each clean-up.
        EverySlice,
        /// With the vCPU's reset only.
        Never,
    }
}
knob! {
    /// Which INFO MSRs an access that exits is recognised for.
    InfoRange {
        /// Those of the part.
        Right,
        /// None: the range test compares with its base twice (v8).
        NeverMatches,
    }
}
knob! {
    /// What a write of `IA32_DEBUGCTL` may hold.
    DebugCtlRule {
        /// Everything; all but LBR and FREEZE_LBRS_ON_PMI is dropped silently (v8).
        Mask,
        /// A value in which LBR or BTF is set and not supported loses both, other unsupported bits
        /// are `#GP` (upstream up to 6.16).
        LosesBoth,
        /// Unsupported LBR and BTF are dropped, other unsupported bits are `#GP` (upstream from 6.17
        /// on).
        Supported,
    }
}
knob! {
    /// Whether the guest's event competes with host LBR events.
    Arbitration {
        /// For the shared LBR register (v8; upstream as its comments describe it).
        Shared,
        /// For index 58 alone (upstream as coded).
        AsCoded,
    }
}

/// The knobs of an event-based policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventRules {
    /// Who says that a guest has LBR.
    pub feature: Feature,
    /// What an access gets while the event does not own the LBR.
    pub denied: Denied,
    /// When accesses begin to pass.
    pub open: Open,
    /// What is tested before VM entry.
    pub entry_check: EntryCheck,
    /// Pass-through is closed at sched-in.
    pub close_at_sched_in: bool,
    /// When the event is released.
    pub release: Release,
    /// Which INFO MSRs are recognised.
    pub info_range: InfoRange,
    /// An access by user space is made although the guest has no LBR.
    pub user_space_skips_feature: bool,
    /// Every access to `IA32_DEBUGCTL` needs the event, not a write that sets LBR alone.
    pub debugctl_needs_event: bool,
    /// What a write of `IA32_DEBUGCTL` may hold.
    pub debugctl: DebugCtlRule,
    /// User space may set LBR and FREEZE_LBRS_ON_PMI although the guest has no LBR (from 6.2 on).
    pub user_space_sets_debugctl: bool,
    /// FREEZE_WHILE_SMM of the guest's `IA32_DEBUGCTL` is the host's (from 6.17 on).
    pub host_freezes_in_smm: bool,
    /// `IA32_PERF_CAPABILITIES` is fixed once the vCPU has run (from 6.3 on).
    pub capabilities_fixed_by_run: bool,
    /// The guest starts with every capability that KVM supports. From 6.13 on user space can have
    /// it otherwise: `KVM_X86_QUIRK_STUFF_FEATURE_MSRS`.
    pub capabilities_start_full: bool,
    /// `IA32_PERF_CAPABILITIES` exists for user space only if the guest has PDCM (from 6.13 on);
    /// before, a value that is not 0 needs a PMU instead.
    pub capabilities_need_pdcm: bool,
    /// INFO of format 7 is described to the guest, as that of format 5 is (from 6.3 on).
    pub info_of_format_7: bool,
    /// Where the host has architectural LBR the guest is offered its format and a legacy LBR in front
    /// of its registers, of which TOS and SELECT do not exist (up to 6.3).
    pub offers_legacy_for_architectural: bool,
    /// LBR is offered only if the host's perf has call-stack mode (from 6.9 on).
    pub needs_call_stack: bool,
    /// Before a virtual PMI, LBR is cleared in `IA32_DEBUGCTL` if FREEZE_LBRS_ON_PMI is set.
    pub freeze_at_virtual_pmi: bool,
    /// Writes of the guest that exit are tested as the processor would before they are made.
    pub checks_values: bool,
    /// Whether the guest's event competes with host LBR events.
    pub arbitration: Arbitration,
}
