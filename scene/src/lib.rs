//! Scenes: virtual machines with the traces of their guests, host tasks and host perf events over
//! time, run under a policy, and what that costs.
//!
//! A scene is a TOML file ([`Scene`]). [`Simulation`] feeds [`vlbr_host::machine::Machine`] with
//! inputs in the order of time; equal scenes, seeds and policies give equal results.
#![forbid(unsafe_code)]

mod error;
mod guest;
mod random;
mod session;
mod simulation;
mod spec;
mod tally;

pub use error::SceneError;
pub use guest::{Guest, GuestSource};
pub use session::{GuestPerf, GuestSample};
pub use simulation::{Outcome, Simulation};
pub use spec::{
    EventSpec, ExitRates, GuestModel, LoopSpec, OnViolation, Scene, Scheduling, TaskSpec, VcpuSpec,
    VmSpec,
};
pub use tally::{SwitchTally, VcpuTally};
