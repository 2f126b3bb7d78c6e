//! Two traces, perf.data files or pre-aggregated profiles side by side.
//!
//! Addresses are compared as file and offset, so neither address space randomisation nor another
//! load address matters, and no file but the two is needed. A pre-aggregated profile knows one
//! binary by linked addresses: against one, only branches within the program are compared, by
//! the addresses of its ELF file.

mod compare;
mod divergence;
mod error;
mod input;
mod union;
mod walk;

pub use compare::{Comparison, EdgeShare, FunctionShare, Part, Side, diff};
pub use divergence::{Divergence, Run};
pub use error::DiffError;
pub use input::Kind;
