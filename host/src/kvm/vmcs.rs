//! VMREAD and VMWRITE of KVM.

use vlbr_arch::vmx::VmcsField;
use vlbr_cpu::ledger::Actor;
use vlbr_vmx::{Fail, OperandSize, Vmcs, Vmx};

use crate::VcpuId;
use crate::hardware::Memory;
use crate::machine::{Host, HostError};

/// What VMPTRST gives while no VMCS is current.
const NONE: u64 = u64::MAX;

impl Host {
    /// A field of the vCPU's VMCS, wherever that is; nothing is counted.
    #[must_use]
    pub fn vmcs_field(&self, vcpu: VcpuId, field: VmcsField) -> u64 {
        self.vmcs(vcpu)
            .and_then(|vmcs| vmcs.get(field))
            .unwrap_or(0)
    }

    /// The vCPU's VMCS: that of the processor where it is active, or as it stands in memory.
    fn vmcs(&self, vcpu: VcpuId) -> Option<&Vmcs> {
        let state = self.vcpu(vcpu);
        match state.active_on {
            Some(cpu) => self.hardware.cpu(cpu).vmx()?.region(state.vmcs_at),
            None => state.parked.as_deref(),
        }
    }

    /// VMREAD, counted; the VMCS is loaded for it if it is not current anywhere, as an ioctl does.
    ///
    /// # Errors
    /// The VMX instruction fails.
    pub fn vmread(
        &mut self,
        vcpu: VcpuId,
        actor: Actor,
        field: VmcsField,
    ) -> Result<u64, HostError> {
        let Some(cpu) = self.vcpu(vcpu).active_on else {
            return Ok(self.vmcs_field(vcpu, field));
        };
        let at = self.vcpu(vcpu).vmcs_at;
        let (processor, memory, ledger) = self.hardware.split(cpu);
        let Some(vmx) = processor.vmx_mut() else {
            return Ok(0);
        };
        while_current(vmx, memory, at, |vmx| {
            ledger.vmread(actor, field, || vmx.vmread(field, OperandSize::Bits64))
        })
    }

    /// VMWRITE, counted.
    ///
    /// # Errors
    /// The VMX instruction fails.
    pub fn vmwrite(
        &mut self,
        vcpu: VcpuId,
        actor: Actor,
        field: VmcsField,
        value: u64,
    ) -> Result<(), HostError> {
        let at = self.vcpu(vcpu).vmcs_at;
        let Some(cpu) = self.vcpu(vcpu).active_on else {
            if let Some(vmcs) = &mut self.vcpu_mut(vcpu).parked {
                vmcs.set(field, value);
            }
            return Ok(());
        };
        let (processor, memory, ledger) = self.hardware.split(cpu);
        let Some(vmx) = processor.vmx_mut() else {
            return Ok(());
        };
        while_current(vmx, memory, at, |vmx| {
            ledger.vmwrite(actor, field, || {
                vmx.vmwrite(field, value, OperandSize::Bits64)
            })
        })
    }

    /// A guest, or user space, writes this to `IA32_DEBUGCTL`: in L2 whose exit saves debug controls
    /// it goes into vmcs12. `vmx_set_msr`.
    pub fn set_nested_debugctl(&mut self, vcpu: VcpuId, value: u64) {
        if let Some(nested) = &mut self.vcpu_mut(vcpu).nested
            && nested.save_debug_controls
        {
            nested.debugctl12 = value;
        }
    }

    /// Writes the guest's `IA32_DEBUGCTL` into the VMCS.
    ///
    /// # Errors
    /// A VMX instruction fails.
    pub fn write_guest_debugctl(&mut self, vcpu: VcpuId, value: u64) -> Result<(), HostError> {
        let field = VmcsField::GUEST_IA32_DEBUGCTL;
        self.vmwrite(vcpu, Actor::ExitHandler, field, value)
    }

    /// Guest `IA32_DEBUGCTL`, as the VMCS holds it.
    #[must_use]
    pub fn guest_debugctl(&self, vcpu: VcpuId) -> u64 {
        self.vmcs_field(vcpu, VmcsField::GUEST_IA32_DEBUGCTL)
    }
}

/// With this VMCS current. Another one that was is so again afterwards: its vCPU may be loaded there.
fn while_current<T>(
    vmx: &mut Vmx,
    memory: &Memory,
    at: u64,
    act: impl FnOnce(&mut Vmx) -> Result<T, Fail>,
) -> Result<T, HostError> {
    let before = vmx.vmptrst()?;
    if before == at {
        return Ok(act(vmx)?);
    }
    vmx.vmptrld(memory, at)?;
    let done = act(vmx);
    if before != NONE {
        vmx.vmptrld(memory, before)?;
    }
    Ok(done?)
}
