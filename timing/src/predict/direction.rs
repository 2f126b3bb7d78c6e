//! The direction predictors there are.

use super::bimodal::Bimodal;
use super::config::{DirectionConfig, TageConfig};
use super::gshare::Gshare;
use super::history::History;
use super::known::Known;
use super::loops::Place;
use super::tables::{Others, Table, is_plain, tables};
use super::tage::Tage;

/// A direction predictor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// As many plain tables as a built-in core has.
    Three(Box<Tage<[Table; 3]>>),
    Four(Box<Tage<[Table; 4]>>),
    Tage(Box<Tage<Others>>),
    Simple(Simple),
}

/// What a direction predictor does at each branch.
pub(crate) trait Learner {
    /// The prediction for a conditional branch, and what it then did is learned.
    fn predict_and_update(&mut self, branch: &Known) -> bool;

    /// Tells of a branch, after it was predicted. `path`: if it is added to the path, the path before that.
    fn note(&mut self, branch: &Known, taken: bool, path: Option<&History>);
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
            DirectionConfig::Tage(config) => return Self::of_tables(config, seed),
        })
    }

    fn of_tables(config: &TageConfig, seed: u32) -> Self {
        let (tables, rows) = tables(config);
        if is_plain(config) {
            if let &[a, b, c] = tables.as_slice() {
                return Self::Three(Tage::new(config, seed, [a, b, c], rows).into());
            }
            if let &[a, b, c, d] = tables.as_slice() {
                return Self::Four(Tage::new(config, seed, [a, b, c, d], rows).into());
            }
        }
        Self::Tage(Tage::new(config, seed, Others::new(tables), rows).into())
    }

    /// Where a conditional branch stands in the base of the tables, and where in the loop part, by its address, as it
    /// is and scattered.
    pub(crate) fn places(&self, address: u64, scattered: u64) -> (u32, Place) {
        match self {
            Self::Three(tage) => tage.places(address, scattered),
            Self::Four(tage) => tage.places(address, scattered),
            Self::Tage(tage) => tage.places(address, scattered),
            Self::Simple(_) => Default::default(),
        }
    }
}

impl Learner for Simple {
    fn predict_and_update(&mut self, branch: &Known) -> bool {
        let Known { address, taken, .. } = *branch;
        match self {
            Self::AlwaysTaken => true,
            Self::Bimodal(bimodal) => {
                let slot = bimodal.slot(address);
                bimodal.predict_and_update(slot, taken).0
            }
            Self::Gshare(gshare) => gshare.predict_and_update(address, taken),
        }
    }

    fn note(&mut self, _branch: &Known, _taken: bool, _path: Option<&History>) {}
}
