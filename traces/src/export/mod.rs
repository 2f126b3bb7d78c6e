//! Samples out: perf.data, `perf script` text, BOLT's pre-aggregated profile, folded stacks, JSON.
//!
//! Every format is a [`SampleSink`]: what makes the samples does not know what takes them.

mod bolt;
mod folded;
mod json;
mod output;
mod perf_script;
mod sink;

pub use bolt::{BoltProfile, BoltRun, BoltSink};
pub use folded::{FoldedSink, FrameNames, StackSource};
pub use json::JsonSink;
pub use output::OutputFile;
pub use perf_script::{PerfScriptSink, ScriptFields};
pub use sink::{ExportError, PerfDataSink, SampleSink};
