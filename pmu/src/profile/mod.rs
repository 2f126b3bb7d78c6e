//! Processors as data: what the PMU of each looks like.

mod builtin;
mod check;
mod event;
mod raw;

use serde::Deserialize;
use vlbr_arch::{CpuidResult, PerfCapabilities};
use vlbr_data::Named;

use crate::QuirkSet;

pub use event::EventEntry;
pub use raw::ProfileError;

/// General-purpose counters that the largest part has.
pub(crate) const MAX_GP: u32 = 8;
/// Fixed counters that the largest part has.
pub(crate) const MAX_FIXED: u32 = 4;

/// Which PEBS counters take their record at the overflowing instruction itself ("precise
/// distribution") instead of at the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pdir {
    /// None.
    None,
    /// `INST_RETIRED.PREC_DIST` (C0/01) on counter 1.
    PrecDist,
    /// All.
    EveryEvent,
    /// Fixed counter 0 and counter 0.
    Fixed0Pmc0,
}

/// What a PEBS record without room in the buffer does, beside not being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PebsFull {
    /// Nothing: counters reload as after a record.
    #[default]
    Drop,
    /// Goldmont: `OVF_BUFFER` is set, the counters' status is cleared, they do not reload.
    Status,
}

/// PEBS of a part. SDM volume 3, "Processor Event Based Sampling" of each microarchitecture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PebsProfile {
    /// General-purpose counters that can, bit n for counter n.
    pub counters: u8,
    /// Fixed counters that can.
    pub fixed_counters: u8,
    /// Reset values of general-purpose counters in the debug store.
    pub reset_slots: u8,
    /// Offset of the reset value of fixed counter 0.
    pub fixed_reset_offset: Option<u64>,
    /// Which counters are exact.
    pub pdir: Pdir,
    /// Offsets of fields that are stored as 0 (formats 1 to 3).
    pub reserved: Vec<u64>,
    /// What a full buffer does.
    pub full: PebsFull,
    /// Upper halves of registers are stored outside IA-32e mode too.
    pub upper_halves: bool,
    /// `MSR_PEBS_LD_LAT_THRESHOLD` exists; before adaptive PEBS, `PEBS_ENABLE[35:32]` as well.
    pub load_latency: bool,
    /// `PEBS_ENABLE[63]` exists.
    pub precise_store: bool,
    /// Writable bits of `MSR_PEBS_FRONTEND`, if it exists.
    pub frontend_mask: Option<u64>,
}

/// CPUID leaf 0xA of some parts of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leaf {
    pub(crate) parts: Vec<String>,
    pub(crate) registers: CpuidResult,
    pub(crate) fixed_counters: Option<u8>,
}

/// A processor, as far as its PMU goes.
///
/// The known ones are [`Profile::all`], with the names of the profiles of `vlbr-lbr`; others come
/// from TOML by [`Profile::from_toml`]. Every profile was checked when it was read, so a `Profile`
/// is always consistent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) models: Vec<String>,
    pub(crate) linear_address_bits: u8,
    pub(crate) tsx: bool,
    pub(crate) perf_capabilities: PerfCapabilities,
    pub(crate) pin_control: bool,
    pub(crate) event_logging: u8,
    pub(crate) offcore_rsp: Vec<u64>,
    pub(crate) quirks: QuirkSet,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) leaf: usize,
    pub(crate) pebs: Option<PebsProfile>,
    pub(crate) events: Vec<EventEntry>,
}

impl Named for Profile {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_called(&self, text: &str) -> bool {
        core::iter::once(&self.name)
            .chain(&self.aliases)
            .any(|known| known.eq_ignore_ascii_case(text))
    }
}

impl Profile {
    /// Every profile that comes with the crate, oldest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        builtin::PROFILES.all()
    }

    /// The profile with this name or alias, in any case, for instance `skylake` or `skl`.
    ///
    /// # Errors
    /// No profile has it; the error lists the names.
    pub fn named(name: &str) -> Result<&'static Self, ProfileError> {
        builtin::PROFILES
            .named(name)
            .ok_or_else(|| ProfileError::Unknown {
                name: name.to_owned(),
            })
    }

    /// Reads a profile from TOML text in the form of the files in `pmu/profiles`.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown or missing field, or values that contradict each other.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        raw::parse(text)
    }

    /// The profile with CPUID leaf 0xA of another of its [`Profile::parts`]: a stepping, or `ht`
    /// and `no-ht` for hyper-threading on and off. Without this the first is taken.
    ///
    /// # Errors
    /// The profile names no such part.
    pub fn with_part(&self, name: &str) -> Result<Self, ProfileError> {
        let leaf = self
            .leaves
            .iter()
            .position(|leaf| {
                leaf.parts
                    .iter()
                    .any(|part| part.eq_ignore_ascii_case(name))
            })
            .ok_or_else(|| ProfileError::UnknownPart {
                profile: self.name.clone(),
                name: name.to_owned(),
                known: self.parts().collect::<Vec<_>>().join(" "),
            })?;
        Ok(Self {
            leaf,
            ..self.clone()
        })
    }

    /// The profile under another name: the same PMU in a part whose LBR has a profile of its own.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// Parts whose CPUID leaf 0xA is known by name.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.leaves
            .iter()
            .flat_map(|leaf| leaf.parts.iter().map(String::as_str))
    }

    /// Short name, as on the command line.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Other short names.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Families and models this is the PMU of, as `06_4E`.
    #[must_use]
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Width of linear addresses, for the canonical check.
    #[must_use]
    pub const fn linear_address_bits(&self) -> u8 {
        self.linear_address_bits
    }

    /// TSX was enumerated when the part was sold.
    #[must_use]
    pub const fn tsx(&self) -> bool {
        self.tsx
    }

    /// `IA32_PERF_CAPABILITIES`.
    #[must_use]
    pub const fn perf_capabilities(&self) -> PerfCapabilities {
        self.perf_capabilities
    }

    /// `PERFEVTSEL.PC` exists.
    #[must_use]
    pub const fn pin_control(&self) -> bool {
        self.pin_control
    }

    /// Counters whose events can be logged into the LBR, bit n for counter n.
    #[must_use]
    pub const fn event_logging(&self) -> u8 {
        self.event_logging
    }

    /// Quirks that are on by default.
    #[must_use]
    pub const fn quirks(&self) -> QuirkSet {
        self.quirks
    }

    /// PEBS, if the part has it.
    #[must_use]
    pub const fn pebs(&self) -> Option<&PebsProfile> {
        self.pebs.as_ref()
    }

    /// CPUID leaf 0xA, as the part reports it.
    #[must_use]
    pub fn cpuid_0a(&self) -> CpuidResult {
        self.leaf().registers
    }

    fn leaf(&self) -> &Leaf {
        // `leaf` is set where its bounds are known only.
        &self.leaves[self.leaf]
    }

    /// Version of architectural performance monitoring.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.cpuid_0a().eax as u8
    }

    /// Number of general-purpose counters.
    #[must_use]
    pub fn gp_counters(&self) -> u32 {
        self.cpuid_0a().eax >> 8 & 0xff
    }

    /// Bits of a general-purpose counter.
    #[must_use]
    pub fn gp_width(&self) -> u32 {
        self.cpuid_0a().eax >> 16 & 0xff
    }

    /// Fixed counters that exist, bit i for counter i: those CPUID reports, or where it is known to
    /// report too few, those the part has.
    #[must_use]
    pub fn fixed_mask(&self) -> u32 {
        let leaf = self.leaf();
        let CpuidResult { ecx, edx, .. } = leaf.registers;
        let count = leaf.fixed_counters.map_or(edx & 0x1f, u32::from);
        ecx | ((1u64 << count) - 1) as u32
    }

    /// Bits of a fixed counter; that of the general-purpose ones where CPUID reports none.
    #[must_use]
    pub fn fixed_width(&self) -> u32 {
        match self.cpuid_0a().edx >> 5 & 0xff {
            0 => self.gp_width(),
            width => width,
        }
    }

    /// CPUID says that counting for every logical processor of the core is deprecated.
    #[must_use]
    pub fn any_thread_deprecated(&self) -> bool {
        self.cpuid_0a().edx & 1 << 15 != 0
    }

    /// CPUID says that architectural event `n` is available.
    #[must_use]
    pub fn architectural_event(&self, n: u8) -> bool {
        let CpuidResult { eax, ebx, .. } = self.cpuid_0a();
        u32::from(n) < eax >> 24 && ebx >> n & 1 == 0
    }

    /// Every event that is known by name: Intel's list first, then the architectural ones.
    #[must_use]
    pub fn events(&self) -> &[EventEntry] {
        &self.events
    }
}
