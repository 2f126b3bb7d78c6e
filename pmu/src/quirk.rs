//! Errata of real parts that the PMU shows.

use core::fmt;
use core::str::FromStr;

use vlbr_data::{Enumerated, NameSet, Named, UnknownName, parse_name};

/// A documented deviation of some parts from the regular behaviour.
///
/// A profile switches on those that every part of it shows and whose effect is well defined;
/// [`crate::Options::quirks`] replaces that set. The names are those of the project's
/// specification; the errata numbers are Intel's.
///
/// E15 (freezing acts at the overflow, not at delivery) is how every device here behaves. E21
/// (overflows of `IN_TXCP` counters return with every retry of the transaction) follows from
/// taking back what an aborted transaction counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Quirk {
    /// E9 (AG69, AJ69): reaching the PEBS threshold sets `GLOBAL_STATUS.OVF_BUFFER` only while
    /// `DEBUGCTL.FREEZE_PERFMON_ON_PMI` is set.
    BufferBitGated,
    /// E10, first half (AR63, AJ67): an armed PEBS counter takes its record at the next event of
    /// whatever privilege level.
    PebsCplLeak,
    /// E10, second half (AR64, AJ68): the PMI of the PEBS threshold comes one record late.
    PebsLatePmi,
    /// E16 (Goldmont and Goldmont Plus with early microcode): `FREEZE_PERFMON_ON_PMI` does nothing.
    FreezeBroken,
    /// E17 (Skylake): acknowledging a freeze while the LVT entry is still masked has no effect:
    /// the counters stay frozen.
    EarlyAckFreezes,
    /// E20 (SKL091): `BR_INST_RETIRED` misses some branches, about one in
    /// [`crate::Options::branch_lost_one_in`]. Seeded.
    LostBranches,
}

impl Quirk {
    /// Every quirk, by number.
    pub const ALL: [Self; 6] = [
        Self::BufferBitGated,
        Self::PebsCplLeak,
        Self::PebsLatePmi,
        Self::FreezeBroken,
        Self::EarlyAckFreezes,
        Self::LostBranches,
    ];

    /// The name in profiles and options: `E9`, `E10a` and so on.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::BufferBitGated => "E9",
            Self::PebsCplLeak => "E10a",
            Self::PebsLatePmi => "E10b",
            Self::FreezeBroken => "E16",
            Self::EarlyAckFreezes => "E17",
            Self::LostBranches => "E20",
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Named for Quirk {
    fn name(&self) -> &str {
        self.id()
    }
}

impl Enumerated for Quirk {
    const ALL: &'static [Self] = &Self::ALL;
    const KIND: &'static str = "quirk of the PMU";
    const KNOWN: &'static str = "E9, E10a, E10b, E16, E17, E20";

    fn number(self) -> u8 {
        self as u8
    }
}

/// A text that names no [`Quirk`].
pub type UnknownQuirk = UnknownName<Quirk>;

impl FromStr for Quirk {
    type Err = UnknownQuirk;

    fn from_str(text: &str) -> Result<Self, UnknownQuirk> {
        parse_name(text)
    }
}

/// A set of [`Quirk`]s.
pub type QuirkSet = NameSet<Quirk>;
