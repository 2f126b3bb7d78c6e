//! What runs of a scene say: one policy in full, or all of them side by side.

mod costs;
mod letters;
mod mail;
mod monitored;
mod overhead;
mod plot;
mod ranking;
mod samples;
mod sweep;
mod table;
mod time;
mod vm;

pub use costs::{CostRow, Costs, Cycles, Difference, LbrCounts};
pub use letters::{Letters, Origin};
pub use monitored::MonitorRow;
pub use overhead::{Overhead, OverheadOptions, Point, PolicyRow};
pub use plot::PlotError;
pub use ranking::{Crossing, Order};
pub use samples::SampleFidelity;
pub use sweep::Sweep;
pub(crate) use table::{aligned, grouped};
pub use time::{GuestTime, PolicyTime, TimeReport, TimeShares};
pub(crate) use vm::read_fidelity;
pub use vm::{Models, VmOptions, VmReport};
