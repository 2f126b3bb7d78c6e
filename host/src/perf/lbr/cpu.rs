//! The driver's state of a processor.

use super::LbrDataId;
use crate::perf::X86Br;
use crate::{Owned, Owner, VcpuId};

/// The shared register of the branch filter, `regs[EXTRA_REG_LBR]`: of a processor, or of a core on
/// Nehalem and Westmere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SharedSlot {
    /// References of events that are on.
    pub refs: u32,
    /// The value they share. It stays when nobody refers to it.
    pub config: u64,
}

/// A branch of a sample: `struct perf_branch_entry`, with the owners of what it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BranchRecord {
    /// Source, sign-extended, without flags.
    pub from: Owned,
    /// Target.
    pub to: Owned,
    /// Flags and cycles stood in INFO, which is this one's; otherwise FROM's.
    pub info_owner: Owner,
    /// `mispred`.
    pub mispredicted: bool,
    /// `predicted`: 0 like `mispred` if nothing is known.
    pub predicted: bool,
    /// `in_tx`.
    pub in_tx: bool,
    /// `abort`.
    pub abort: bool,
    /// `cycles`, 0 if not known.
    pub cycles: u16,
    /// `type` as the hardware gives it, of architectural LBR.
    pub hardware_type: u8,
    /// Its type with the level of the target, once the software filter has run.
    pub kind: X86Br,
}

/// `cpuc->lbr_stack` with `lbr_entries`: the stack that samples point at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BranchStack {
    /// Youngest first.
    pub records: Vec<BranchRecord>,
    /// `hw_idx`: TOS; `None` where there is none.
    pub hw_idx: Option<u64>,
}

/// The LBR's part of `struct cpu_hw_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuLbr {
    pub(crate) users: u32,
    pub(crate) pebs_users: u32,
    pub(crate) br_sel: X86Br,
    pub(crate) select: bool,
    pub(crate) vcpu_lbr: bool,
    pub(crate) last: Option<(LbrDataId, u64)>,
    pub(crate) stack: BranchStack,
    /// The guest whose stack the registers alone hold.
    pub(crate) guest: Option<VcpuId>,
    /// It has the LBR: events that need it are put aside.
    pub(crate) lent: bool,
    /// What the registers hold was some guest's, and must be emptied before an event has them.
    pub(crate) of_guest: bool,
}

impl CpuLbr {
    /// `lbr_users`: events on this processor that need the LBR.
    #[must_use]
    pub const fn users(&self) -> u32 {
        self.users
    }

    /// `lbr_pebs_users`: those of them whose stack comes with adaptive PEBS.
    #[must_use]
    pub const fn pebs_users(&self) -> u32 {
        self.pebs_users
    }

    /// `br_sel`: the software mask of the event that was added last.
    #[must_use]
    pub const fn br_sel(&self) -> X86Br {
        self.br_sel
    }

    /// `lbr_select`: `LBR_SELECT` is part of what is saved, restored and reset.
    #[must_use]
    pub const fn lbr_select(&self) -> bool {
        self.select
    }

    /// v8's `vcpu_lbr`: an event without counter is on.
    #[must_use]
    pub const fn vcpu_lbr(&self) -> bool {
        self.vcpu_lbr
    }

    /// `last_task_ctx` and `last_log_id`: whose save the registers held last.
    #[must_use]
    pub const fn last(&self) -> Option<(LbrDataId, u64)> {
        self.last
    }

    /// The guest whose stack stands in the registers and nowhere else, with a mediated LBR.
    #[must_use]
    pub const fn guest(&self) -> Option<VcpuId> {
        self.guest
    }

    /// That guest has the LBR now; events of the host that need it are put aside.
    #[must_use]
    pub const fn lent(&self) -> bool {
        self.lent
    }

    /// The branch stack that was stored last.
    #[must_use]
    pub const fn stack(&self) -> &BranchStack {
        &self.stack
    }
}
