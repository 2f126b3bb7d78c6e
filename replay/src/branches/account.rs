//! Counts of branches and of what was mispredicted.

use vlbr_timing::predict::{Branch, BranchKind, Prediction};

use super::walk::{Retired, Where};
use crate::names::Moment;

/// Counts of one kind or place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) branches: u64,
    pub(crate) taken: u64,
    pub(crate) mispredicted: u64,
    pub(crate) btb_missed: u64,
}

impl Tally {
    fn add(&mut self, branch: &Branch, prediction: Prediction) {
        self.branches += 1;
        self.taken += u64::from(branch.taken);
        self.mispredicted += u64::from(prediction.mispredicted());
        self.btb_missed += u64::from(prediction.btb_missed);
    }

    pub(crate) fn sum(parts: &[Self]) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.branches += part.branches;
            sum.taken += part.taken;
            sum.mispredicted += part.mispredicted;
            sum.btb_missed += part.btb_missed;
        }
        sum
    }
}

/// Counts by kind and by place.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) instructions: u64,
    pub(crate) far: u64,
    /// In the order of [`BranchKind::ALL`].
    pub(crate) kinds: [Tally; BranchKind::ALL.len()],
    /// By number of the place, with the moment it was first counted.
    pub(crate) places: Vec<(Tally, Moment)>,
}

impl Account {
    /// Counts what retired.
    pub(crate) fn add(&mut self, retired: &Retired, prediction: Option<Prediction>, at: Where) {
        self.instructions += u64::from(retired.instructions);
        self.far += u64::from(retired.far);
        let (Some(branch), Some(prediction)) = (&retired.branch, prediction) else {
            return;
        };
        self.kinds[branch.kind as usize].add(branch, prediction);
        let Some(site) = retired.site else {
            return;
        };
        let site = site as usize;
        if site >= self.places.len() {
            self.places.resize(site + 1, (Tally::default(), at.moment));
        }
        let (tally, moment) = &mut self.places[site];
        if tally.branches == 0 {
            *moment = at.moment;
        }
        tally.add(branch, prediction);
    }
}
