//! Cost models: what an access costs, as data.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use vlbr_arch::Msr;
use vlbr_data::{TomlError, parse_toml};

/// How well a figure is known, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Class {
    /// Measured and published, or measured here.
    H,
    /// Derived from measurements by arithmetic.
    D,
    /// Estimated.
    E,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H => "H (measured)",
            Self::D => "D (derived)",
            Self::E => "E (estimated)",
        })
    }
}

/// Which figure of a range is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The lowest.
    Low,
    /// The usual one.
    #[default]
    Default,
    /// The highest.
    High,
}

/// What something costs, in core clock cycles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Lowest; the default where none is known.
    pub low: Option<u32>,
    /// The usual figure.
    pub default: u32,
    /// Highest; the default where none is known.
    pub high: Option<u32>,
    /// How well it is known.
    pub class: Class,
    /// The publication was remembered, not read again.
    #[serde(default)]
    pub remembered: bool,
    /// Who measured or how it was derived.
    pub source: String,
}

impl Cost {
    /// The figure.
    #[must_use]
    pub fn at(&self, bound: Bound) -> u32 {
        match bound {
            Bound::Low => self.low.unwrap_or(self.default),
            Bound::Default => self.default,
            Bound::High => self.high.unwrap_or(self.default),
        }
    }
}

macro_rules! items {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// What has a cost of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CostItem {
            $( $(#[$doc])* $name, )*
        }

        impl CostItem {
            /// Every item with its key in the TOML text.
            pub const NAMED: &'static [(Self, &'static str)] = &[$( (Self::$name, $text), )*];
        }
    };
}

items! {
    /// RDMSR of LBR entries, TOS, `LBR_SELECT`, depth and LER.
    RdmsrLbr = "rdmsr_lbr",
    /// WRMSR of the same.
    WrmsrLbr = "wrmsr_lbr",
    /// RDMSR of `IA32_DEBUGCTL` and `IA32_LBR_CTL`.
    RdmsrControl = "rdmsr_debugctl",
    /// WRMSR of the same.
    WrmsrControl = "wrmsr_debugctl",
    /// WRMSR of counters and their controls.
    WrmsrPmc = "wrmsr_pmc",
    /// RDMSR of any other register.
    RdmsrGeneric = "rdmsr_generic",
    /// WRMSR of any other register.
    WrmsrGeneric = "wrmsr_generic",
    /// An exception's delivery: an access that faults.
    Fault = "fault",
    /// XSAVES of component 15.
    Xsaves = "xsaves_lbr",
    /// XRSTORS of component 15.
    Xrstors = "xrstors_lbr",
    /// VMREAD or VMWRITE.
    VmcsAccess = "vmread_vmwrite",
    /// An entry of an MSR-load area.
    AreaLoad = "msr_list_load",
    /// An entry of an MSR-store area.
    AreaStore = "msr_list_store",
    /// An MSR area that is not empty.
    AreaFixed = "msr_list_fixed",
    /// An MSR that has a field in the VMCS.
    Field = "vmcs_field",
    /// VM exit and entry together.
    RoundTrip = "vmexit_plus_entry",
}

impl CostItem {
    /// The key in the TOML text.
    #[must_use]
    pub const fn key(self) -> &'static str {
        Self::NAMED[self as usize].1
    }

    /// What RDMSR or WRMSR of this register falls under.
    #[must_use]
    pub const fn of_msr(msr: Msr, write: bool) -> Self {
        match (MsrClass::of(msr), write) {
            (MsrClass::Lbr, false) => Self::RdmsrLbr,
            (MsrClass::Lbr, true) => Self::WrmsrLbr,
            (MsrClass::Control, false) => Self::RdmsrControl,
            (MsrClass::Control, true) => Self::WrmsrControl,
            (MsrClass::Pmc, true) => Self::WrmsrPmc,
            (MsrClass::Pmc | MsrClass::Other, false) => Self::RdmsrGeneric,
            (MsrClass::Other, true) => Self::WrmsrGeneric,
        }
    }
}

impl fmt::Display for CostItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

enum MsrClass {
    Lbr,
    Control,
    Pmc,
    Other,
}

impl MsrClass {
    const fn of(msr: Msr) -> Self {
        match msr.value() {
            0x40..=0x47 | 0x60..=0x67 | 0x680..=0x69f | 0x6c0..=0x6df | 0xdc0..=0xddf => Self::Lbr,
            0x1200..=0x121f | 0x1500..=0x151f | 0x1600..=0x161f => Self::Lbr,
            0x1c8 | 0x1c9 | 0x1dd | 0x1de | 0x1e0 | 0x14cf => Self::Lbr,
            0x1d9 | 0x14ce => Self::Control,
            0xc1..=0xc8 | 0x186..=0x18d | 0x309..=0x30c | 0x38d..=0x391 | 0x4c1..=0x4c8 => {
                Self::Pmc
            }
            _ => Self::Other,
        }
    }
}

/// Why a text is no cost model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CostModelError {
    /// Not TOML, or an unknown, missing or mistyped field.
    #[error("cost model: {0}")]
    Toml(#[from] TomlError),
    /// A key that names no cost.
    #[error("cost model: {0:?} is no cost")]
    UnknownItem(String),
    /// A cost that every model states is absent.
    #[error("cost model: {0} is missing")]
    Missing(CostItem),
    /// Figures that are not in order.
    #[error("cost model: {0}: low, default and high do not ascend")]
    Order(String),
    /// A share outside 0 to 100.
    #[error("cost model: exit_share {0} is above 100 %")]
    Share(u8),
    /// A cost without a source, or a model without a name.
    #[error("cost model: {0} is empty")]
    Empty(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    exit_share: u8,
    costs: BTreeMap<String, Cost>,
    #[serde(default)]
    vmexit_plus_entry: BTreeMap<String, Cost>,
}

/// What each access costs, with where the figures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostModel {
    name: String,
    exit_share: u8,
    costs: BTreeMap<CostItem, Cost>,
    round_trips: BTreeMap<String, Cost>,
}

static PUBLISHED: LazyLock<CostModel> = LazyLock::new(|| {
    CostModel::from_toml(include_str!("../../costs/published.toml"))
        .expect("the built-in cost model is tested")
});

impl CostModel {
    /// The model made of published figures and estimates that comes with the crate.
    #[must_use]
    pub fn published() -> &'static Self {
        &PUBLISHED
    }

    /// Reads a model from TOML; `cpu/costs/README.md` says the form.
    ///
    /// # Errors
    /// Text that is not TOML, unknown or missing costs, figures out of order, empty sources.
    pub fn from_toml(text: &str) -> Result<Self, CostModelError> {
        let raw: Raw = parse_toml(text)?;
        if raw.name.trim().is_empty() {
            return Err(CostModelError::Empty("name".to_owned()));
        }
        if raw.exit_share > 100 {
            return Err(CostModelError::Share(raw.exit_share));
        }
        let mut costs = BTreeMap::new();
        for (key, cost) in raw.costs {
            let (item, _) = CostItem::NAMED
                .iter()
                .find(|(_, known)| *known == key)
                .ok_or_else(|| CostModelError::UnknownItem(key.clone()))?;
            check(&key, &cost)?;
            costs.insert(*item, cost);
        }
        for (item, _) in CostItem::NAMED {
            if !costs.contains_key(item) {
                return Err(CostModelError::Missing(*item));
            }
        }
        for (cpu, cost) in &raw.vmexit_plus_entry {
            check(cpu, cost)?;
        }
        Ok(Self {
            name: raw.name,
            exit_share: raw.exit_share,
            costs,
            round_trips: raw.vmexit_plus_entry,
        })
    }

    /// Name, which stands beside every figure made with the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Part of a round trip that is the exit, in percent.
    #[must_use]
    pub const fn exit_share(&self) -> u8 {
        self.exit_share
    }

    /// What an item costs, whatever the processor. `None` for no item: every model states all.
    #[must_use]
    pub fn cost(&self, item: CostItem) -> Option<&Cost> {
        self.costs.get(&item)
    }

    /// Processors with a round trip of their own, by name.
    pub fn processors(&self) -> impl Iterator<Item = (&str, &Cost)> {
        self.round_trips
            .iter()
            .map(|(name, cost)| (name.as_str(), cost))
    }

    /// What an item costs on the processor with this name (of an LBR profile).
    #[must_use]
    pub fn cost_on(&self, item: CostItem, cpu: &str) -> Option<&Cost> {
        match item {
            CostItem::RoundTrip => self.round_trips.get(cpu).or_else(|| self.cost(item)),
            _ => self.cost(item),
        }
    }
}

fn check(key: &str, cost: &Cost) -> Result<(), CostModelError> {
    if cost.at(Bound::Low) > cost.default || cost.default > cost.at(Bound::High) {
        return Err(CostModelError::Order(key.to_owned()));
    }
    if cost.source.trim().is_empty() {
        return Err(CostModelError::Empty(format!("the source of {key}")));
    }
    Ok(())
}
