//! The time of a replay: which model gives it, and how it is told.

mod model;
mod rates;

pub(crate) use model::describe;
pub use model::{TimingError, TimingOptions};
pub use rates::Rates;
