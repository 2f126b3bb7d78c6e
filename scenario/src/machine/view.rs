//! What an export reads of a machine.

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{CpuidResult, Msr};
use vlbr_lbr::Profile;

use super::Machine;
pub(crate) use super::image_offset;
pub(crate) use super::vmx::{BITMAP, VMCS, VMXON, initial_fields, place};
use crate::compare::{Mismatch, mismatch};

/// What a register reads: the value, `None` for `#GP`, and its known bits.
pub(crate) type Reading = (Option<u64>, u64);

impl Machine<'_> {
    /// The processor.
    pub(crate) fn profile(&self) -> &Profile {
        self.profile
    }

    /// Every register that can be read now, ascending.
    pub(crate) fn msrs(&mut self, cpu: usize) -> Result<Vec<Msr>, Mismatch> {
        let thread = self.thread(cpu)?;
        let mut msrs = thread.msrs();
        msrs.retain(|msr| thread.rdmsr(*msr).is_ok());
        Ok(msrs)
    }

    /// What RDMSR gives.
    pub(crate) fn reading(&mut self, cpu: usize, msr: Msr) -> Result<Reading, Mismatch> {
        Ok((self.thread(cpu)?.rdmsr(msr).ok(), known(msr)))
    }

    /// `IA32_PERF_CAPABILITIES`.
    pub(crate) fn capabilities(&mut self) -> Result<u64, Mismatch> {
        self.must_read(0, Msr::PERF_CAPABILITIES)
    }

    /// CPUID leaf 0x1C, subleaf 0, and leaf 0xD, subleaf 15.
    pub(crate) fn cpuid(&mut self) -> Result<[CpuidResult; 2], Mismatch> {
        let lbr = self.lbr(0)?;
        Ok([lbr.cpuid_1c(), lbr.cpuid_d_15()])
    }

    /// A field of the current VMCS.
    pub(crate) fn vmcs_field(&mut self, cpu: usize, field: VmcsField) -> Result<u64, Mismatch> {
        self.side(cpu)?.read(field)
    }

    /// The current VMCS as text.
    pub(crate) fn vmcs_text(&mut self, cpu: usize) -> Result<Option<String>, Mismatch> {
        Ok(self.side(cpu)?.vmcs_text())
    }

    /// The MSR-bitmap page.
    pub(crate) fn bitmap_page(&mut self, cpu: usize) -> Result<Vec<u8>, Mismatch> {
        Ok(self.side(cpu)?.bitmap_page())
    }

    fn side(&mut self, cpu: usize) -> Result<&mut super::vmx::Side, Mismatch> {
        let outside = || mismatch("vmx on before", "a processor outside VMX operation");
        self.vmx.get_mut(&cpu).ok_or_else(outside)
    }
}

/// The bits of a register that are modelled.
const fn known(msr: Msr) -> u64 {
    match msr.value() {
        // IA32_MISC_ENABLE: counters, BTS, PEBS.
        0x1a0 => 0x1880,
        // IA32_RTIT_CTL: TraceEn.
        0x570 => 1,
        // IA32_XSS: the LBR state.
        0xda0 => 1 << 15,
        _ => !0,
    }
}
