//! Why an access was refused.

use core::fmt;

use vlbr_arch::{Msr, PebsEnable, PerfEvtSel};

use crate::{Counter, SourceSet};

/// The instruction that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// RDMSR of this register.
    Rdmsr(Msr),
    /// WRMSR of this value to this register.
    Wrmsr(Msr, u64),
    /// RDPMC with this ECX.
    Rdpmc(u32),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rdmsr(msr) => write!(f, "RDMSR {msr}"),
            Self::Wrmsr(msr, value) => write!(f, "WRMSR {msr} = {value:#x}"),
            Self::Rdpmc(ecx) => write!(f, "RDPMC {ecx:#x}"),
        }
    }
}

/// Why an access raises `#GP(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GpReason {
    /// The part has no such register.
    #[error("no such register on this part")]
    NoSuchMsr,
    /// The register is read only.
    #[error("the register is read only")]
    ReadOnly,
    /// Bits that the part reserves are set.
    #[error("reserved bits {0:#x} are set")]
    Reserved(u64),
    /// Bits above the counter's width are set.
    #[error("bits above the {0} bits of the counter are set")]
    Width(u32),
    /// Not a canonical address of so many bits.
    #[error("not canonical in {0} bits")]
    NonCanonical(u8),
    /// RDPMC above CPL 0 while CR4.PCE is 0.
    #[error("CPL is not 0 and CR4.PCE is 0")]
    Privilege,
    /// RDPMC of a counter that the part lacks, or of an unknown kind.
    #[error("no such counter on this part")]
    NoSuchCounter,
}

/// A general-protection fault, `#GP(0)`, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("#GP(0): {access}: {reason}")]
pub struct GpFault {
    /// What was attempted.
    pub access: Access,
    /// Why it is refused.
    pub reason: GpReason,
}

/// What the part would do and the model cannot: said by name, never counted as zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No event of the part is known with this code and umask.
    #[error(
        "{counter}: no event is known with event {:#04x}, umask {:#04x}{}",
        select.event(), select.umask(), Nearest(nearest)
    )]
    UnknownEvent {
        /// The counter.
        counter: Counter,
        /// Event and umask.
        select: PerfEvtSel,
        /// The nearest that are fed.
        nearest: Vec<String>,
    },
    /// The event is known, and nobody says how often it occurs.
    #[error(
        "{counter}: {event} is not fed: {}{}", Missing(*missing), Nearest(nearest)
    )]
    NotFed {
        /// The counter.
        counter: Counter,
        /// Its name.
        event: String,
        /// What would have to be fed; empty if nothing feeds it.
        missing: SourceSet,
        /// The nearest that are fed.
        nearest: Vec<String>,
    },
    /// The event is not counted right on this counter.
    #[error("{event} is counted on PMC {allowed:?} only, not on {counter}")]
    WrongCounter {
        /// The counter.
        counter: Counter,
        /// Its name.
        event: String,
        /// Numbers of the general-purpose counters that count it.
        allowed: Vec<u8>,
    },
    /// CPUID leaf 0xA says that the part lacks the architectural event.
    #[error(
        "{counter}: CPUID leaf 0xA says that {event} is not available{}",
        Nearest(nearest)
    )]
    NotAvailable {
        /// The counter.
        counter: Counter,
        /// Its name.
        event: String,
        /// The nearest that are fed.
        nearest: Vec<String>,
    },
    /// CMASK and E ask about single cycles.
    #[error("{counter}: {bits} of {event} needs increments cycle by cycle, which nobody feeds")]
    NeedsCycles {
        /// The counter.
        counter: Counter,
        /// Its name.
        event: String,
        /// `CMASK`, `E` or both.
        bits: &'static str,
    },
    /// Topdown metrics.
    #[error("IA32_PERF_METRICS is not fed: it takes a model of issue slots")]
    Metrics,
    /// Output of PEBS records to Intel PT.
    #[error("PEBS output to Intel PT is not modelled: {0}")]
    PebsToPt(PebsEnable),
}

struct Nearest<'a>(&'a [String]);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; nearest are {}", self.0.join(", "))
    }
}

struct Missing(SourceSet);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("no model tells how often it occurs")
        } else {
            write!(f, "it takes {}", self.0)
        }
    }
}

/// Why an access was not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PmuError {
    /// The part faults.
    #[error(transparent)]
    Gp(#[from] GpFault),
    /// The part would do it, the model cannot ([`crate::Unfed::Refuse`]).
    #[error("{access}: {refusal}")]
    Refused {
        /// What was attempted.
        access: Access,
        /// Why it is refused.
        refusal: Refusal,
    },
}
