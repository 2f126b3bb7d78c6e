//! What the processor does not say of itself.

use serde::Deserialize;
use vlbr_data::{TomlError, parse_toml};

/// What happens with an MSR area of more entries than `IA32_VMX_MISC` recommends, which the SDM
/// leaves undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeyondLimit {
    /// A machine check: entries fail with reason 41, exits abort with indicator 5.
    #[default]
    MachineCheck,
    /// It is processed like any other.
    Process,
}

/// Choices and properties beside the capability MSRs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Width of physical addresses, CPUID leaf 0x80000008 EAX\[7:0\] \[46\].
    pub physical_address_bits: u8,
    /// MSR areas beyond the recommended length \[machine-check\].
    pub area_beyond_limit: BeyondLimit,
    /// MSRs that the areas may not hold for reasons of the model \[0x79, 0x8B: microcode update and
    /// its revision; KVM refuses the same two in a nested guest's areas\].
    pub area_banned: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            physical_address_bits: 46,
            area_beyond_limit: BeyondLimit::MachineCheck,
            area_banned: vec![0x79, 0x8b],
        }
    }
}

/// A text that is no set of options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Not TOML, or an unknown or mistyped field.
    #[error("VMX options: {0}")]
    Toml(#[from] TomlError),
    /// No processor has addresses of this width.
    #[error("VMX options: physical_address_bits {0} is not from 32 to 52")]
    Width(u8),
}

impl Options {
    /// Reads options from TOML: `name = value` lines named like the fields; absent ones keep their
    /// defaults.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type or out of range, or text that is not TOML.
    pub fn from_toml(text: &str) -> Result<Self, OptionsError> {
        let options: Self = parse_toml(text)?;
        if !(32..=52).contains(&options.physical_address_bits) {
            return Err(OptionsError::Width(options.physical_address_bits));
        }
        Ok(options)
    }
}
