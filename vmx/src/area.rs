//! The MSR areas: their entries, and what they may not hold.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{MSR_AREA_ENTRY_SIZE, MsrArea, VmcsField};
use vlbr_cpu::ledger::MsrAccess;

use crate::context::Context;
use crate::{BeyondLimit, PhysicalMemory, Vmcs, Vmx};

/// The address and the count of an area.
pub(crate) const fn fields(area: MsrArea) -> (VmcsField, VmcsField) {
    match area {
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
    }
}

/// An entry of an MSR area. SDM volume 3, table "Format of an MSR Entry".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AreaEntry {
    /// Bits 31:0, the MSR.
    pub index: u32,
    /// Bits 63:32, which must be 0.
    pub reserved: u32,
    /// Bits 127:64, the value.
    pub data: u64,
}

impl AreaEntry {
    /// An entry for this register and value.
    #[must_use]
    pub const fn new(msr: Msr, data: u64) -> Self {
        Self {
            index: msr.value(),
            reserved: 0,
            data,
        }
    }

    /// The register.
    #[must_use]
    pub const fn msr(self) -> Msr {
        Msr::new(self.index)
    }

    /// As it stands in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let low = u64::from(self.reserved) << 32 | u64::from(self.index);
        (u128::from(self.data) << 64 | u128::from(low)).to_le_bytes()
    }

    /// From memory.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Self {
            index: all as u32,
            reserved: (all >> 32) as u32,
            data: (all >> 64) as u64,
        }
    }
}

/// MSRs that an area may not hold. SDM volume 3, "Loading MSRs", "Saving MSRs".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    /// `IA32_FS_BASE` and `IA32_GS_BASE` are not loaded from an area.
    #[error("FS and GS bases are not loaded from an area")]
    SegmentBase,
    /// MSRs 0x800 to 0x8FF.
    #[error("an APIC register of x2APIC mode")]
    X2Apic,
    /// Readable or writable in SMM only.
    #[error("accessible in SMM only")]
    SmmOnly,
    /// The model does not allow it.
    #[error("not allowed on this model")]
    Model,
}

/// Why an entry of an area fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AreaFault<F> {
    /// The MSR may not stand in the area.
    #[error("{0}")]
    Forbidden(Forbidden),
    /// Bits 63:32 are not 0.
    #[error("bits 63:32 are {0:#x}")]
    Reserved(u32),
    /// RDMSR or WRMSR would fault.
    #[error("{0}")]
    Gp(F),
    /// The area is longer than `IA32_VMX_MISC` recommends.
    #[error("{count} entries, {limit} are recommended")]
    TooLong {
        /// Its count.
        count: u32,
        /// The recommended maximum.
        limit: u32,
    },
}

/// The entry that failed, from 1 on; 0 if the area as a whole did.
pub(crate) type Failure<F> = (u32, AreaFault<F>);

impl Vmx {
    fn forbidden(&self, area: MsrArea, msr: Msr) -> Option<Forbidden> {
        let load = area != MsrArea::ExitStore;
        if load && matches!(msr, Msr::FS_BASE | Msr::GS_BASE) {
            return Some(Forbidden::SegmentBase);
        }
        if msr.value() >> 8 == 0x8 {
            return Some(Forbidden::X2Apic);
        }
        let smm_only = if load {
            Msr::SMM_MONITOR_CTL
        } else {
            Msr::SMBASE
        };
        if msr == smm_only && !self.smm {
            return Some(Forbidden::SmmOnly);
        }
        self.options
            .area_banned
            .contains(&msr.value())
            .then_some(Forbidden::Model)
    }

    /// Processes an area in order, up to the first entry that fails. What came before stays done.
    pub(crate) fn process_area<M, P>(
        &self,
        vmcs: &Vmcs,
        area: MsrArea,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), Failure<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let (address, count) = fields(area);
        let (address, count) = (vmcs.field(address), vmcs.field32(count));
        if count == 0 {
            return Ok(());
        }
        let limit = self.profile.misc().msr_area_limit();
        if count > limit && self.options.area_beyond_limit == BeyondLimit::MachineCheck {
            return Err((0, AreaFault::TooLong { count, limit }));
        }
        context.ledger.area(area);
        for n in 0..count {
            let at = address.wrapping_add(u64::from(n) * MSR_AREA_ENTRY_SIZE);
            self.process_entry(area, at, context)
                .map_err(|fault| (n + 1, fault))?;
        }
        Ok(())
    }

    fn process_entry<M, P>(
        &self,
        area: MsrArea,
        at: u64,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), AreaFault<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let mut bytes = [0; 16];
        context.memory.read(at, &mut bytes);
        let entry = AreaEntry::from_bytes(bytes);
        if let Some(forbidden) = self.forbidden(area, entry.msr()) {
            return Err(AreaFault::Forbidden(forbidden));
        }
        if entry.reserved != 0 {
            return Err(AreaFault::Reserved(entry.reserved));
        }
        let (ledger, msr) = (&mut *context.ledger, entry.msr());
        if area == MsrArea::ExitStore {
            let value = ledger
                .area_store(area, context.msrs, msr)
                .map_err(AreaFault::Gp)?;
            context.memory.write(at + 8, &value.to_le_bytes());
            return Ok(());
        }
        ledger
            .area_load(area, context.msrs, msr, entry.data)
            .map_err(AreaFault::Gp)
    }
}
