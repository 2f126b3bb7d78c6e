//! L2 of a guest that is a hypervisor itself.

use vlbr_arch::DebugCtl;

use super::{Nested, Place};
use crate::machine::{Host, HostError};
use crate::policy::Policy;
use crate::{Owned, VcpuId};

/// What L1 wrote into vmcs12, as far as it concerns debug controls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vmcs12 {
    /// VM-entry control "load debug controls".
    pub load_debug_controls: bool,
    /// VM-exit control "save debug controls".
    pub save_debug_controls: bool,
    /// Guest `IA32_DEBUGCTL`.
    pub debugctl: u64,
}

/// L1's VM entry fails: invalid guest state, exit reason 33.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NestedEntryFailed;

impl Host {
    /// L1 enters L2; the vCPU is in the kernel for the exit that VMLAUNCH made. vmcs02 gets the
    /// `IA32_DEBUGCTL` of vmcs12 if it is to be loaded, else L1's own. `prepare_vmcs02`; from 6.17
    /// on the value is checked as a guest's write is: `nested_vmx_check_guest_state`. It is no
    /// write: no event is made for it.
    ///
    /// # Errors
    /// The vCPU is not in the kernel.
    pub fn enter_l2(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
        vmcs12: Vmcs12,
    ) -> Result<Result<(), NestedEntryFailed>, HostError> {
        let call = self.call(vcpu, Place::Kernel)?;
        if vmcs12.load_debug_controls {
            let mut value = vmcs12.debugctl;
            if self.kvm.checks_nested_debugctl {
                match policy.nested_debugctl(self, call, value) {
                    Some(filtered) => value = filtered,
                    None => return Ok(Err(NestedEntryFailed)),
                }
            }
            self.vcpu_mut(vcpu).nested = None;
            self.write_guest_debugctl(vcpu, value)?;
        }
        self.vcpu_mut(vcpu).nested = Some(Nested {
            save_debug_controls: vmcs12.save_debug_controls,
            debugctl12: vmcs12.debugctl,
        });
        Ok(Ok(()))
    }

    /// L2 exits to L1: L1's `IA32_DEBUGCTL` reads 0 then. What L2 wrote went into vmcs12 when it
    /// was written. `load_vmcs12_host_state`.
    ///
    /// # Errors
    /// The vCPU is not in the kernel, or L2 does not run.
    pub fn leave_l2(&mut self, vcpu: VcpuId) -> Result<Owned, HostError> {
        self.call(vcpu, Place::Kernel)?;
        let nested = self.vcpu_mut(vcpu).nested.take();
        let nested = nested.ok_or(HostError::NotNested(vcpu))?;
        self.write_guest_debugctl(vcpu, DebugCtl::default().bits())?;
        Ok(Host::guests(vcpu, nested.debugctl12))
    }
}
