//! Errata and oddities of real parts that can be switched on and off.

use core::fmt;
use core::str::FromStr;

use vlbr_data::{Enumerated, NameSet, Named, UnknownName, parse_name};

/// A documented deviation of some parts from the regular behaviour.
///
/// A profile switches on those that every part of it shows and whose effect is well defined;
/// [`crate::Options::quirks`] replaces that set. The names are those of the project's
/// specification (E1 and so on); the errata numbers are Intel's.
///
/// Those that real parts show at times nobody can tell draw from a seeded stream: draw number n
/// is SplitMix64 of `seed + n * 0x9E3779B97F4A7C15`, n from 1, so that equal inputs give equal
/// outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Quirk {
    /// E1 (HSM182, BDM127 and siblings): without TSX, WRMSR to FROM and `LER_FROM` of format 4
    /// checks bits 62:61 as sign bits, while recorded entries hold zeros there.
    TsxSignExtension,
    /// E2 (BDM131 and siblings): bits 63:61 of `LER_TO` read as noise.
    LerToHighBits,
    /// E3: on Nehalem's filter layout the jump bits 6 and 7 also suppress calls and returns.
    NehalemOverlap,
    /// E4 (BU10 and siblings): RSM leaves garbage in the youngest entry. Seeded.
    RsmGarbage,
    /// E5 (BU8 and siblings): the FROM of an exception or interrupt right behind the last byte of
    /// the lower canonical half has bits 63:48 all ones.
    CanonicalEdge,
    /// E6 (AM94, AJ106): a PMI of PEBS freezes the stack some branches early:
    /// [`crate::Options::early_freeze_branches`].
    EarlyFreeze,
    /// E7 (AF25 and siblings): VERR, VERW, LAR and LSL that end with ZF = 0 update LER.
    SpuriousLer,
    /// E11: freezing on PMI does nothing (Bonnell before stepping 10).
    FreezeBroken,
    /// E12: the youngest entry appears twice at times, about once in
    /// [`crate::Options::duplicate_top_one_in`] records. Seeded.
    DuplicateTop,
    /// E13: each TSX abort gives two records, the second without the ABORT bit.
    DoubleAbort,
    /// E14: freezing on PMI in call-stack mode moves TOS by one too many or too few. Seeded: one
    /// third each down, right and up.
    FreezeCallStackTos,
    /// E18: Intel PT and the LBR exclude each other while `TraceEn` is set.
    PtExclusive,
    /// E19: format 1 is reported although FROM\[63\] holds MISPRED (Knights Landing).
    HiddenMispred,
    /// E24: `MSR_LBR_SELECT` is one register for the logical processors of a core. The device
    /// itself is one logical processor: [`crate::SmtCore`] honours this.
    SharedSelect,
}

impl Quirk {
    /// Every quirk, by number.
    pub const ALL: [Self; 14] = [
        Self::TsxSignExtension,
        Self::LerToHighBits,
        Self::NehalemOverlap,
        Self::RsmGarbage,
        Self::CanonicalEdge,
        Self::EarlyFreeze,
        Self::SpuriousLer,
        Self::FreezeBroken,
        Self::DuplicateTop,
        Self::DoubleAbort,
        Self::FreezeCallStackTos,
        Self::PtExclusive,
        Self::HiddenMispred,
        Self::SharedSelect,
    ];

    /// The name in profiles and options: `E1`, `E2` and so on.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::TsxSignExtension => "E1",
            Self::LerToHighBits => "E2",
            Self::NehalemOverlap => "E3",
            Self::RsmGarbage => "E4",
            Self::CanonicalEdge => "E5",
            Self::EarlyFreeze => "E6",
            Self::SpuriousLer => "E7",
            Self::FreezeBroken => "E11",
            Self::DuplicateTop => "E12",
            Self::DoubleAbort => "E13",
            Self::FreezeCallStackTos => "E14",
            Self::PtExclusive => "E18",
            Self::HiddenMispred => "E19",
            Self::SharedSelect => "E24",
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
    const KIND: &'static str = "quirk";
    const KNOWN: &'static str = "E1 to E7, E11 to E14, E18, E19, E24";

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
