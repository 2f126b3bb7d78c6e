//! Linux as host: processors, perf with its LBR driver, KVM under one of several policies.
#![forbid(unsafe_code)]

mod id;
mod owner;

pub mod hardware;
pub mod kvm;
pub mod machine;
pub mod perf;
pub mod policy;

pub use id::{CpuId, TaskId, VcpuId, VmId};
pub use owner::{Owned, Owner};
