//! The direction predictors there are.

use super::bimodal::Bimodal;
use super::branch::Branch;
use super::config::DirectionConfig;
use super::gshare::Gshare;
use super::history::{History, Push};
use super::tage::Tage;

/// A direction predictor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    AlwaysTaken,
    Bimodal(Bimodal),
    Gshare(Gshare),
    Tage(Box<Tage>),
}

impl Direction {
    pub(crate) fn new(config: &DirectionConfig, seed: u32) -> Self {
        match config {
            DirectionConfig::AlwaysTaken => Self::AlwaysTaken,
            DirectionConfig::Bimodal { entries } => Self::Bimodal(Bimodal::new(*entries)),
            DirectionConfig::Gshare { entries, history } => {
                Self::Gshare(Gshare::new(*entries, *history))
            }
            DirectionConfig::Tage(config) => Self::Tage(Box::new(Tage::new(config, seed))),
        }
    }

    /// The prediction for a conditional branch that then went as `taken` says.
    #[inline]
    pub(crate) fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        match self {
            Self::AlwaysTaken => true,
            Self::Bimodal(bimodal) => {
                let slot = bimodal.slot(address);
                let predicted = bimodal.predict(slot);
                bimodal.update(slot, taken);
                predicted
            }
            Self::Gshare(gshare) => gshare.predict_and_update(address, taken),
            Self::Tage(tage) => tage.predict_and_update(address, taken),
        }
    }

    /// Tells of a branch, after it was predicted. `path`: what it adds to the path, before it does.
    #[inline]
    pub(crate) fn note(&mut self, branch: &Branch, taken: bool, path: Option<(&History, Push)>) {
        if let Self::Tage(tage) = self {
            tage.note(branch, taken, path);
        }
    }
}
