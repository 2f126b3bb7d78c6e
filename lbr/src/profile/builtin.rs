//! The profiles that come with the crate.

use vlbr_data::Catalog;

use super::{Profile, ProfileError};

/// The files of `lbr/profiles`, oldest part first.
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
}
