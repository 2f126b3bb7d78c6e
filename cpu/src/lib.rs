//! A logical processor: instruction bytes decoded once into blocks, *steps* (how a block retired
//! and how it was left), and the hot loop that drives LBR and counters from them.
#![forbid(unsafe_code)]

mod block;
mod classify;
mod clock;
mod code;
mod exits;
mod feed;
mod intern;
pub mod ledger;
pub mod processor;
pub mod run;
mod step;

pub use block::{Block, BlockError, Mode, ModeSource, Terminator};
pub use classify::{BranchInstruction, classify};
pub use clock::{Slots, StepClock, StepTime};
pub use code::{BlockId, Code, CodeError, StepId};
pub use exits::{ExitCondition, ExitInstruction, ExitSite, ExitSites, exit_instruction};
pub use feed::{Clock, Feed, Inserts};
pub use intern::Interner;
pub use step::{Exit, Step, StepError, Target};
