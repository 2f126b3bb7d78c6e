//! What runs of a scene say: one policy in full, or all of them side by side.

mod costs;
mod letters;
mod overhead;
mod samples;
mod table;
mod vm;

pub use costs::{CostRow, Costs, Cycles, Difference, LbrCounts};
pub use letters::{Letters, Origin};
pub use overhead::{Overhead, OverheadOptions, Point, PolicyRow};
pub use samples::SampleFidelity;
pub use vm::{Models, VmOptions, VmReport};
