//! Linux as host: processors, perf's LBR driver.
#![forbid(unsafe_code)]

mod id;
mod owner;

pub mod hardware;
pub mod perf;

pub use id::{CpuId, TaskId, VcpuId, VmId};
pub use owner::{Owned, Owner};
