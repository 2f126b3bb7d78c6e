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
    Tage(Box<Tage>),
    Simple(Simple),
}

/// One that learns conditional branches alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Simple {
    AlwaysTaken,
    Bimodal(Bimodal),
    Gshare(Gshare),
}

impl Direction {
    pub(crate) fn new(config: &DirectionConfig, seed: u32) -> Self {
        Self::Simple(match config {
            DirectionConfig::AlwaysTaken => Simple::AlwaysTaken,
            DirectionConfig::Bimodal { entries } => Simple::Bimodal(Bimodal::new(*entries)),
            DirectionConfig::Gshare { entries, history } => {
                Simple::Gshare(Gshare::new(*entries, *history))
            }
            DirectionConfig::Tage(config) => {
                return Self::Tage(Box::new(Tage::new(config, seed)));
            }
        })
    }

    /// The prediction for a conditional branch that then went as `taken` says.
    #[inline(always)]
    pub(crate) fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        match self {
            Self::Tage(tage) => tage.predict_and_update(address, taken),
            Self::Simple(simple) => simple.predict_and_update(address, taken),
        }
    }

    /// Tells of a branch, after it was predicted. `path`: what it adds to the path, before it does.
    #[inline(always)]
    pub(crate) fn note(&mut self, branch: &Branch, taken: bool, path: Option<(&History, Push)>) {
        if let Self::Tage(tage) = self {
            tage.note(branch, taken, path);
        }
    }
}

impl Simple {
    #[inline(never)]
    fn predict_and_update(&mut self, address: u64, taken: bool) -> bool {
        match self {
            Self::AlwaysTaken => true,
            Self::Bimodal(bimodal) => {
                let slot = bimodal.slot(address);
                bimodal.predict_and_update(slot, taken).0
            }
            Self::Gshare(gshare) => gshare.predict_and_update(address, taken),
        }
    }
}
