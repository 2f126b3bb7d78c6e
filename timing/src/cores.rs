//! The microarchitectures that come with the crate.

use vlbr_data::Catalog;

use crate::microarchitecture::{Microarchitecture, MicroarchitectureError};

fn parse(name: &str) -> Result<Microarchitecture, MicroarchitectureError> {
    let common = include_str!("../data/common.txt");
    if name == "haswell" {
        Microarchitecture::parse(
            include_str!("../data/haswell.toml"),
            &[
                include_str!("../data/haswell.llvm.txt"),
                common,
                include_str!("../data/haswell.txt"),
            ],
            include_str!("../data/haswell.fitted.txt"),
        )
    } else {
        Microarchitecture::parse(
            include_str!("../data/skylake.toml"),
            &[
                include_str!("../data/skylake.llvm.txt"),
                common,
                include_str!("../data/skylake.txt"),
            ],
            include_str!("../data/skylake.fitted.txt"),
        )
    }
}

/// The microarchitectures that come with the crate.
pub fn microarchitectures() -> &'static Catalog<Microarchitecture, MicroarchitectureError> {
    static CORES: Catalog<Microarchitecture, MicroarchitectureError> =
        Catalog::new(&["haswell", "skylake"], parse);
    &CORES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_data_can_be_read() {
        assert_eq!(microarchitectures().check(), Ok(()));
    }
}
