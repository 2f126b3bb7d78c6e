//! Profiles as they stand in TOML.

use serde::Deserialize;
use vlbr_arch::vmx::{PrimaryControls, VmxBasic, VmxMisc};
use vlbr_data::{TomlError, parse_toml};

use super::{Allowed, VmxProfile};

/// Why there is no such profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VmxProfileError {
    /// No built-in profile is of this processor.
    #[error("the VMX capabilities of {0:?} are not known")]
    Unknown(String),
    /// Not TOML, or an unknown, missing or mistyped field.
    #[error("VMX profile: {0}")]
    Toml(#[from] TomlError),
    /// A value is impossible or contradicts another.
    #[error("VMX profile: {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAllowed {
    allowed0: u32,
    allowed1: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrue {
    pin: u32,
    primary: u32,
    exit: u32,
    entry: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    title: String,
    cpus: Vec<String>,
    basic: u64,
    misc: u64,
    pin: RawAllowed,
    primary: RawAllowed,
    secondary: Option<RawAllowed>,
    exit: RawAllowed,
    entry: RawAllowed,
    true_allowed0: Option<RawTrue>,
}

fn invalid(field: &'static str, reason: impl Into<String>) -> VmxProfileError {
    VmxProfileError::Invalid {
        field,
        reason: reason.into(),
    }
}

fn allowed(field: &'static str, raw: &RawAllowed) -> Result<Allowed, VmxProfileError> {
    let impossible = raw.allowed0 & !raw.allowed1;
    if impossible != 0 {
        let reason = format!("{impossible:#x} must be 1 and may not be 1");
        return Err(invalid(field, reason));
    }
    Ok(Allowed {
        allowed0: raw.allowed0,
        allowed1: raw.allowed1,
    })
}

pub(super) fn parse(text: &str) -> Result<VmxProfile, VmxProfileError> {
    let raw: Raw = parse_toml(text)?;
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !plain(&raw.name) {
        return Err(invalid("name", "is not made of a-z, 0-9 and -"));
    }
    if let Some(cpu) = raw.cpus.iter().find(|cpu| !plain(cpu)) {
        let reason = format!("{cpu:?} is not made of a-z, 0-9 and -");
        return Err(invalid("cpus", reason));
    }
    let basic = VmxBasic::from_bits(raw.basic);
    if raw.basic & 1 << 31 != 0 {
        return Err(invalid("basic", "bit 31 is set"));
    }
    if !(8..=4096).contains(&basic.region_size()) {
        return Err(invalid("basic", "a VMCS region has 8 to 4096 bytes"));
    }
    if basic.has_true_controls() != raw.true_allowed0.is_some() {
        let reason = "is given exactly if bit 55 of basic is set";
        return Err(invalid("true_allowed0", reason));
    }
    let primary = allowed("primary", &raw.primary)?;
    let secondary = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bits();
    if (primary.excess(secondary) == 0) != raw.secondary.is_some() {
        let reason = "is given exactly if bit 31 of primary may be 1";
        return Err(invalid("secondary", reason));
    }
    let profile = VmxProfile {
        name: raw.name,
        title: raw.title,
        cpus: raw.cpus,
        basic,
        misc: VmxMisc::from_bits(raw.misc),
        pin: allowed("pin", &raw.pin)?,
        primary,
        secondary: match &raw.secondary {
            Some(raw) => allowed("secondary", raw)?,
            None => Allowed::default(),
        },
        exit: allowed("exit", &raw.exit)?,
        entry: allowed("entry", &raw.entry)?,
        true_allowed0: raw
            .true_allowed0
            .map(|raw| [raw.pin, raw.primary, raw.exit, raw.entry]),
    };
    if let Some(lows) = profile.true_allowed0 {
        let all = [profile.pin, profile.primary, profile.exit, profile.entry];
        if lows
            .iter()
            .zip(all)
            .any(|(low, all)| low & !all.allowed0 != 0)
        {
            let reason = "demands more than the MSR that it relaxes";
            return Err(invalid("true_allowed0", reason));
        }
    }
    Ok(profile)
}
