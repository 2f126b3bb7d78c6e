//! A trace through an emulated processor under a perf event: samples, exact profiles, comparisons,
//! and corpora with their golden results.
#![forbid(unsafe_code)]

pub mod corpus;
mod device;
pub mod diff;
mod edges;
mod engine;
mod exact;
mod feed;
mod gate;
mod ordered;
mod output;
mod places;
mod region;
mod report;
mod session;

pub use device::{DeviceError, ProgrammedLbr, RenderedEntry};
pub use edges::{Edge, EdgeProfile, Range};
pub use engine::{ChunkResult, EngineError, EngineOptions, HELD_SAMPLES, ThreadState, run};
pub use exact::exact_profile;
pub use feed::{Feed, Tasks};
pub use gate::GatedSteps;
pub use output::{Format, describe, export, file_info};
pub use region::{Region, symbol_addresses};
pub use report::{HotEdge, Report, StackEntry, report, words};
pub use session::{
    Consumer, ReplayError, Session, SessionOptions, Summary, ThreadSummary, Totals, step_counts,
};
