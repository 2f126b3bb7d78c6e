//! Profiles and event lists as they stand in TOML.

use serde::Deserialize;
use vlbr_arch::{CpuidResult, PerfCapabilities};
use vlbr_data::{TomlError, parse_toml};

use super::{EventEntry, Leaf, Pdir, PebsFull, PebsProfile, Profile, builtin, check};
use crate::{QuirkSet, SourceSet};

/// Why there is no such profile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No built-in profile has this name.
    #[error("no PMU profile is named {name:?}; known are {known}", known = builtin::PROFILES.names())]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The profile has no such part.
    #[error("{profile} has no part {name:?}; known are {known}")]
    UnknownPart {
        /// The profile.
        profile: String,
        /// The name that was asked for.
        name: String,
        /// Those it has.
        known: String,
    },
    /// Not TOML, or an unknown, missing or mistyped field.
    #[error("PMU profile: {0}")]
    Toml(#[from] TomlError),
    /// A value is impossible or contradicts another.
    #[error("PMU profile: {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> ProfileError {
    ProfileError::Invalid {
        field,
        reason: reason.into(),
    }
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
    tsx: bool,
    perf_capabilities: u64,
    events: String,
    pin_control: bool,
    #[serde(default)]
    event_logging: u8,
    #[serde(default)]
    offcore_rsp: Vec<String>,
    #[serde(default)]
    quirks: QuirkSet,
    cpuid_0a: Vec<RawLeaf>,
    pebs: Option<RawPebs>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLeaf {
    #[serde(default)]
    parts: Vec<String>,
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
    fixed_counters: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPebs {
    counters: u8,
    #[serde(default)]
    fixed_counters: u8,
    reset_slots: u8,
    fixed_reset_offset: Option<u64>,
    pdir: Pdir,
    #[serde(default)]
    reserved: Vec<u64>,
    #[serde(default)]
    full: PebsFull,
    #[serde(default)]
    upper_halves: bool,
    #[serde(default)]
    load_latency: bool,
    #[serde(default)]
    precise_store: bool,
    frontend_mask: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvents {
    event: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    name: String,
    code: u8,
    umask: u8,
    counts: Option<String>,
    fixed: Option<u8>,
    counters: Option<Vec<u8>>,
    architectural: Option<u8>,
}

/// Reads and checks a profile.
pub(super) fn parse(text: &str) -> Result<Profile, ProfileError> {
    let raw: RawProfile = parse_toml(text)?;
    let list = builtin::event_list(&raw.events)
        .ok_or_else(|| invalid("events", format!("no event list is named {:?}", raw.events)))?;
    let mut events = parse_events(list)?;
    events.extend(parse_events(builtin::ARCHITECTURAL)?);
    let profile = Profile {
        name: raw.name,
        title: raw.title,
        aliases: raw.aliases,
        models: raw.models,
        linear_address_bits: raw.linear_address_bits,
        tsx: raw.tsx,
        perf_capabilities: PerfCapabilities::from_bits(raw.perf_capabilities),
        pin_control: raw.pin_control,
        event_logging: raw.event_logging,
        offcore_rsp: raw
            .offcore_rsp
            .iter()
            .map(|text| mask(text))
            .collect::<Result<_, _>>()?,
        quirks: raw.quirks,
        leaves: raw.cpuid_0a.into_iter().map(leaf).collect(),
        leaf: 0,
        pebs: raw.pebs.map(pebs),
        events,
    };
    check::check(&profile)?;
    Ok(profile)
}

/// TOML integers are signed: masks that use bit 63 are hexadecimal texts.
fn mask(text: &str) -> Result<u64, ProfileError> {
    text.strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| invalid("offcore_rsp", format!("{text:?} is no hexadecimal number")))
}

fn leaf(raw: RawLeaf) -> Leaf {
    Leaf {
        parts: raw.parts,
        registers: CpuidResult {
            eax: raw.eax,
            ebx: raw.ebx,
            ecx: raw.ecx,
            edx: raw.edx,
        },
        fixed_counters: raw.fixed_counters,
    }
}

fn pebs(raw: RawPebs) -> PebsProfile {
    PebsProfile {
        counters: raw.counters,
        fixed_counters: raw.fixed_counters,
        reset_slots: raw.reset_slots,
        fixed_reset_offset: raw.fixed_reset_offset,
        pdir: raw.pdir,
        reserved: raw.reserved,
        full: raw.full,
        upper_halves: raw.upper_halves,
        load_latency: raw.load_latency,
        precise_store: raw.precise_store,
        frontend_mask: raw.frontend_mask,
    }
}

pub(super) fn parse_events(text: &str) -> Result<Vec<EventEntry>, ProfileError> {
    let raw: RawEvents = parse_toml(text)?;
    raw.event.into_iter().map(event).collect()
}

fn event(raw: RawEvent) -> Result<EventEntry, ProfileError> {
    let counts = raw
        .counts
        .map(|name| {
            SourceSet::from_name(&name)
                .ok_or_else(|| invalid("event", format!("no source is named {name:?}")))
        })
        .transpose()?;
    Ok(EventEntry {
        name: raw.name,
        code: raw.code,
        umask: raw.umask,
        counts: counts.unwrap_or(SourceSet::EMPTY),
        fixed: raw.fixed,
        counters: raw.counters,
        architectural: raw.architectural,
    })
}

#[cfg(test)]
mod tests {
    use vlbr_fuzz::{Form, throw};

    use super::*;
    use crate::Options;

    /// Event lists come with the crate; their reader is a reader all the same.
    #[test]
    fn fuzz_event_list() {
        let names = ["skylake", "gracemont", "core2"];
        let lists = names.iter().filter_map(|name| builtin::event_list(name));
        let seeds: Vec<Vec<u8>> = lists
            .chain([builtin::ARCHITECTURAL])
            .map(|text| text.as_bytes().to_vec())
            .collect();
        let skylake = Profile::named("skylake").expect("built in");
        let tally = throw("event list", 500, Form::Text, &seeds, |bytes| {
            let text = str::from_utf8(bytes).ok();
            let Some(events) = text.and_then(|text| parse_events(text).ok()) else {
                return false;
            };
            let profile = Profile {
                events,
                ..skylake.clone()
            };
            if check::check(&profile).is_err() {
                return false;
            }
            for event in profile.events() {
                let _ = profile.parse_event(event.name(), &Options::default());
            }
            true
        });
        assert!(tally.taken > 0 && tally.refused > 0);
    }
}
