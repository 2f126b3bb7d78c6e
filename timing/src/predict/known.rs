//! A branch with what the parts of a predictor make of its addresses.

use super::branch::BranchKind;
use super::history::Push;
use super::loops::Place;

/// A branch with what the parts of a predictor make of its addresses, which is the same each time it retires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Those of [`super::Branch`].
    pub(crate) address: u64,
    pub(crate) target: u64,
    /// Of a conditional branch its address, scattered as [`super::entry::scatter`] does; of others the address behind
    /// it.
    pub(super) other: u64,
    /// First entry of its set in the branch target buffer.
    pub(super) first: u32,
    /// Its counter in the base of the tables.
    pub(super) slot: u32,
    pub(super) place: Place,
    /// What it adds to the path if it is taken.
    pub(super) push: Push,
    pub(crate) kind: BranchKind,
    pub(super) taken: bool,
}

/// What a predictor would have got wrong of a branch: [`super::Prediction`] in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed(pub(super) u8);

impl Missed {
    pub(super) const DIRECTION: u8 = 1;
    pub(super) const TARGET: u8 = 2;
    pub(super) const BTB: u8 = 4;

    /// Nothing: the front end was there already.
    #[inline(always)]
    pub(crate) const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// See [`super::Prediction::mispredicted`]. If not, and it is not nothing, the front end goes on once the branch
    /// is decoded.
    #[inline(always)]
    pub(crate) const fn mispredicted(self) -> bool {
        self.0 & (Self::DIRECTION | Self::TARGET) != 0
    }
}
