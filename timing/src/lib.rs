//! How many cycles a block of instructions takes.
//!
//! The *block bound* answers for a block that repeats: each part of the core alone gives a number of
//! cycles per iteration below which it cannot go, and the largest binds. Cores are data
//! ([`microarchitectures`]): parameters, and a table of what each instruction form costs.
//!
//! ```
//! use vlbr_timing::bound::{BlockModel, Part, Repetition};
//! use vlbr_timing::{Environment, microarchitectures};
//!
//! let core = microarchitectures().named("skylake").expect("built in");
//! let mut model = BlockModel::new(core, Environment::Unknown);
//! // imul rax, rbx
//! let bound = model.bound(&[0x48, 0x0f, 0xaf, 0xc3], Repetition::Unrolled)?;
//! assert_eq!(bound.binding(), (Part::Dependence, 3.0));
//! # Ok::<(), vlbr_timing::LowerError>(())
//! ```
#![forbid(unsafe_code)]

pub mod bound;
mod chain;
mod choice;
mod cores;
mod dependence;
mod environment;
pub mod fit;
pub mod forms;
mod lower;
mod microarchitecture;
mod pipeline;
pub mod ports;
pub mod predict;
pub mod report;
pub mod score;
pub mod scoreboard;
mod step_bound;
mod step_scoreboard;
pub mod windows;

pub use choice::{Mispredictions, ModelChoice, ModelError, StepModel, TimingModel};
pub use cores::microarchitectures;
pub use environment::Environment;
pub use lower::LowerError;
pub use microarchitecture::{Basis, Microarchitecture, MicroarchitectureError, Parameters};
pub use pipeline::Pipeline;
pub use step_bound::{BoundClock, PARTS, StepBounds, retired_at};
pub use step_scoreboard::{Mispredicts, ScoreboardClock, StepPrograms};
