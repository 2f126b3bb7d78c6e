//! Branch prediction: what a front end would have guessed of each branch, in the order of execution.
//!
//! A [`Predictor`] is shown every near branch with its outcome and says of each whether a processor would
//! have mispredicted it. Its parts are those of a core: a direction predictor of the TAGE class with a loop
//! part, an indirect predictor over the path, a return stack and a branch target buffer. Their sizes are
//! data ([`predictors`]); simple published predictors are configurations too.
//!
//! ```
//! use vlbr_timing::predict::{Branch, BranchKind, Predictor, predictors};
//!
//! let config = predictors().named("skylake").expect("built in");
//! let mut predictor = Predictor::new(config);
//! let mut missed = 0;
//! for turn in 0..1000 {
//!     // A loop of ten turns.
//!     let branch = Branch {
//!         address: 0x40_1000,
//!         fallthrough: 0x40_1002,
//!         kind: BranchKind::Conditional,
//!         taken: turn % 10 != 9,
//!         target: 0x40_0ff0,
//!     };
//!     missed += u32::from(predictor.predict_and_update(&branch).mispredicted());
//! }
//! assert!(missed < 40, "{missed}");
//! ```

mod bimodal;
mod branch;
mod catalog;
mod config;
mod corrector;
mod describe;
mod direction;
mod entry;
mod error;
mod gshare;
mod history;
mod indirect;
mod known;
mod lfsr;
mod loops;
mod path;
mod predictor;
mod return_stack;
mod tables;
mod tage;
mod target_buffer;
#[cfg(test)]
mod tests;

pub use branch::{Branch, BranchKind, Prediction};
pub use catalog::predictors;
pub use config::{
    BtbConfig, DirectionConfig, HistoryKind, IndirectConfig, PathConfig, PredictorConfig,
    ReturnStackConfig, TableConfig, TageConfig, Underflow,
};
pub use error::PredictorError;
pub(crate) use known::Known;
pub use predictor::Predictor;
