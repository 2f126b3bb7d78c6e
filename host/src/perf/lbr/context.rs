//! What is saved of a task's LBR.

use crate::Owned;
use crate::hardware::{Entry, LbrImage};
use crate::perf::{StackCause, StackState, StateOf};

/// The number of a task's LBR data. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LbrDataId(pub u32);

/// `struct x86_perf_task_context` and its architectural variants: the saved stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LbrContext {
    /// `lbr[]`, youngest first. Entries at and above `valid_lbrs` are left from older saves.
    pub(crate) entries: Vec<Entry>,
    pub(crate) valid: u32,
    pub(crate) tos: Owned,
    pub(crate) select: Owned,
    /// `xsave`, of architectural LBR with XSAVES.
    pub(crate) image: Option<LbrImage>,
    pub(crate) users: i32,
    pub(crate) state: StackState,
    pub(crate) log_id: u64,
}

impl LbrContext {
    /// The saved entries, youngest first: the first `valid_lbrs`; of architectural LBR the array as
    /// it stands.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        match &self.image {
            Some(image) => image.entries().collect(),
            None => self.entries.clone(),
        }
    }

    /// `valid_lbrs`: how many leading entries are valid. Not used with architectural LBR.
    #[must_use]
    pub const fn valid_lbrs(&self) -> u32 {
        self.valid
    }

    /// `tos`.
    #[must_use]
    pub const fn tos(&self) -> Owned {
        self.tos
    }

    /// `lbr_sel`.
    #[must_use]
    pub const fn lbr_sel(&self) -> Owned {
        self.select
    }

    /// `lbr_callstack_users`. Below 0 after the hazard of deleting an event while another one's
    /// filter stands in `br_sel`.
    #[must_use]
    pub const fn callstack_users(&self) -> i32 {
        self.users
    }

    /// `lbr_stack_state`.
    #[must_use]
    pub const fn stack_state(&self) -> StackState {
        self.state
    }

    /// `log_id`: how often it was saved.
    #[must_use]
    pub const fn log_id(&self) -> u64 {
        self.log_id
    }

    pub(crate) fn change(&mut self, cause: StackCause) {
        if let Some(next) = self.state.after(cause) {
            self.state = next;
        }
    }
}

/// Call-stack events of processors, from 6.15.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SystemWide {
    /// `x86_pmu.lbr_callstack_users`: how many are on, over all processors.
    pub(crate) callstack_users: i32,
    /// How many are open: while there are, every task has data.
    pub(crate) references: u32,
}
