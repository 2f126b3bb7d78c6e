//! perf on the model's processors: placement, the LBR driver, PMIs.
//!
//! Scenarios are numbered as in the specification of the kernel's side.

mod common;
mod contention;
mod counts;
mod invariants;
mod lifecycle;
mod pmi;
mod read;
mod switch;
