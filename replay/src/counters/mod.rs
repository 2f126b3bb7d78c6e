//! Counters as perf programs them, and what they come to on each thread of a trace.

mod assign;
mod events;
mod program;
mod thread;

pub use assign::AssignError;
pub(crate) use events::counted_events;
pub use events::{EventListError, sampled_events};
pub use program::{CounterError, ProgrammedCounters};
pub(crate) use thread::{Amounts, CounterThread, handle, read, width};

pub(crate) use assign::assign;
