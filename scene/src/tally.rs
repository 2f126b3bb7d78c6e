//! What was counted of a run beside the ledger: the letters of the cost formulas.

/// Switches of a vCPU's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchTally {
    /// Switched out and in again: y.
    pub pairs: u64,
    /// Those between which the records did not stay in the registers of the same processor: u.
    pub disturbed: u64,
    /// Those onto another processor.
    pub migrations: u64,
}

/// One vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuTally {
    /// Instructions of the guest.
    pub instructions: u64,
    /// VM exits: x.
    pub exits: u64,
    /// Those that the trace or the guest's perf session made, not the scene's rates.
    pub exits_of_guest: u64,
    /// Switches.
    pub switches: SwitchTally,
    /// Time slices in which the guest accessed an LBR MSR: s.
    pub slices_with_lbr: u64,
    /// Accesses of the guest to `IA32_DEBUGCTL`: d.
    pub debugctl_accesses: u64,
    /// Accesses of the guest to other MSRs of the LBR.
    pub lbr_accesses: u64,
    /// Accesses of the guest to MSRs of the PMU.
    pub pmu_accesses: u64,
    /// Samples that the guest took.
    pub samples: u64,
    /// Leading valid entries found at switches out with the event active: sum, and how often.
    pub valid_entries: (u64, u64),
}
