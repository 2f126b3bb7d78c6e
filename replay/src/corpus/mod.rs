//! A folder of traces, replayed under every processor and filter it names, against golden results; and
//! of scenes and scenarios, which this room only lists.
//!
//! `corpus.toml` describes the folder:
//!
//! ```toml
//! profiles = ["nehalem", "skylake"]         # names, or TOML files in the folder
//! filters = ["any,u", "any_call,u",         # perf's names
//!     { branches = "stack,u", event = "instructions:u", period = 10007 }]
//! event = "branches:u"                      # default: what a replay takes
//! period = 997                              # default: what a replay takes
//! edges = 8                                 # hottest edges in a golden result
//! stacks = 3                                # sampled stacks in a golden result
//! device_instructions = 4000000             # of each trace also through the device, in order
//! options = { pops_clear_slots = false }    # open points and quirks of the device
//!
//! [[trace]]
//! name = "lua"                              # also golden/lua.golden
//! file = "lua.vlt"                          # default: the name with .vlt
//! from = "main"                             # part of the trace: a symbol or 0x...
//! to = "exit"
//! command = "vlbr record -- lua work.lua"   # these four are for people
//! source = "https://www.lua.org"
//! licence = "MIT"
//! notes = "..."
//! profiles = ["skylake"]                    # in place of those above; so filters, event, period, options
//! skip = ["stack,u", "nehalem any_call,u"]  # a profile, a filter or both
//!
//! [[scene]]                                 # checked by the room of scenes, above this one
//! name = "loop"                             # also golden/scenes/loop.golden
//! file = "scenes/loop.toml"                 # default: the name in scenes/ with .toml
//! policies = ["v8", "naive"]                # default: those at the top, or every built-in one
//!
//! [[scenarios]]                             # checked by the room of scenarios
//! name = "contract"                         # also golden/scenarios/contract.golden
//! paths = ["../contract/found"]             # folders or files; every file below has a golden line
//! ```
//!
//! At the top `policies` stands for scenes without their own, and `policy_files` lists TOML files of
//! policies that scenes may name.

mod check;
mod compare;
mod config;
mod digest;
mod error;
mod exercise;
#[cfg(test)]
mod fuzz;
mod golden;
mod pool;
mod run;
mod shard;

pub use check::{Blessed, CheckReport, Checked, Verdict};
pub use compare::Change;
pub use config::{Configuration, Corpus, CorpusScenarios, CorpusScene, CorpusTrace};
pub use error::CorpusError;
pub use pool::Progress;
pub use shard::Shard;
