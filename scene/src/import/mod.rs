//! Scenes made of what a machine was seen to do: the text of `perf script` and `trace-cmd report`.
//!
//! Read are `kvm:kvm_entry`, `kvm:kvm_exit`, `kvm:kvm_msr`, `kvm:kvm_userspace_exit`,
//! `sched:sched_switch` and `sched:sched_migrate_task`; other events are counted and left out.
//! [`Import`] reads line by line and holds sums only; [`Imported`] is the scene and what it stands on.

mod error;
mod event;
mod head;
mod host_cpu;
mod lines;
mod numbers;
mod recording;
mod summary;
mod vcpu;
mod write;

pub use error::{ImportError, LineError};
pub use head::TextKind;
pub use numbers::Durations;
pub use summary::{CpuSummary, ExitSummary, ImportSummary, TaskSummary, VcpuSummary};
pub use write::{Import, ImportOptions, Imported};
