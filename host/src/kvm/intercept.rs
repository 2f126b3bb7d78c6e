//! MSR bitmap and MSR areas of a vCPU, and how far out an exit goes.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{MsrArea, VmcsField};
use vlbr_cpu::ledger::Actor;
use vlbr_vmx::{Access, AreaEntry, MsrBitmap, PhysicalMemory};

use super::Note;
use super::setup::AREA;
use crate::VcpuId;
use crate::machine::{Host, HostError};

/// Where an exit is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitLevel {
    /// With interrupts off, then VM entry at once.
    FastPath,
    /// In the run loop of `KVM_RUN`.
    RunLoop,
    /// In user space, after `KVM_RUN` has returned.
    UserSpace,
}

impl ExitLevel {
    pub(crate) const fn note(self) -> Note {
        match self {
            Self::FastPath => Note::FastPath,
            Self::RunLoop => Note::RunLoop,
            Self::UserSpace => Note::UserSpace,
        }
    }
}

impl Host {
    /// Lets accesses of the guest to these MSRs through, or makes them exit.
    /// `vmx_set_intercept_for_msr`.
    pub fn set_intercepts(
        &mut self,
        vcpu: VcpuId,
        msrs: impl IntoIterator<Item = Msr>,
        exits: bool,
    ) {
        let at = self.vcpu(vcpu).bitmap_at;
        let mut count = 0;
        for msr in msrs {
            for access in [Access::Read, Access::Write] {
                let Some(position) = MsrBitmap::position(msr, access) else {
                    continue;
                };
                let (byte, bit) = (at + position as u64 / 8, 1 << (position % 8));
                let memory = self.hardware.memory_mut();
                let mut value = [0];
                memory.read(byte, &mut value);
                let value = if exits {
                    value[0] | bit
                } else {
                    value[0] & !bit
                };
                memory.write(byte, &[value]);
            }
            count += 1;
        }
        self.journal.add(vcpu, Note::InterceptWritten, count);
    }

    /// Whether an access of the guest exits.
    #[must_use]
    pub fn intercepts(&self, vcpu: VcpuId, msr: Msr, access: Access) -> bool {
        let Some(position) = MsrBitmap::position(msr, access) else {
            return true;
        };
        let mut value = [0];
        let at = self.vcpu(vcpu).bitmap_at + position as u64 / 8;
        self.hardware.memory().read(at, &mut value);
        value[0] & 1 << (position % 8) != 0
    }

    /// Whether a read of the guest exits.
    #[must_use]
    pub fn read_exits(&self, vcpu: VcpuId, msr: Msr) -> bool {
        self.intercepts(vcpu, msr, Access::Read)
    }

    /// Opens or closes the pass-through of the LBR MSRs; nothing happens if it is so already.
    /// `vmx_update_intercept_for_lbr_msrs`.
    pub fn set_passthrough(&mut self, vcpu: VcpuId, open: bool) {
        let lbr = &self.vcpu(vcpu).lbr;
        let Some(msrs) = lbr.msrs.filter(|_| lbr.open != open) else {
            return;
        };
        self.set_intercepts(vcpu, msrs.passed_through(), !open);
        self.vcpu_mut(vcpu).lbr.open = open;
        self.note(vcpu, if open { Note::Opened } else { Note::Closed });
    }

    fn area(&self, vcpu: VcpuId, area: MsrArea) -> (u64, VmcsField) {
        let (address, count) = match area {
            MsrArea::EntryLoad => (
                VmcsField::VM_ENTRY_MSR_LOAD_ADDR,
                VmcsField::VM_ENTRY_MSR_LOAD_COUNT,
            ),
            MsrArea::ExitStore => (
                VmcsField::VM_EXIT_MSR_STORE_ADDR,
                VmcsField::VM_EXIT_MSR_STORE_COUNT,
            ),
            MsrArea::ExitLoad => (
                VmcsField::VM_EXIT_MSR_LOAD_ADDR,
                VmcsField::VM_EXIT_MSR_LOAD_COUNT,
            ),
        };
        (self.vmcs_field(vcpu, address), count)
    }

    /// One list serves VM entry and VM exit: what is stored is what is loaded. Xen sets both
    /// addresses to one page.
    ///
    /// # Errors
    /// A VMX instruction fails.
    pub fn share_lists(&mut self, vcpu: VcpuId) -> Result<(), HostError> {
        let at = self.vcpu(vcpu).areas_at;
        let field = VmcsField::VM_EXIT_MSR_STORE_ADDR;
        self.vmwrite(vcpu, Actor::ExitHandler, field, at)
    }

    /// The pairs that perf wants switched stand behind the LBR's list, guest values to be loaded
    /// at entry and host values at exit. `add_atomic_switch_msr`.
    pub(crate) fn switch_areas(
        &mut self,
        vcpu: VcpuId,
        guest: &[AreaEntry],
        host: &[AreaEntry],
    ) -> Result<(), HostError> {
        let listed = self.vmcs_field(vcpu, VmcsField::VM_EXIT_MSR_STORE_COUNT);
        for (area, behind, entries) in [
            (MsrArea::EntryLoad, listed, guest),
            (MsrArea::ExitLoad, 0, host),
        ] {
            let (at, field) = self.area(vcpu, area);
            for (n, entry) in entries.iter().enumerate() {
                let at = at + 16 * (behind + n as u64);
                self.hardware.memory_mut().write(at, &entry.to_bytes());
            }
            let count = behind + entries.len() as u64;
            if self.vmcs_field(vcpu, field) != count {
                self.vmwrite(vcpu, Actor::WorldSwitch, field, count)?;
            }
        }
        Ok(())
    }

    /// Writes an MSR area: at most 256 entries.
    ///
    /// # Errors
    /// A VMX instruction fails.
    pub fn set_area(
        &mut self,
        vcpu: VcpuId,
        area: MsrArea,
        entries: &[AreaEntry],
    ) -> Result<(), HostError> {
        let (at, count) = self.area(vcpu, area);
        let entries = &entries[..entries.len().min(AREA as usize / 16)];
        for (n, entry) in entries.iter().enumerate() {
            let at = at + 16 * n as u64;
            self.hardware.memory_mut().write(at, &entry.to_bytes());
        }
        self.vmwrite(vcpu, Actor::ExitHandler, count, entries.len() as u64)
    }

    /// Where in memory the value of an MSR stands in an area; `None` if it is not in it.
    fn area_value(&self, vcpu: VcpuId, area: MsrArea, msr: Msr) -> Option<u64> {
        let (at, count) = self.area(vcpu, area);
        let count = self.vmcs_field(vcpu, count).min(AREA / 16);
        (0..count).map(|n| at + 16 * n).find_map(|at| {
            let mut index = [0; 4];
            self.hardware.memory().read(at, &mut index);
            (u32::from_le_bytes(index) == msr.value()).then_some(at + 8)
        })
    }

    /// The value that an area holds for an MSR.
    #[must_use]
    pub fn area_entry(&self, vcpu: VcpuId, area: MsrArea, msr: Msr) -> Option<u64> {
        let at = self.area_value(vcpu, area, msr)?;
        let mut value = [0; 8];
        self.hardware.memory().read(at, &mut value);
        Some(u64::from_le_bytes(value))
    }

    /// Replaces the value that an area holds for an MSR; `false` if it is not in it.
    pub fn set_area_entry(&mut self, vcpu: VcpuId, area: MsrArea, msr: Msr, value: u64) -> bool {
        let at = self.area_value(vcpu, area, msr);
        if let Some(at) = at {
            self.hardware.memory_mut().write(at, &value.to_le_bytes());
        }
        at.is_some()
    }
}
