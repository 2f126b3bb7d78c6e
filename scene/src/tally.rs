//! What was counted of a run beside the ledger: the letters of the cost formulas.

use serde::Serialize;
use vlbr_host::machine::{Arrival, Migration};
use vlbr_host::perf::PmiSample;

/// Switches of a vCPU's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchTally {
    /// Switched out and in again: y.
    pub pairs: u64,
    /// Those after which the stack that was saved at the switch out had to be written again,
    /// because another LBR user, a deep C-state or a migration came between: u.
    pub disturbed: u64,
    /// Those after which it still stood in the registers.
    pub kept: u64,
    /// Those of the disturbed ones in which nobody else used the LBR, but its youngest entry was
    /// empty: a deep C-state came between, or an empty stack was saved.
    pub emptied: u64,
    /// Those onto another processor.
    pub migrations: u64,
}

/// What perf saved of a vCPU's stack at switches out: V is `entries` over `saves`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SaveTally {
    /// Switches out with the vCPU's event active.
    pub saves: u64,
    /// Leading valid entries found then, all together.
    pub entries: u64,
    /// Those at which every entry was valid.
    pub full: u64,
}

/// VM exits of a vCPU: x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitTally {
    /// All.
    pub total: u64,
    /// Those for which an instruction or interrupt of the trace is the reason.
    pub recorded: u64,
    /// Those that the scene's rates say.
    pub assumed: u64,
}

impl ExitTally {
    /// Those that follow from the run: accesses to MSRs, PMIs, the scheduler's interrupts.
    #[must_use]
    pub const fn derived(&self) -> u64 {
        self.total.saturating_sub(self.recorded + self.assumed)
    }
}

/// What became of a guest's records in a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CarriedRecords {
    /// Records that it had.
    pub held: usize,
    /// It reads them as they were.
    pub equal: usize,
    /// It reads something else.
    pub lost: usize,
    /// It reads what is somebody else's.
    pub foreign: usize,
    /// User space could not read or write them.
    pub refused: usize,
}

impl CarriedRecords {
    pub(crate) fn of(migration: &Migration) -> Self {
        Self {
            held: migration.records.len(),
            equal: migration.count(Arrival::Equal),
            lost: migration.count(Arrival::Lost),
            foreign: migration.count(Arrival::Foreign),
            refused: migration.count(Arrival::Refused),
        }
    }
}

/// What user space did to a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorTally {
    /// Number of the request in the scene.
    pub request: usize,
    /// When it was done, in microseconds.
    pub at_us: u64,
    /// MSRs that it read.
    pub read: usize,
    /// MSRs that it wrote.
    pub written: usize,
    /// MSRs that it could not read or write.
    pub refused: Vec<String>,
    /// Records, of a migration.
    pub records: Option<CarriedRecords>,
    /// Other registers of the LBR that were not 0, and what became of them.
    pub controls: Vec<(String, String)>,
}

/// One vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VcpuTally {
    /// Instructions of the guest.
    pub instructions: u64,
    /// VM exits.
    pub exits: ExitTally,
    /// Switches.
    pub switches: SwitchTally,
    /// Time slices in which the guest accessed an LBR MSR or `IA32_DEBUGCTL`: s.
    pub slices_with_lbr: u64,
    /// Accesses of the guest to `IA32_DEBUGCTL`: d.
    pub debugctl_accesses: u64,
    /// Accesses of the guest to other MSRs of the LBR.
    pub lbr_accesses: u64,
    /// Accesses of the guest to MSRs of the PMU.
    pub pmu_accesses: u64,
    /// Samples that the guest took.
    pub samples: u64,
    /// What perf saved.
    pub saved: SaveTally,
}

/// Branch stacks of the host's samples, which nobody keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostStacks {
    /// Entries of all stacks.
    pub entries: u64,
    /// Samples with a stack that was stored before.
    pub stale: u64,
    /// Of what stands in the entries, in order.
    pub digest: u64,
}

impl HostStacks {
    pub(crate) fn add(&mut self, sample: &PmiSample) {
        self.stale += u64::from(sample.stale);
        let Some(stack) = &sample.branches else {
            return;
        };
        self.entries += stack.records.len() as u64;
        for record in &stack.records {
            let flags = [
                record.mispredicted,
                record.predicted,
                record.in_tx,
                record.abort,
            ];
            let flags = flags
                .into_iter()
                .fold(0, |bits, flag| bits << 1 | u64::from(flag));
            for word in [record.from.value, record.to.value, flags] {
                // FNV-1a, a word at a time.
                self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
            }
        }
        self.digest = self.digest.rotate_left(7) ^ stack.hw_idx.map_or(1, |index| index << 1);
    }
}
