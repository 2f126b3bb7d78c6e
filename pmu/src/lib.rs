//! Performance monitoring events that retired steps feed, and sampling on their overflow.
#![forbid(unsafe_code)]

mod event;
mod sampling;

pub use event::{Encoding, Event, EventError, EventSelect, PerfType};
pub use sampling::Sampler;
