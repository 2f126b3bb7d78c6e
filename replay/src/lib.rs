//! A trace through an emulated processor under a perf event: samples, exact profiles, comparisons,
//! and corpora with their golden results.
#![forbid(unsafe_code)]

mod branches;
mod choice;
pub mod corpus;
mod counters;
mod device;
pub mod diff;
mod edges;
mod engine;
mod error;
mod exact;
mod feed;
mod folded;
mod gate;
mod misses;
mod names;
mod options;
mod ordered;
mod output;
mod region;
mod report;
mod session;
mod stat;
mod summary;
mod tasks;
mod timing;

pub use branches::{
    BranchError, BranchInput, BranchOptions, BranchReport, KindCount, WorstBranch, branches,
    export_cbp,
};
pub use counters::{AssignError, CounterError, EventListError, ProgrammedCounters, sampled_events};
pub use device::{DeviceError, ProgrammedLbr, RenderedEntry};
pub use edges::{Edge, EdgeProfile, Range};
pub use engine::{
    ChunkResult, EngineError, EngineOptions, HELD_SAMPLES, Resolved, ThreadState, run,
};
pub use error::ReplayError;
pub use exact::exact_profile;
pub use feed::Feed;
pub use gate::GatedSteps;
pub use misses::{BranchMisses, StepMisses};
pub use names::{Moment, Names};
pub use options::SessionOptions;
pub use output::{Format, describe, export, file_info};
pub use region::{Entrance, Region};
pub use report::{HotEdge, Report, StackEntry, report, words};
pub use session::Session;
pub use stat::{EventCount, Stat, ThreadCounts, stat};
pub use summary::{Consumer, Summary, ThreadSummary, Totals};
pub use tasks::Tasks;
pub use timing::{Rates, TimingError, TimingOptions};
pub use vlbr_timing::{Mispredictions, TimingModel};
