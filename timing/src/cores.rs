//! The microarchitectures that come with the crate.

use vlbr_data::Catalog;

use crate::microarchitecture::{Microarchitecture, MicroarchitectureError};

const COMMON: &str = include_str!("../data/common.txt");
const ICE_LAKE: &str = include_str!("../data/ice-lake.llvm.txt");

fn parse(name: &str) -> Result<Microarchitecture, MicroarchitectureError> {
    match name {
        "ivy-bridge" => Microarchitecture::built_in(
            include_str!("../data/ivy-bridge.toml"),
            &[
                include_str!("../data/ivy-bridge.llvm.txt"),
                include_str!("../data/ivy-bridge.txt"),
            ],
            "",
        ),
        "haswell" => Microarchitecture::built_in(
            include_str!("../data/haswell.toml"),
            &[
                include_str!("../data/haswell.llvm.txt"),
                COMMON,
                include_str!("../data/haswell.txt"),
            ],
            include_str!("../data/haswell.fitted.txt"),
        ),
        "ice-lake" => Microarchitecture::built_in(
            include_str!("../data/ice-lake.toml"),
            &[ICE_LAKE, COMMON, include_str!("../data/ice-lake.txt")],
            "",
        ),
        "golden-cove" => Microarchitecture::built_in(
            include_str!("../data/golden-cove.toml"),
            &[
                ICE_LAKE,
                COMMON,
                include_str!("../data/ice-lake.txt"),
                include_str!("../data/golden-cove.txt"),
            ],
            "",
        ),
        _ => Microarchitecture::built_in(
            include_str!("../data/skylake.toml"),
            &[
                include_str!("../data/skylake.llvm.txt"),
                COMMON,
                include_str!("../data/skylake.txt"),
            ],
            include_str!("../data/skylake.fitted.txt"),
        ),
    }
}

/// The microarchitectures that come with the crate, oldest first.
pub fn microarchitectures() -> &'static Catalog<Microarchitecture, MicroarchitectureError> {
    static CORES: Catalog<Microarchitecture, MicroarchitectureError> = Catalog::new(
        &[
            "ivy-bridge",
            "haswell",
            "skylake",
            "ice-lake",
            "golden-cove",
        ],
        parse,
    );
    &CORES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::predictors;

    #[test]
    fn every_name_of_a_core_names_its_predictor() {
        for core in microarchitectures().all() {
            for alias in core.aliases() {
                let found = predictors()
                    .named(alias)
                    .map(|predictor| predictor.name.as_str());
                assert_eq!(found, Some(core.name()), "{alias}");
            }
        }
    }

    #[test]
    fn the_built_in_data_can_be_read() {
        assert_eq!(microarchitectures().check(), Ok(()));
        for core in microarchitectures().all() {
            assert_eq!(core.check_tables(), Ok(()), "{}", core.name());
            for alias in core.aliases() {
                let found = microarchitectures()
                    .named(alias)
                    .map(Microarchitecture::name);
                assert_eq!(found, Some(core.name()), "{alias}");
            }
        }
    }
}
