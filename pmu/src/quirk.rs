//! Errata of real parts that the PMU shows.

use core::fmt;
use core::str::FromStr;

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

/// A text that names no [`Quirk`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no quirk of the PMU is named {0:?} (known: E9, E10a, E10b, E16, E17, E20)")]
pub struct UnknownQuirk(pub String);

impl FromStr for Quirk {
    type Err = UnknownQuirk;

    fn from_str(text: &str) -> Result<Self, UnknownQuirk> {
        Self::ALL
            .into_iter()
            .find(|quirk| quirk.id().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownQuirk(text.to_owned()))
    }
}

/// A set of [`Quirk`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct QuirkSet(u8);

impl QuirkSet {
    /// No quirk.
    pub const EMPTY: Self = Self(0);

    /// Whether `quirk` is on.
    #[must_use]
    pub const fn contains(self, quirk: Quirk) -> bool {
        self.0 & (1 << quirk as u8) != 0
    }

    /// The set with `quirk` on.
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | 1 << quirk as u8)
    }

    /// The quirks that are on, by number.
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL
            .into_iter()
            .filter(move |quirk| self.contains(*quirk))
    }
}

impl FromIterator<Quirk> for QuirkSet {
    fn from_iter<I: IntoIterator<Item = Quirk>>(quirks: I) -> Self {
        quirks.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for QuirkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'de> serde::Deserialize<'de> for QuirkSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| name.parse::<Quirk>())
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}
