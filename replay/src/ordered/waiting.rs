//! Records that the LBR has not been given.
//!
//! Of the records between two looks at the LBR only the youngest are left at the second one, as many as it has
//! entries: it need not make the others.

use vlbr_arch::Cycles;
use vlbr_cpu::{Code, StepId, StepTime};
use vlbr_lbr::{Lbr, MAX_DEPTH};

use super::passed::Kind;
use super::road::as_retired;

/// Steps that are remembered: a power of two above the entries of any LBR, of which one more tells when the
/// youngest that is left out was inserted.
const HELD: usize = 2 * MAX_DEPTH;

/// A step that records its transfer.
#[derive(Clone, Copy, Debug)]
struct Step {
    end: Cycles,
    id: StepId,
    mispredicted: bool,
}

/// Steps that record a transfer each.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    steps: [Step; HELD],
    /// How many there are; the last of them are in `steps`.
    count: usize,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            steps: [Step {
                end: Cycles::new(0),
                id: StepId(0),
                mispredicted: false,
            }; HELD],
            count: 0,
        }
    }

    #[inline]
    pub(super) fn add(&mut self, id: StepId, time: StepTime) {
        self.steps[self.count % HELD] = Step {
            end: time.end,
            id,
            mispredicted: time.mispredicted,
        };
        self.count += 1;
    }

    /// Gives the records to `lbr`, which stands as it is programmed; how many they are.
    pub(super) fn give(&mut self, lbr: &mut Lbr, code: &Code, kinds: &[Kind]) -> u64 {
        let count = std::mem::take(&mut self.count);
        let passed = count.saturating_sub(lbr.depth());
        if let Some(last) = passed.checked_sub(1) {
            lbr.pass_over(passed as u64, self.steps[last % HELD].end);
        }
        for number in passed..count {
            let Step {
                end,
                id,
                mispredicted,
            } = self.steps[number % HELD];
            if let Some(transfer) = code.transfer(id) {
                let kind = kinds[id.0 as usize];
                let time = StepTime { end, mispredicted };
                lbr.retire(&as_retired(transfer, kind, time), end);
            }
        }
        count as u64
    }
}
