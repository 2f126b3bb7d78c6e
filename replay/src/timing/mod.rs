//! The time of a replay: which model gives it, and how it is told.

mod model;
mod rates;

pub(crate) use model::Model;
pub use model::{Mispredictions, TimingError, TimingModel, TimingOptions};
pub use rates::Rates;
