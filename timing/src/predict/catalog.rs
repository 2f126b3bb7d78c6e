//! The predictors that come with the crate.

use vlbr_data::Catalog;

use super::config::PredictorConfig;
use super::error::PredictorError;

/// The predictors that come with the crate: those of cores, by the names of the cores and of the processors
/// that have them, and simple ones.
pub fn predictors() -> &'static Catalog<PredictorConfig, PredictorError> {
    static PREDICTORS: Catalog<PredictorConfig, PredictorError> = Catalog::new(
        &[
            include_str!("../../data/predictors/ivy-bridge.toml"),
            include_str!("../../data/predictors/haswell.toml"),
            include_str!("../../data/predictors/skylake.toml"),
            include_str!("../../data/predictors/ice-lake.toml"),
            include_str!("../../data/predictors/golden-cove.toml"),
            include_str!("../../data/predictors/tage.toml"),
            include_str!("../../data/predictors/gshare.toml"),
            include_str!("../../data/predictors/bimodal.toml"),
            include_str!("../../data/predictors/always-taken.toml"),
        ],
        PredictorConfig::from_toml,
    );
    &PREDICTORS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_data_can_be_read() {
        assert_eq!(predictors().check(), Ok(()));
    }
}
