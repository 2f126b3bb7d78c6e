//! Mispredictions of branches of which nothing is recorded.

use crate::predict::{Branch, BranchKind, Predictor, PredictorConfig};

/// Branches shown to the predictor in front of each stack: more than it remembers of a path.
const STRANGERS: u64 = 1024;

/// Recorded bits where there are any, and a predictor for conditional branches that were not taken, of
/// which an LBR says nothing. The predictor learns from every stack, but what ran before a stack is not
/// known: its path is filled with branches of no meaning first, so that it cannot tell one
/// stack by the one before.
#[derive(Clone, Debug)]
pub struct Unrecorded {
    predictor: Predictor,
    random: u64,
}

impl Unrecorded {
    /// A predictor that has seen nothing.
    #[must_use]
    pub fn new(config: &PredictorConfig) -> Self {
        Self {
            predictor: Predictor::new(config),
            random: 1,
        }
    }

    /// A new stack begins.
    pub fn begin(&mut self) {
        for _ in 0..STRANGERS {
            // The multiplier and increment of Knuth's MMIX.
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let address = 0x7000_0000_0000 | self.random >> 40 << 4;
            let taken = self.random >> 33 & 1 != 0;
            self.predictor.predict_and_update(&Branch {
                address,
                fallthrough: address + 2,
                kind: BranchKind::Conditional,
                taken,
                target: address ^ 0x1_0000,
            });
        }
    }

    /// Whether a branch was mispredicted, of which `recorded` is in the stack.
    pub fn mispredicted(&mut self, branch: &Branch, recorded: Option<bool>) -> bool {
        let predicted = self.predictor.predict_and_update(branch).mispredicted();
        recorded.unwrap_or(predicted)
    }
}
