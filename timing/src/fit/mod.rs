//! Fitting instruction tables to measured blocks, and judging them on blocks they have not seen.

mod candidates;
mod descent;
mod measured;

pub use descent::{Fit, FitOptions, Fold, cross_validate, fit};
pub use measured::{MeasuredBlock, MeasuredError, read_measured};
