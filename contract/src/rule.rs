//! The rules of the contract.

use core::fmt;

use serde::{Deserialize, Serialize};
use vlbr_host::Owner;
use vlbr_host::machine::{Rule, Violation};

/// A rule, as `docs/contract.md` numbers and states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContractRule {
    /// A guest reads no value of an LBR register that another owner caused.
    GuestReadsOwn,
    /// No sample or stack of a host event holds a guest's branches.
    HostReadsOwn,
    /// A guest's records are not lost while somebody else acts.
    RecordsKept,
    /// What a guest reads back is what it would read on a processor of its own.
    OwnProcessor,
    /// A guest that was told it has LBR is not refused while no host event asks for the LBR.
    ServedAlone,
    /// Nor while one does.
    ServedBeside,
    /// The host leaves records alone while the guest has the LBR, but to save, restore and reset
    /// them and to handle exits.
    HostKeepsOff,
    /// LBR MSRs pass only where the guest's event is active.
    PassThroughWhereActive,
    /// References return to 0 when all events are gone.
    ReferencesReturn,
    /// A host event that is ACTIVE samples the branches of its time, not what was stored before.
    HostRecords,
    /// From every state with no rival left, some path short of a reset of the vCPU gives the guest
    /// the LBR back.
    Recoverable,
    /// An access that exits and is served is the last that exits until the vCPU is put or its guest loses
    /// the LBR.
    OneExitASlice,
    /// A guest that has not touched its LBR costs no access to an LBR MSR.
    UnusedCostsNothing,
    /// VM entry puts no warning into the host's log.
    NoWarningEachEntry,
    /// A host event that asks for the LBR is on when perf rotates on its processor while no vCPU is loaded
    /// there and nobody else uses the LBR.
    HostComesBack,
}

impl ContractRule {
    /// Every rule with its name, in the order of their numbers.
    pub const NAMED: [(Self, &'static str); 15] = [
        (Self::GuestReadsOwn, "guest-reads-own"),
        (Self::HostReadsOwn, "host-reads-own"),
        (Self::RecordsKept, "records-kept"),
        (Self::OwnProcessor, "own-processor"),
        (Self::ServedAlone, "served-alone"),
        (Self::ServedBeside, "served-beside"),
        (Self::HostKeepsOff, "host-keeps-off"),
        (Self::PassThroughWhereActive, "pass-through-where-active"),
        (Self::ReferencesReturn, "references-return"),
        (Self::HostRecords, "host-records"),
        (Self::Recoverable, "recoverable"),
        (Self::OneExitASlice, "one-exit-a-slice"),
        (Self::UnusedCostsNothing, "unused-costs-nothing"),
        (Self::NoWarningEachEntry, "no-warning-each-entry"),
        (Self::HostComesBack, "host-comes-back"),
    ];

    /// Its number, from 1.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize + 1
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMED[self as usize].1
    }

    /// The rule that a finding of the host breaks; `rivals`: a host event asked for the LBR.
    pub(crate) const fn of(violation: &Violation, rivals: bool) -> Self {
        match violation.rule {
            // A host's branch in the stack that is left to a guest is one that the guest reads.
            Rule::Leak => match (violation.owner, violation.actor) {
                (Owner::Guest(_), Owner::Guest(_)) => Self::GuestReadsOwn,
                (Owner::Guest(_), _) => Self::HostReadsOwn,
                _ => Self::GuestReadsOwn,
            },
            Rule::Loss => Self::RecordsKept,
            Rule::Denial if rivals => Self::ServedBeside,
            Rule::Denial => Self::ServedAlone,
            Rule::Fidelity => Self::OwnProcessor,
            Rule::HostAccess => Self::HostKeepsOff,
            Rule::PassThrough => Self::PassThroughWhereActive,
            Rule::References => Self::ReferencesReturn,
        }
    }

    /// What a scenario counts of it, where that is a finding of the host.
    pub(crate) const fn finding(self) -> Option<Rule> {
        Some(match self {
            Self::GuestReadsOwn | Self::HostReadsOwn => Rule::Leak,
            Self::RecordsKept => Rule::Loss,
            Self::ServedBeside | Self::ServedAlone | Self::Recoverable => Rule::Denial,
            Self::OwnProcessor => Rule::Fidelity,
            Self::HostKeepsOff => Rule::HostAccess,
            Self::PassThroughWhereActive => Rule::PassThrough,
            Self::ReferencesReturn
            | Self::HostRecords
            | Self::OneExitASlice
            | Self::UnusedCostsNothing
            | Self::NoWarningEachEntry
            | Self::HostComesBack => return None,
        })
    }
}

impl fmt::Display for ContractRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}
