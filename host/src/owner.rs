//! Whose a piece of LBR state is.

use core::fmt;

use crate::{TaskId, VcpuId};

/// Who caused a value in an LBR register: who ran when it was recorded, or on whose behalf it was
/// written. A value that is saved and restored stays its owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Nobody: power-up, or cleared.
    #[default]
    Nobody,
    /// The host's kernel.
    Kernel,
    /// A task of the host, in user mode.
    Task(TaskId),
    /// A guest: its kernel or its programs.
    Guest(VcpuId),
}

impl Owner {
    /// Whether `reader` may see what this owner caused.
    #[must_use]
    pub fn may_be_seen_by(self, reader: Self) -> bool {
        self == Self::Nobody || self == reader
    }

    /// The guest, if it is one.
    #[must_use]
    pub const fn guest(self) -> Option<VcpuId> {
        match self {
            Self::Guest(vcpu) => Some(vcpu),
            _ => None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Kernel => f.write_str("host kernel"),
            Self::Task(task) => task.fmt(f),
            Self::Guest(vcpu) => write!(f, "guest of {vcpu}"),
        }
    }
}

/// A value with its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owned {
    /// As RDMSR gives it.
    pub value: u64,
    /// Who caused it.
    pub owner: Owner,
}

impl Owned {
    /// A value of this owner.
    #[must_use]
    pub const fn new(value: u64, owner: Owner) -> Self {
        Self { value, owner }
    }

    /// 0, of nobody.
    pub const CLEARED: Self = Self::new(0, Owner::Nobody);
}
