//! The profiles that come with the crate.

use std::sync::LazyLock;

use super::Profile;

/// Texts of `lbr/profiles`, oldest part first.
const TEXTS: &[&str] = &[
    include_str!("../../profiles/core2-65nm.toml"),
    include_str!("../../profiles/core2-45nm.toml"),
    include_str!("../../profiles/bonnell.toml"),
    include_str!("../../profiles/nehalem.toml"),
    include_str!("../../profiles/westmere.toml"),
    include_str!("../../profiles/saltwell.toml"),
    include_str!("../../profiles/sandy-bridge.toml"),
    include_str!("../../profiles/ivy-bridge.toml"),
    include_str!("../../profiles/silvermont.toml"),
    include_str!("../../profiles/airmont.toml"),
    include_str!("../../profiles/haswell.toml"),
    include_str!("../../profiles/broadwell.toml"),
    include_str!("../../profiles/skylake.toml"),
    include_str!("../../profiles/kaby-lake.toml"),
    include_str!("../../profiles/skylake-server.toml"),
    include_str!("../../profiles/comet-lake.toml"),
    include_str!("../../profiles/cannon-lake.toml"),
    include_str!("../../profiles/ice-lake.toml"),
    include_str!("../../profiles/ice-lake-server.toml"),
    include_str!("../../profiles/tiger-lake.toml"),
    include_str!("../../profiles/rocket-lake.toml"),
    include_str!("../../profiles/goldmont.toml"),
    include_str!("../../profiles/goldmont-plus.toml"),
    include_str!("../../profiles/tremont.toml"),
    include_str!("../../profiles/knights-landing.toml"),
    include_str!("../../profiles/alder-lake-p.toml"),
    include_str!("../../profiles/alder-lake-e.toml"),
    include_str!("../../profiles/sapphire-rapids.toml"),
    include_str!("../../profiles/meteor-lake-p.toml"),
    include_str!("../../profiles/meteor-lake-e.toml"),
    include_str!("../../profiles/granite-rapids.toml"),
    include_str!("../../profiles/lunar-lake-p.toml"),
    include_str!("../../profiles/lunar-lake-e.toml"),
];

static ALL: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let parse = |text: &&str| Profile::from_toml(text).expect("built-in profiles are tested");
    TEXTS.iter().map(parse).collect()
});

pub(super) fn all() -> &'static [Profile] {
    &ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_passes_the_checks() {
        for text in TEXTS {
            if let Err(error) = Profile::from_toml(text) {
                panic!("{error}\n{text}");
            }
        }
    }

    #[test]
    fn names_and_aliases_are_unique() {
        let mut names: Vec<&str> = all()
            .iter()
            .flat_map(|p| core::iter::once(p.name()).chain(p.aliases().iter().map(String::as_str)))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_name_finds_its_profile() {
        for profile in all() {
            for name in
                core::iter::once(profile.name()).chain(profile.aliases().iter().map(String::as_str))
            {
                assert_eq!(Profile::named(name), Ok(profile));
            }
        }
    }
}
