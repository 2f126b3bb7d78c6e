//! The branches of a trace through a predictor: what would have been mispredicted, by kind and by address.

mod account;
mod error;
mod export;
mod input;
mod report;
mod run;
mod walk;

pub use error::BranchError;
pub use export::export_cbp;
pub use input::BranchInput;
pub use report::{BranchReport, KindCount, WorstBranch};
pub use run::{BranchOptions, branches};
