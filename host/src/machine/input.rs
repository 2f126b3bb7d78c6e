//! Everything that can happen, as data.

use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{Cpl, Cycles, Msr, Transfer};
use vlbr_pmu::Increments;

use crate::hardware::Running;
use crate::kvm::{Answer, ExitLevel, GuestCpu, LbrStack, Vmcs12};
use crate::machine::{Carried, ExitCause, GuestMsrAccess, Migration, MsrValues};
use crate::perf::{Creator, EventAttr, EventId, PmiSample, Target};
use crate::{CpuId, TaskId, VcpuId, VmId};

/// Something that happens. Which task runs, when an interrupt comes and where are inputs too:
/// equal states and equal inputs give equal states.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// The next task gets a processor; `None`: it idles.
    Switch(CpuId, Option<TaskId>),
    /// `KVM_RUN` begins in the vCPU's thread.
    Run(VcpuId),
    /// `KVM_RUN` returns to user space.
    Leave(VcpuId),
    /// VM entry, from the fast path or with the requests before it.
    Enter(VcpuId, FastPath),
    /// A VM exit, handled at this level; the vCPU is in the kernel then.
    Exit(VcpuId, ExitCause, ExitLevel),
    /// The guest reads an MSR.
    GuestRead(VcpuId, Msr, Cpl),
    /// The guest writes an MSR.
    GuestWrite(VcpuId, Msr, u64, Cpl),
    /// Whoever runs on a processor retires instructions up to a boundary, at this time; a PMI that
    /// this raises is taken.
    Retire(CpuId, Box<(Increments, Option<Transfer>)>, Cycles),
    /// User space reads an MSR of a vCPU from this thread.
    UserRead(TaskId, VcpuId, Msr),
    /// User space writes one.
    UserWrite(TaskId, VcpuId, Msr, u64),
    /// User space reads the MSRs of a vCPU that it would carry elsewhere, from this thread.
    GetMsrs(TaskId, VcpuId, Carried),
    /// It writes MSRs, one after the other, whichever are refused.
    SetMsrs(TaskId, VcpuId, MsrValues),
    /// The vCPU, which is outside `KVM_RUN` in its running thread, goes on on another host of the
    /// same kind, with what user space carries there.
    Migrate(VcpuId, Carried),
    /// `perf_event_open`, or a counter of the kernel.
    Open(Box<EventAttr>, Target, Creator, Option<EventId>),
    /// `close`.
    Close(EventId),
    /// `PERF_EVENT_IOC_ENABLE`.
    Enable(EventId),
    /// `PERF_EVENT_IOC_DISABLE`.
    Disable(EventId),
    /// The rotation timer.
    Rotate(CpuId),
    /// An adaptive PEBS record of an event that is on is made while the host runs there, and parsed.
    PebsRecord(EventId),
    /// An idle processor goes through a C-state deeper than C1.
    DeepCState(CpuId),
    /// The vCPU's PMU is reset: RESET, not INIT.
    Reset(VcpuId),
    /// `KVM_SET_CPUID2`: what the guest is told of its processor, outside `KVM_RUN`.
    SetCpuid(VcpuId, Box<GuestCpu>),
    /// `fork`: parent and child, a task that perf does not know yet.
    Fork(TaskId, TaskId),
    /// `KVM_ENABLE_CAP` of `KVM_CAP_X86_GUEST_LBR`: VM, args\[0\], whether args\[1\] can be written.
    EnableCapability(VmId, bool, bool),
    /// L1 enters L2.
    EnterL2(VcpuId, Vmcs12),
    /// L2 exits to L1.
    LeaveL2(VcpuId),
}

/// Whether a VM entry comes from the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FastPath {
    /// From there: requests wait.
    Yes,
    /// From the run loop.
    No,
}

/// What an input leads to, for whoever made it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Nothing to tell.
    Done,
    /// What the guest's access gave.
    Guest(GuestMsrAccess),
    /// What user space was answered.
    User(Answer),
    /// What user space read, and what it could not read.
    Msrs(MsrValues, Vec<Msr>),
    /// What user space could not write.
    Refused(Vec<Msr>),
    /// What became of the guest's LBR.
    Migrated(Box<Migration>),
    /// The event.
    Event(EventId),
    /// What the capability copied out.
    Stack(LbrStack),
    /// A PMI was taken; in a guest it made an exit, and the vCPU waits in the kernel.
    Pmi {
        /// Who was interrupted.
        running: Running,
        /// The samples that the host's handler took.
        samples: Vec<PmiSample>,
    },
    /// The samples of a PEBS record.
    Samples(Vec<PmiSample>),
    /// VM entry of L1 failed with this reason.
    NestedFailed(ExitReason),
}
