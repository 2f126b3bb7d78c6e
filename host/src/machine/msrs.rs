//! MSR accesses that KVM handles.

use vlbr_arch::Msr;

use super::{Host, HostError};
use crate::hardware::LbrRegister;
use crate::kvm::{Access, Answer, Call, Initiator, Note, Operation, Place};
use crate::policy::Policy;
use crate::{Owned, TaskId, VcpuId};

/// `MSR_IA32_LASTBRANCHFROMIP` to `MSR_IA32_LASTINTTOIP`: KVM answers reads with 0, whatever the
/// vPMU. `kvm_get_msr_common`.
const LAST_BRANCH_OF_P6: core::ops::RangeInclusive<u32> = 0x1db..=0x1de;

impl Host {
    /// What KVM's MSR code makes of an access: the policy for the LBR, the guest's PMU, then the
    /// rest. `kvm_get_msr`, `kvm_set_msr`.
    pub fn msr_access(&mut self, policy: &dyn Policy, call: Call, access: Access) -> Answer {
        let of_lbr = self.lbr_msrs().register(access.msr);
        let answer = match (access.msr, of_lbr) {
            (Msr::PERF_CAPABILITIES, _) | (_, Some(_)) => policy.access(self, call, access),
            _ => match self.guest_pmu_access(call, access) {
                // A register of another part's LBR, of which a policy may know.
                Answer::Unknown => policy.access(self, call, access),
                answer => answer,
            },
        };
        match answer {
            Answer::Unknown
                if access.operation == Operation::Read
                    && LAST_BRANCH_OF_P6.contains(&access.msr.value()) =>
            {
                Answer::Value(Owned::CLEARED)
            }
            Answer::Unknown if self.ignore_msrs => {
                self.note(call.vcpu, Note::Ignored);
                access.dummy()
            }
            answer => answer,
        }
    }

    /// RDMSR or WRMSR of a register of the processor on behalf of the guest, as the trap handler
    /// does it: a fault is fixed up with a warning and the guest sees success. `rdmsrl`, `wrmsrl`.
    pub fn access_hardware(&mut self, call: Call, access: Access) -> Answer {
        let actor = vlbr_cpu::ledger::Actor::ExitHandler;
        let done = match access.operation {
            Operation::Read => self
                .hardware
                .rdmsr(call.cpu, actor, access.msr)
                .map(Answer::Value),
            Operation::Write(value) => self
                .hardware
                .wrmsr(call.cpu, actor, access.msr, value)
                .map(|()| Answer::Done),
        };
        done.unwrap_or_else(|_| {
            self.note(call.vcpu, Note::HostFault);
            access.dummy()
        })
    }

    /// The access is swallowed.
    pub fn dummy(&mut self, call: Call, access: Access) -> Answer {
        self.note(
            call.vcpu,
            match access.operation {
                Operation::Read => Note::DummyRead,
                Operation::Write(_) => Note::DummyWrite,
            },
        );
        access.dummy()
    }

    /// Which register of `msrs` an access names.
    #[must_use]
    pub fn named(msrs: Option<&crate::hardware::LbrMsrs>, msr: Msr) -> Option<LbrRegister> {
        msrs.and_then(|msrs| msrs.register(msr))
    }

    /// `KVM_GET_MSRS` or `KVM_SET_MSRS` of one MSR, by a thread that runs. The vCPU is loaded where
    /// the thread runs, for the time of the ioctl.
    ///
    /// # Errors
    /// The thread does not run, or the vCPU is inside `KVM_RUN`: the ioctl would wait.
    pub fn ioctl_access(
        &mut self,
        policy: &dyn Policy,
        thread: TaskId,
        vcpu: VcpuId,
        access: Access,
    ) -> Result<Answer, HostError> {
        let call = self.begin_ioctl(policy, thread, vcpu)?;
        let answer = self.msr_access(policy, call, access);
        self.end_ioctl(policy, call)?;
        Ok(answer)
    }

    /// An ioctl of the vCPU begins: it is loaded. `vcpu_load`.
    pub(crate) fn begin_ioctl(
        &mut self,
        policy: &dyn Policy,
        thread: TaskId,
        vcpu: VcpuId,
    ) -> Result<Call, HostError> {
        let found = self.check_vcpu(vcpu)?;
        if found.place != Place::UserSpace {
            return Err(HostError::Place {
                vcpu,
                is: found.place.name(),
                needed: Place::UserSpace.name(),
            });
        }
        let task = self.task(thread).ok_or(HostError::NoTask(thread))?;
        let cpu = task.cpu.ok_or(HostError::NotRunning(thread))?;
        // A thread inside KVM_RUN makes no other ioctl.
        if let Some(own) = task.vcpu {
            let is = self.vcpu(own).place;
            if is != Place::UserSpace {
                return Err(HostError::Place {
                    vcpu: own,
                    is: is.name(),
                    needed: Place::UserSpace.name(),
                });
            }
        }
        let call = Call {
            vcpu,
            cpu,
            thread,
            initiator: Initiator::UserSpace,
        };
        self.load(policy, call)?;
        Ok(call)
    }

    /// The ioctl ends: the vCPU is put. `vcpu_put`.
    pub(crate) fn end_ioctl(&mut self, policy: &dyn Policy, call: Call) -> Result<(), HostError> {
        self.put(policy, call);
        Ok(())
    }
}
