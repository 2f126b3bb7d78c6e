//! The profiles and event lists that come with the crate.

use vlbr_data::Catalog;

use super::{Profile, ProfileError};

/// The files of `pmu/profiles`, oldest part first, as in `lbr`.
pub(super) static PROFILES: Catalog<Profile, ProfileError> =
    Catalog::new(TEXTS, Profile::from_toml);

const TEXTS: &[&str] = vlbr_data::texts!("../../profiles":
    "core2-65nm"
    "core2-45nm"
    "bonnell"
    "nehalem"
    "westmere"
    "saltwell"
    "sandy-bridge"
    "ivy-bridge"
    "silvermont"
    "airmont"
    "haswell"
    "broadwell"
    "skylake"
    "kaby-lake"
    "skylake-server"
    "comet-lake"
    "cannon-lake"
    "ice-lake"
    "ice-lake-server"
    "tiger-lake"
    "rocket-lake"
    "goldmont"
    "goldmont-plus"
    "tremont"
    "knights-landing"
    "alder-lake-p"
    "alder-lake-e"
    "sapphire-rapids"
    "meteor-lake-p"
    "meteor-lake-e"
    "granite-rapids"
    "lunar-lake-p"
    "lunar-lake-e"
);

/// Events that CPUID leaf 0xA enumerates.
pub(super) const ARCHITECTURAL: &str = include_str!("../../events/architectural.toml");

/// Texts of `pmu/events` by name.
const EVENTS: &[(&str, &str)] = vlbr_data::named_texts!("../../events":
    "bonnell"
    "broadwell"
    "core2"
    "crestmont"
    "golden-cove"
    "goldmont"
    "goldmont-plus"
    "gracemont"
    "granite-rapids"
    "haswell"
    "ice-lake"
    "ivy-bridge"
    "knights-landing"
    "lion-cove"
    "nehalem"
    "redwood-cove"
    "sandy-bridge"
    "sapphire-rapids"
    "silvermont"
    "skylake"
    "skymont"
    "tiger-lake"
    "tremont"
    "westmere"
);

pub(super) fn event_list(name: &str) -> Option<&'static str> {
    let (_, text) = EVENTS.iter().find(|(known, _)| *known == name)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_passes_the_checks_and_no_two_have_one_name() {
        assert_eq!(PROFILES.check(), Ok(()));
    }

    #[test]
    fn every_alias_finds_its_profile_and_no_other() {
        for profile in PROFILES.all() {
            for alias in profile.aliases() {
                assert_eq!(Profile::named(alias), Ok(profile));
            }
        }
    }

    #[test]
    fn every_event_list_is_used() {
        for (name, _) in EVENTS {
            let line = format!("events = \"{name}\"\n");
            assert!(TEXTS.iter().any(|text| text.contains(&line)), "{name}");
        }
    }
}
