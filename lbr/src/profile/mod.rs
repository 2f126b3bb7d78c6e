//! Processors as data: what the LBR of each looks like.

mod builtin;
mod check;
mod raw;

use core::fmt;
use core::str::FromStr;

use serde::Deserialize;
use vlbr_arch::{DebugCtl, LbrFormat, Msr};
use vlbr_data::Named;

use crate::QuirkSet;

pub use raw::ProfileError;

/// DisplayFamily and DisplayModel, as `06_4E`. SDM volume 2, CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuModel {
    /// DisplayFamily.
    pub family: u8,
    /// DisplayModel.
    pub model: u8,
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}_{:02X}", self.family, self.model)
    }
}

impl FromStr for CpuModel {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let bad = || ProfileError::Invalid {
            field: "models",
            reason: format!("{text:?} is not of the form 06_4E"),
        };
        let (family, model) = text.split_once('_').ok_or_else(bad)?;
        let byte = |digits: &str| {
            let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain
                .then(|| u8::from_str_radix(digits, 16).ok())
                .flatten()
                .ok_or_else(bad)
        };
        Ok(Self {
            family: byte(family)?,
            model: byte(model)?,
        })
    }
}

/// Meaning of `MSR_LBR_SELECT`. SDM volume 3, tables of MSR_LBR_SELECT per microarchitecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectLayout {
    /// No such register: everything is recorded.
    None,
    /// Bits 8:0; the jump bits overlap with calls and returns.
    Nehalem,
    /// Bits 8:0, each class by itself.
    SandyBridge,
    /// Bits 9:0: with call-stack mode.
    Haswell,
}

/// Who shares a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Each logical processor has its own.
    Thread,
    /// The logical processors of a core share one.
    Core,
}

/// What the event `LBR_INSERTS` counts. Intel's event lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InsertsEvent {
    /// There is no such event.
    None,
    /// Records added.
    Pushes,
    /// Records added, and in call-stack mode records removed.
    PushesAndPops,
}

/// The legacy (model-specific) interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LegacyLbr {
    /// Number of entries, a power of two up to 32.
    pub depth: u32,
    /// FROM of entry 0.
    pub from: Msr,
    /// TO of entry 0.
    pub to: Msr,
    /// INFO of entry 0, with formats 5 and 7.
    pub info: Option<Msr>,
    /// Format that `IA32_PERF_CAPABILITIES` reports.
    pub format: LbrFormat,
    /// Second likely format, where sources leave it open.
    pub format_alternative: Option<LbrFormat>,
    /// Filter register.
    pub select: SelectLayout,
    /// Who shares the filter register.
    pub select_scope: Scope,
    /// The LER pair exists.
    pub ler: bool,
    /// The stack and LER survive a warm reset.
    pub survives_warm_reset: bool,
    /// Setting `DEBUGCTL.FREEZE_LBRS_ON_PMI` clears `DEBUGCTL.TR`.
    pub freeze_clears_tr: bool,
    /// C-states deeper than C1 may reset the stack.
    pub deep_c_state_reset: bool,
}

/// The architectural interface: CPUID leaf 0x1C as the part reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArchLbr {
    /// EAX: depths (7:0), deep C-state reset (30), LIP (31).
    pub eax: u32,
    /// EBX: CPL filter (0), type filter (1), call-stack mode (2).
    pub ebx: u32,
    /// ECX: MISPRED (0), cycles (1), branch type (2), event logging (19:16).
    pub ecx: u32,
}

/// Legacy or architectural.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// Model-specific LBR.
    Legacy(LegacyLbr),
    /// Architectural LBR.
    Arch(ArchLbr),
}

/// A processor, as far as its LBR goes.
///
/// The known ones are [`Profile::all`]; others come from TOML by [`Profile::from_toml`]. Every
/// profile was checked when it was read, so a `Profile` is always consistent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) models: Vec<CpuModel>,
    pub(crate) linear_address_bits: u8,
    pub(crate) perfmon_version: u8,
    pub(crate) tsx: bool,
    pub(crate) debugctl: DebugCtl,
    pub(crate) lbr_inserts: InsertsEvent,
    pub(crate) quirks: QuirkSet,
    pub(crate) interface: Interface,
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

    /// The profiles of a family and model: two for a hybrid part, big cores first.
    pub fn of_model(model: CpuModel) -> impl Iterator<Item = &'static Self> {
        Self::all()
            .iter()
            .filter(move |profile| profile.models.contains(&model))
    }

    /// Reads a profile from TOML text in the form of the files in `lbr/profiles`.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown or missing field, or values that contradict each other.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        raw::parse(text)
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

    /// Families and models this is the LBR of.
    #[must_use]
    pub fn models(&self) -> &[CpuModel] {
        &self.models
    }

    /// Width of linear addresses, for the canonical check.
    #[must_use]
    pub const fn linear_address_bits(&self) -> u8 {
        self.linear_address_bits
    }

    /// Version of architectural performance monitoring, CPUID leaf 0xA EAX\[7:0\].
    #[must_use]
    pub const fn perfmon_version(&self) -> u8 {
        self.perfmon_version
    }

    /// TSX was enumerated when the part was sold.
    #[must_use]
    pub const fn tsx(&self) -> bool {
        self.tsx
    }

    /// Bits of `IA32_DEBUGCTL` that exist, TSX aside.
    #[must_use]
    pub const fn debugctl(&self) -> DebugCtl {
        self.debugctl
    }

    /// What `LBR_INSERTS` counts.
    #[must_use]
    pub const fn lbr_inserts(&self) -> InsertsEvent {
        self.lbr_inserts
    }

    /// Quirks that are on by default.
    #[must_use]
    pub const fn quirks(&self) -> QuirkSet {
        self.quirks
    }

    /// Legacy or architectural, with its particulars.
    #[must_use]
    pub const fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether this is architectural LBR.
    #[must_use]
    pub const fn is_arch(&self) -> bool {
        matches!(self.interface, Interface::Arch(_))
    }

    /// `IA32_PERF_CAPABILITIES.LBR_FMT`.
    #[must_use]
    pub const fn format(&self) -> LbrFormat {
        match &self.interface {
            Interface::Legacy(legacy) => legacy.format,
            Interface::Arch(_) => LbrFormat::ARCH,
        }
    }

    /// Number of entries; for architectural LBR the largest depth that CPUID enumerates.
    #[must_use]
    pub const fn max_depth(&self) -> u32 {
        match &self.interface {
            Interface::Legacy(legacy) => legacy.depth,
            Interface::Arch(arch) => match arch.eax & 0xff {
                0 => 0,
                mask => 8 * (mask.ilog2() + 1),
            },
        }
    }

    /// Whether call-stack mode exists.
    #[must_use]
    pub const fn has_call_stack(&self) -> bool {
        match &self.interface {
            Interface::Legacy(legacy) => matches!(legacy.select, SelectLayout::Haswell),
            Interface::Arch(arch) => arch.ebx & 4 != 0,
        }
    }
}
