//! What cannot be done.

use vlbr_cpu::processor::MsrFault;
use vlbr_vmx::{Abort, EntryError, Fail};

use crate::hardware::HardwareError;
use crate::perf::{Errno, EventId};
use crate::{CpuId, TaskId, VcpuId, VmId};

/// An input that the host cannot take in its state, or that the model cannot follow.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The processors.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// No such processor.
    #[error("there is no {0}")]
    NoCpu(CpuId),
    /// No such task.
    #[error("there is no {0}")]
    NoTask(TaskId),
    /// No such VM.
    #[error("there is no {0}")]
    NoVm(VmId),
    /// No such vCPU.
    #[error("there is no {0}")]
    NoVcpu(VcpuId),
    /// The part's VMX capabilities are not known.
    #[error("{0}: no VMX capabilities of this part are known")]
    NoVmx(String),
    /// A task cannot run on two processors.
    #[error("{task} runs on {cpu} already")]
    Runs {
        /// The task.
        task: TaskId,
        /// Where it runs.
        cpu: CpuId,
    },
    /// A task that begins has events already.
    #[error("perf knows {0} already")]
    Known(TaskId),
    /// A task that has to run does not.
    #[error("{0} does not run")]
    NotRunning(TaskId),
    /// The vCPU's thread is elsewhere.
    #[error("{vcpu} is in {is}, not in {needed}")]
    Place {
        /// The vCPU.
        vcpu: VcpuId,
        /// Where its thread is.
        is: &'static str,
        /// Where it would have to be.
        needed: &'static str,
    },
    /// L2 does not run.
    #[error("{0} runs no L2")]
    NotNested(VcpuId),
    /// The event makes no adaptive PEBS record with branches: it asks for none, is not on, or a guest
    /// runs there, where its counter stands still.
    #[error("{0} makes no adaptive PEBS record with branches now")]
    NoPebsRecord(EventId),
    /// An ioctl fails.
    #[error("-{0:?}")]
    Errno(Errno),
    /// A VMX instruction fails that never should.
    #[error("a VMX instruction failed: {0}")]
    Vmx(#[from] Fail),
    /// VM entry fails.
    #[error("VM entry failed: {0}")]
    Entry(Box<EntryError<MsrFault>>),
    /// VMX abort.
    #[error("{0}")]
    Abort(Box<Abort<MsrFault>>),
    /// An MSR access of the host faults.
    #[error("in the host: {0}")]
    Msr(#[from] MsrFault),
}

impl From<Errno> for HostError {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}
