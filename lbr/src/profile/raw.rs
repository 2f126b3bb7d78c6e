//! Profiles as they stand in TOML.

use serde::Deserialize;
use vlbr_arch::{DebugCtl, LbrFormat, Msr};
use vlbr_data::{TomlError, parse_toml};

use super::{
    ArchLbr, InsertsEvent, Interface, LegacyLbr, Profile, Scope, SelectLayout, builtin, check,
};
use crate::QuirkSet;

/// Why there is no such profile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No built-in profile has this name.
    #[error("no profile is named {name:?}; known are {known}", known = builtin::PROFILES.names())]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// Not TOML, or an unknown, missing or mistyped field.
    #[error("profile: {0}")]
    Toml(#[from] TomlError),
    /// A value is impossible or contradicts another.
    #[error("profile: {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: String,
    title: String,
    #[serde(default)]
    aliases: Vec<String>,
    models: Vec<String>,
    linear_address_bits: u8,
    perfmon_version: u8,
    tsx: bool,
    debugctl: Vec<String>,
    lbr_inserts: InsertsEvent,
    #[serde(default)]
    quirks: QuirkSet,
    legacy: Option<RawLegacy>,
    arch: Option<RawArch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLegacy {
    depth: u32,
    tos_bits: u32,
    from: u32,
    to: u32,
    info: Option<u32>,
    format: u8,
    format_alternative: Option<u8>,
    select: SelectLayout,
    #[serde(default = "thread_scope")]
    select_scope: Scope,
    ler: bool,
    survives_warm_reset: bool,
    #[serde(default)]
    freeze_clears_tr: bool,
    deep_c_state_reset: bool,
}

const fn thread_scope() -> Scope {
    Scope::Thread
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArch {
    cpuid_1c_eax: u32,
    cpuid_1c_ebx: u32,
    cpuid_1c_ecx: u32,
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> ProfileError {
    ProfileError::Invalid {
        field,
        reason: reason.into(),
    }
}

/// Reads and checks a profile.
pub(super) fn parse(text: &str) -> Result<Profile, ProfileError> {
    let raw: RawProfile = parse_toml(text)?;
    let interface = match (raw.legacy, raw.arch) {
        (Some(legacy), None) => Interface::Legacy(parse_legacy(legacy)?),
        (None, Some(arch)) => Interface::Arch(ArchLbr {
            eax: arch.cpuid_1c_eax,
            ebx: arch.cpuid_1c_ebx,
            ecx: arch.cpuid_1c_ecx,
        }),
        (Some(_), Some(_)) => return Err(invalid("arch", "stands beside legacy; give one")),
        (None, None) => return Err(invalid("legacy", "neither legacy nor arch is given")),
    };
    let mut debugctl = DebugCtl::default();
    for name in &raw.debugctl {
        let bit = DebugCtl::from_name(name)
            .ok_or_else(|| invalid("debugctl", format!("{name:?} is no bit of IA32_DEBUGCTL")))?;
        if debugctl.contains(bit) {
            return Err(invalid("debugctl", format!("{name:?} stands twice")));
        }
        debugctl = debugctl | bit;
    }
    let profile = Profile {
        name: raw.name,
        title: raw.title,
        aliases: raw.aliases,
        models: raw
            .models
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
        linear_address_bits: raw.linear_address_bits,
        perfmon_version: raw.perfmon_version,
        tsx: raw.tsx,
        debugctl,
        lbr_inserts: raw.lbr_inserts,
        quirks: raw.quirks,
        interface,
    };
    check::check(&profile)?;
    Ok(profile)
}

fn parse_legacy(raw: RawLegacy) -> Result<LegacyLbr, ProfileError> {
    if 1u32.checked_shl(raw.tos_bits) != Some(raw.depth) {
        let reason = format!("{} bits do not index {} entries", raw.tos_bits, raw.depth);
        return Err(invalid("legacy.tos_bits", reason));
    }
    let format = |field, value: u8| match value {
        0..=7 => Ok(LbrFormat::new(value)),
        _ => Err(invalid(field, format!("{value} is no legacy format"))),
    };
    Ok(LegacyLbr {
        depth: raw.depth,
        from: Msr::new(raw.from),
        to: Msr::new(raw.to),
        info: raw.info.map(Msr::new),
        format: format("legacy.format", raw.format)?,
        format_alternative: raw
            .format_alternative
            .map(|value| format("legacy.format_alternative", value))
            .transpose()?,
        select: raw.select,
        select_scope: raw.select_scope,
        ler: raw.ler,
        survives_warm_reset: raw.survives_warm_reset,
        freeze_clears_tr: raw.freeze_clears_tr,
        deep_c_state_reset: raw.deep_c_state_reset,
    })
}
