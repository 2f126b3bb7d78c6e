//! What a run of retired instructions adds up to.

use vlbr_arch::{BranchClass, Cpl};

use crate::{Source, SourceSet};

/// Occurrences of each [`Source`], by the privilege level at which the instruction executed, before
/// its transfer if it makes one, in a run of instructions: one instruction,
/// a step, or as many as [`crate::Horizon`] allows. The run lies inside one transaction or outside
/// of any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Increments {
    amounts: [[u64; Source::COUNT]; 2],
    /// Sources whose amount is not 0, so that a sum over many looks at few.
    present: [u32; 2],
    /// The run was executed in a transaction.
    pub in_tx: bool,
}

impl Default for Increments {
    fn default() -> Self {
        Self {
            amounts: [[0; Source::COUNT]; 2],
            present: [0; 2],
            in_tx: false,
        }
    }
}

impl Increments {
    /// Nothing, outside of transactions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One instruction that is no branch.
    #[must_use]
    pub fn instruction(cpl: Cpl) -> Self {
        let mut this = Self::default();
        this.add(Source::Instructions, cpl, 1);
        this
    }

    /// One branch instruction of class `class`, the instruction included.
    #[must_use]
    pub fn branch(class: BranchClass, taken: bool, mispredicted: bool, cpl: Cpl) -> Self {
        let mut this = Self::instruction(cpl);
        this.add_branch(class, taken, mispredicted, cpl);
        this
    }

    /// Adds `amount` occurrences of `source` at `cpl`. Amounts stop at 2^64 - 1.
    pub fn add(&mut self, source: Source, cpl: Cpl, amount: u64) {
        let level = usize::from(!cpl.is_kernel());
        let cell = &mut self.amounts[level][source.index()];
        *cell = cell.saturating_add(amount);
        self.present[level] |= u32::from(amount != 0) << source.index();
    }

    /// Adds a branch, without the instruction it is. `taken` matters for [`BranchClass::Jcc`]
    /// only.
    pub fn add_branch(&mut self, class: BranchClass, taken: bool, mispredicted: bool, cpl: Cpl) {
        let (predicted, otherwise) = match class {
            BranchClass::Jcc if taken => (
                Source::ConditionalTaken,
                Source::MispredictedConditionalTaken,
            ),
            BranchClass::Jcc => (
                Source::ConditionalNotTaken,
                Source::MispredictedConditionalNotTaken,
            ),
            BranchClass::NearRelJmp => (Source::NearRelJmp, Source::MispredictedNearRelJmp),
            BranchClass::NearIndJmp => (Source::NearIndJmp, Source::MispredictedNearIndJmp),
            BranchClass::NearRelCall | BranchClass::NearRelCallZero => {
                (Source::NearRelCall, Source::MispredictedNearRelCall)
            }
            BranchClass::NearIndCall => (Source::NearIndCall, Source::MispredictedNearIndCall),
            BranchClass::NearRet => (Source::NearReturn, Source::MispredictedNearReturn),
            BranchClass::Far(_) => (Source::Far, Source::MispredictedFar),
        };
        self.add(if mispredicted { otherwise } else { predicted }, cpl, 1);
    }

    /// Adds the occurrences of `other`; `in_tx` stays.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.amounts.iter_mut().zip(&other.amounts) {
            for (cell, amount) in mine.iter_mut().zip(theirs) {
                *cell = cell.saturating_add(*amount);
            }
        }
        for (mine, theirs) in self.present.iter_mut().zip(other.present) {
            *mine |= theirs;
        }
    }

    /// The occurrences that are not among `earlier`, which is a part of these.
    #[must_use]
    pub fn less(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        for (level, theirs) in rest.amounts.iter_mut().zip(&earlier.amounts) {
            for (cell, amount) in level.iter_mut().zip(theirs) {
                *cell = cell.saturating_sub(*amount);
            }
        }
        for (present, level) in rest.present.iter_mut().zip(&rest.amounts) {
            *present = (0..).zip(level).fold(0, |mask, (index, amount)| {
                mask | u32::from(*amount != 0) << index
            });
        }
        rest
    }

    /// Occurrences of `source` at CPL 0 (`user` false) or above.
    #[must_use]
    pub fn amount(&self, source: Source, user: bool) -> u64 {
        self.amounts[usize::from(user)][source.index()]
    }

    /// Occurrences of every source of `sources` at CPL 0 (`user` false) or above.
    #[must_use]
    pub fn sum(&self, sources: SourceSet, user: bool) -> u64 {
        let mut rest = sources.bits() & self.present[usize::from(user)];
        let mut sum = 0u64;
        while rest != 0 {
            sum =
                sum.saturating_add(self.amounts[usize::from(user)][rest.trailing_zeros() as usize]);
            rest &= rest - 1;
        }
        sum
    }

    /// Instructions at every level.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.both(Source::Instructions)
    }

    /// Core clocks at every level.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.both(Source::CoreCycles)
    }

    fn both(&self, source: Source) -> u64 {
        self.amount(source, false)
            .saturating_add(self.amount(source, true))
    }
}
