//! The profiles that come with the crate.

use std::sync::LazyLock;

use super::VmxProfile;

/// Texts of `vmx/profiles`, oldest generation first.
const TEXTS: &[&str] = &[
    include_str!("../../profiles/core2-65nm.toml"),
    include_str!("../../profiles/core2-45nm.toml"),
    include_str!("../../profiles/ivy-bridge.toml"),
    include_str!("../../profiles/haswell.toml"),
    include_str!("../../profiles/silvermont.toml"),
    include_str!("../../profiles/skylake.toml"),
    include_str!("../../profiles/ice-lake.toml"),
    include_str!("../../profiles/rocket-lake.toml"),
    include_str!("../../profiles/tiger-lake.toml"),
    include_str!("../../profiles/alder-lake.toml"),
    include_str!("../../profiles/sapphire-rapids.toml"),
];

static ALL: LazyLock<Vec<VmxProfile>> = LazyLock::new(|| {
    let parse = |text: &&str| VmxProfile::from_toml(text).expect("built-in profiles are tested");
    TEXTS.iter().map(parse).collect()
});

pub(super) fn all() -> &'static [VmxProfile] {
    &ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_passes_the_checks() {
        for text in TEXTS {
            if let Err(error) = VmxProfile::from_toml(text) {
                panic!("{error}\n{text}");
            }
        }
    }
}
