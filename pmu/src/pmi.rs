//! Performance-monitoring interrupts, and what retirement reports.

use crate::{CounterSet, MemoryFault};

/// What raised a PMI. SDM volume 3, "Freezing LBR and Performance Counters on PMI".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PmiCause {
    /// A counter overflowed.
    Counter,
    /// The PEBS buffer reached its threshold.
    Pebs,
    /// The BTS buffer reached its threshold.
    Bts,
}

/// What the local APIC gives the core for a PMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// The interrupt with this vector, 16 to 255.
    Fixed(u8),
    /// NMI.
    Nmi,
    /// SMI.
    Smi,
    /// INIT.
    Init,
    /// An external interrupt; its controller gives the vector.
    ExtInt,
}

/// A PMI that the local APIC accepted and the core has not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// What it will be.
    pub interrupt: Interrupt,
    /// What raised it; the first cause, if several met.
    pub cause: PmiCause,
    /// Skid left, in [`crate::Options::skid_unit`]; delivered when 0.
    pub remaining: u64,
}

/// A PEBS record that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PebsRecord {
    /// Linear address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// What became of a PEBS record that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PebsOutcome {
    /// It stands in the buffer.
    Stored(PebsRecord),
    /// The buffer had no room.
    Full,
    /// The debug store is not in memory.
    Fault(MemoryFault),
}

/// What a [`crate::Device::retire`] led to, beside the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Counters that overflowed.
    pub overflowed: CounterSet,
    /// A PMI was raised; [`crate::Device::pending`] tells whether the APIC accepted it.
    pub pmi: Option<PmiCause>,
    /// A PEBS record was due.
    pub pebs: Option<PebsOutcome>,
}

/// A kind of reset. SDM volume 3, "Processor State After Reset".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Power-up or RESET.
    Reset,
    /// INIT: counters and controls stay, the LVT entry is masked.
    Init,
}
