//! Scenes: virtual machines with the traces of their guests, host tasks and host perf events over
//! time, run under a policy, and what that costs.
//!
//! A scene is a TOML file ([`Scene`]). [`Simulation`] feeds [`vlbr_host::machine::Machine`] with
//! inputs in the order of time; equal scenes, seeds and policies give equal results.
#![forbid(unsafe_code)]

mod check;
mod error;
mod exit_names;
mod file;
pub mod golden;
mod guest;
pub mod import;
mod monitor;
mod random;
pub mod report;
mod session;
mod simulation;
mod spec;
mod tally;
mod time;
mod timeline;

pub use error::SceneError;
pub use file::{InputFile, SceneFile, policy_from_file};
pub use guest::{Guest, GuestSource};
pub use monitor::{Carry, MonitorAct, MonitorSpec};
pub use session::{GuestPerf, GuestSample};
pub use simulation::{CpuTime, Outcome, Simulation, TimeTally, kernel};
pub use spec::{
    AccessSpec, EventSpec, ExitRates, ExitSpec, GuestModel, LoopSpec, OnViolation, Scene,
    Scheduling, TaskSpec, TaskWhen, VcpuSpec, VmSpec,
};
pub use tally::{
    CarriedRecords, ExitTally, HostStacks, MonitorTally, SaveTally, SwitchTally, VcpuTally,
};
pub use time::{MispredictsSpec, ModelTime, SceneTime, TimingChange};
