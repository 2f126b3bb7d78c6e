//! The profiles and event lists that come with the crate.

use std::sync::LazyLock;

use super::Profile;

/// Texts of `pmu/profiles`, oldest part first, as in `lbr`.
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

/// Events that CPUID leaf 0xA enumerates.
pub(super) const ARCHITECTURAL: &str = include_str!("../../events/architectural.toml");

/// Texts of `pmu/events` by name.
const EVENTS: &[(&str, &str)] = &[
    ("bonnell", include_str!("../../events/bonnell.toml")),
    ("broadwell", include_str!("../../events/broadwell.toml")),
    ("core2", include_str!("../../events/core2.toml")),
    ("crestmont", include_str!("../../events/crestmont.toml")),
    ("golden-cove", include_str!("../../events/golden-cove.toml")),
    ("goldmont", include_str!("../../events/goldmont.toml")),
    (
        "goldmont-plus",
        include_str!("../../events/goldmont-plus.toml"),
    ),
    ("gracemont", include_str!("../../events/gracemont.toml")),
    (
        "granite-rapids",
        include_str!("../../events/granite-rapids.toml"),
    ),
    ("haswell", include_str!("../../events/haswell.toml")),
    ("ice-lake", include_str!("../../events/ice-lake.toml")),
    ("ivy-bridge", include_str!("../../events/ivy-bridge.toml")),
    (
        "knights-landing",
        include_str!("../../events/knights-landing.toml"),
    ),
    ("lion-cove", include_str!("../../events/lion-cove.toml")),
    ("nehalem", include_str!("../../events/nehalem.toml")),
    (
        "redwood-cove",
        include_str!("../../events/redwood-cove.toml"),
    ),
    (
        "sandy-bridge",
        include_str!("../../events/sandy-bridge.toml"),
    ),
    (
        "sapphire-rapids",
        include_str!("../../events/sapphire-rapids.toml"),
    ),
    ("silvermont", include_str!("../../events/silvermont.toml")),
    ("skylake", include_str!("../../events/skylake.toml")),
    ("skymont", include_str!("../../events/skymont.toml")),
    ("tiger-lake", include_str!("../../events/tiger-lake.toml")),
    ("tremont", include_str!("../../events/tremont.toml")),
    ("westmere", include_str!("../../events/westmere.toml")),
];

static ALL: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let parse = |text: &&str| Profile::from_toml(text).expect("built-in profiles are tested");
    TEXTS.iter().map(parse).collect()
});

pub(super) fn all() -> &'static [Profile] {
    &ALL
}

pub(super) fn event_list(name: &str) -> Option<&'static str> {
    let (_, text) = EVENTS.iter().find(|(known, _)| *known == name)?;
    Some(text)
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
    fn every_event_list_is_used() {
        for (name, _) in EVENTS {
            let line = format!("events = \"{name}\"\n");
            assert!(TEXTS.iter().any(|text| text.contains(&line)), "{name}");
        }
    }

    #[test]
    fn every_name_finds_its_profile_and_no_other() {
        for profile in all() {
            for name in
                core::iter::once(profile.name()).chain(profile.aliases().iter().map(String::as_str))
            {
                assert_eq!(Profile::named(name).map(Profile::name), Ok(profile.name()));
            }
        }
    }
}
