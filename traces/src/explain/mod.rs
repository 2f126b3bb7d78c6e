//! Which consecutive branch-stack entries the decoder explains.
//!
//! Between two taken branches a processor runs straight on: from the TO of the older entry, the
//! instructions must lead to the FROM of the newer one without a branch that is always taken.
//! What real hardware records does not always say so; each pair falls in exactly one class.

mod file;
mod line;

pub use file::{ExplainError, explain_perf_data};
pub use line::{LoadedCode, PairClass, PairTable, StraightLine};
