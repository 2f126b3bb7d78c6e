//! VMs, vCPUs and their VMCS.

use vlbr_arch::vmx::{EntryControls, ExitControls, PrimaryControls, VmcsField};
use vlbr_vmx::{MsrBitmap, OperandSize, PhysicalMemory, VmxProfile};

use super::{GuestCpu, GuestPmu, Place, Requests, Vcpu, VcpuLbr, Vm};
use crate::hardware::Running;
use crate::machine::{Host, HostError, Task};
use crate::policy::Policy;
use crate::{CpuId, TaskId, VcpuId, VmId};

const HOST_RIP: u64 = 0xffff_8000_0000_1000;
const GUEST_RIP: u64 = 0x40_1000;
/// Bytes for each of the three MSR areas: 256 entries.
pub(super) const AREA: u64 = 4096;

impl Host {
    /// VMXON on every processor whose capabilities are known.
    pub(crate) fn enter_vmx_operation(&mut self) -> Result<(), HostError> {
        for cpu in 0..self.hardware.cpus() {
            let (processor, memory, _) = self.hardware.split(CpuId(cpu as u16));
            let Some(vmx) = processor.vmx_mut() else {
                continue;
            };
            let region = memory.allocate(1);
            memory.write(region, &revision(vmx.profile()));
            vmx.vmxon(memory, region)?;
        }
        Ok(())
    }

    /// A new VM.
    pub fn add_vm(&mut self) -> VmId {
        self.vms.push(Vm::default());
        VmId(self.vms.len() as u16 - 1)
    }

    /// A new vCPU with a thread of its own. `KVM_CREATE_VCPU`.
    ///
    /// # Errors
    /// The part's VMX capabilities are not known.
    pub fn add_vcpu(
        &mut self,
        vm: VmId,
        guest_cpu: GuestCpu,
        policy: &dyn Policy,
    ) -> Result<VcpuId, HostError> {
        let (processor, memory, _) = self.hardware.split(CpuId(0));
        let part = processor.logical().lbr().profile().name().to_owned();
        let profile = processor.vmx().ok_or(HostError::NoVmx(part))?.profile();
        let vmcs_at = memory.allocate(1);
        let bitmap_at = memory.allocate(1);
        let areas_at = memory.allocate(3);
        memory.write(vmcs_at, &revision(profile));
        memory.write(bitmap_at, MsrBitmap::intercepting_all().as_page());
        let vcpu = VcpuId(self.vcpus.len() as u16);
        let thread = TaskId(self.tasks.len() as u32);
        self.tasks.push(Task {
            name: format!("{vcpu}"),
            kernel_thread: false,
            vcpu: Some(vcpu),
            cpu: None,
        });
        self.vms[vm.index()].vcpus.push(vcpu);
        self.vcpus.push(Vcpu {
            id: vcpu,
            vm,
            thread,
            place: Place::UserSpace,
            cpu: None,
            active_on: None,
            parked: None,
            launched: false,
            vmcs_at,
            bitmap_at,
            areas_at,
            host_debugctl: 0,
            lbr: VcpuLbr::default(),
            pmu: GuestPmu::new(&guest_cpu),
            guest_cpu,
            perf_capabilities: 0,
            made: false,
            ran: false,
            requests: Requests::default(),
            inject_gp: false,
            nested: None,
        });
        // Made on a processor where nothing of it stays: the first load adopts it.
        self.load_vmcs(vcpu, CpuId(0))?;
        self.write_initial_fields(vcpu, CpuId(0))?;
        self.unload_vmcs(vcpu)?;
        policy.refresh(self, vcpu);
        self.vcpu_mut(vcpu).made = true;
        Ok(vcpu)
    }

    /// The vCPU's VMCS and MSR bitmap are made anew, on a processor that runs no guest.
    pub(crate) fn remake_vmcs(&mut self, vcpu: VcpuId, cpu: CpuId) -> Result<(), HostError> {
        self.unload_vmcs(vcpu)?;
        let state = self.vcpu_mut(vcpu);
        state.parked = None;
        state.launched = false;
        let bitmap_at = state.bitmap_at;
        let intercepting = MsrBitmap::intercepting_all();
        self.hardware
            .memory_mut()
            .write(bitmap_at, intercepting.as_page());
        self.load_vmcs(vcpu, cpu)?;
        self.write_initial_fields(vcpu, cpu)?;
        self.unload_vmcs(vcpu)
    }

    fn write_initial_fields(&mut self, vcpu: VcpuId, cpu: CpuId) -> Result<(), HostError> {
        let &Vcpu {
            bitmap_at,
            areas_at,
            ..
        } = self.vcpu(vcpu);
        let processor = self.hardware.cpu_mut(cpu);
        let Some(vmx) = processor.vmx_mut() else {
            return Ok(());
        };
        let profile = vmx.profile();
        let mut entry = EntryControls::LOAD_DEBUG_CONTROLS;
        let mut exit = ExitControls::SAVE_DEBUG_CONTROLS;
        if profile.has_lbr_ctl() {
            entry = entry | EntryControls::LOAD_LBR_CTL;
            exit = exit | ExitControls::CLEAR_LBR_CTL;
        }
        let primary = PrimaryControls::USE_MSR_BITMAPS;
        let fields = [
            (
                VmcsField::PIN_BASED_VM_EXEC_CONTROL,
                profile.pin().adjust(0),
            ),
            (
                VmcsField::CPU_BASED_VM_EXEC_CONTROL,
                profile.primary().adjust(primary.bits()),
            ),
            (
                VmcsField::VM_EXIT_CONTROLS,
                profile.exit().adjust(exit.bits()),
            ),
            (
                VmcsField::VM_ENTRY_CONTROLS,
                profile.entry().adjust(entry.bits()),
            ),
        ]
        .map(|(field, value)| (field, u64::from(value)));
        let others = [
            (VmcsField::MSR_BITMAP, bitmap_at),
            (VmcsField::VM_ENTRY_MSR_LOAD_ADDR, areas_at),
            (VmcsField::VM_EXIT_MSR_STORE_ADDR, areas_at + AREA),
            (VmcsField::VM_EXIT_MSR_LOAD_ADDR, areas_at + 2 * AREA),
            (VmcsField::GUEST_CR0, 0x8000_0021),
            (VmcsField::GUEST_RFLAGS, 2),
            (VmcsField::GUEST_RIP, GUEST_RIP),
            (VmcsField::HOST_RIP, HOST_RIP),
        ];
        for (field, value) in fields.into_iter().chain(others) {
            vmx.vmwrite(field, value, OperandSize::Bits64)?;
        }
        Ok(())
    }

    /// VMPTRLD on `cpu`, after VMCLEAR where the VMCS was active. `vmx_vcpu_load_vmcs`.
    pub(crate) fn load_vmcs(&mut self, vcpu: VcpuId, cpu: CpuId) -> Result<(), HostError> {
        if self.vcpu(vcpu).active_on != Some(cpu) {
            self.unload_vmcs(vcpu)?;
        }
        let at = self.vcpu(vcpu).vmcs_at;
        let parked = self.vcpu_mut(vcpu).parked.take();
        let (processor, memory, _) = self.hardware.split(cpu);
        let Some(vmx) = processor.vmx_mut() else {
            return Ok(());
        };
        if let Some(vmcs) = parked {
            vmx.adopt(at, *vmcs)?;
        }
        vmx.vmptrld(memory, at)?;
        self.vcpu_mut(vcpu).active_on = Some(cpu);
        Ok(())
    }

    /// VMCLEAR where the VMCS is active, whose registers may hold the guest's LBR as well.
    /// `loaded_vmcs_clear`.
    pub(crate) fn unload_vmcs(&mut self, vcpu: VcpuId) -> Result<(), HostError> {
        let Some(cpu) = self.vcpu_mut(vcpu).active_on.take() else {
            return Ok(());
        };
        if self.perf.lbr_cpu(cpu).guest() == Some(vcpu) {
            self.perf.guest_lbr_flush(&mut self.hardware, cpu);
        }
        let at = self.vcpu(vcpu).vmcs_at;
        let running = self.hardware.cpu(cpu).running();
        debug_assert!(!matches!(running, Running::Guest(guest) if guest == vcpu));
        let Some(vmx) = self.hardware.cpu_mut(cpu).vmx_mut() else {
            return Ok(());
        };
        let vmcs = vmx.surrender(at)?;
        let state = self.vcpu_mut(vcpu);
        state.parked = vmcs.map(Box::new);
        state.launched = false;
        Ok(())
    }
}

fn revision(profile: &VmxProfile) -> [u8; 8] {
    u64::from(profile.basic().revision()).to_le_bytes()
}
