//! The hot loop: steps of one thread through an LBR stack and a sampling counter.
//!
//! What a step does to both is looked up, not computed: [`Plan`] holds one word a step under the
//! filter in force. Records are kept as references to the steps that made them and are resolved
//! when somebody looks, which is exact because a step's record never changes. A run may start
//! before its predecessor has ended: what lies in the stack at its start is then a symbolic
//! [`EntryRef`], resolved later by [`Stack::resolve`]. So the chunks of a trace run in parallel
//! with one result.

mod columns;
mod gated;
mod lane;
mod local_id;
mod pace;
mod plan;
mod sample;
mod segment;
mod store;
mod tally;
mod times;
mod view;

pub use columns::MAX_COLUMNS;
pub use gated::{Gate, run_gated};
pub use lane::{Lane, RunError, StepIds};
pub use pace::{Frequency, Pace};
pub use plan::{Costs, Counting, Op, Plan, PlanError};
pub use sample::{RunEnd, RunTotals, Sample, Samples, Schedule};
pub use store::{Deferred, Eager, RawRecord, Store};
pub use tally::Tally;
pub use times::RecordTimes;
pub use view::{EntryKind, EntryRef, MAX_DEPTH, Stack};
