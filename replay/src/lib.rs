//! A trace through an emulated processor under a perf event: samples, exact profiles, comparisons,
//! and corpora with their golden results.
#![forbid(unsafe_code)]

mod device;
mod edges;

pub use device::{DeviceError, ProgrammedLbr, RenderedEntry};
pub use edges::{Edge, EdgeProfile, Range};
