//! The profiles that come with the crate.

use vlbr_data::Catalog;

use super::{VmxProfile, VmxProfileError};

/// The files of `vmx/profiles`, oldest generation first.
pub(super) static PROFILES: Catalog<VmxProfile, VmxProfileError> =
    Catalog::new(TEXTS, VmxProfile::from_toml);

const TEXTS: &[&str] = vlbr_data::texts!("../../profiles":
    "core2-65nm"
    "core2-45nm"
    "ivy-bridge"
    "haswell"
    "silvermont"
    "skylake"
    "ice-lake"
    "rocket-lake"
    "tiger-lake"
    "alder-lake"
    "sapphire-rapids"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_passes_the_checks_and_no_two_have_one_name() {
        assert_eq!(PROFILES.check(), Ok(()));
    }

    #[test]
    fn every_processor_finds_its_profile_and_no_other() {
        for profile in PROFILES.all() {
            for cpu in profile.cpus() {
                assert_eq!(VmxProfile::of_processor(cpu), Ok(profile));
            }
        }
    }
}
