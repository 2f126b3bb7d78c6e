//! What the driver knows about the part: `intel_pmu_lbr_init_*`, `intel_pmu_lbr_init`.

use std::sync::Arc;

use vlbr_arch::{LbrFormat, Msr};
use vlbr_lbr::{Device, Interface, Profile, Quirk, SelectLayout};

use crate::hardware::{LbrMsrs, Processor};
use crate::perf::{Behaviour, InfoRule};

/// `struct x86_pmu`, as far as it is about the LBR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LbrModel {
    pub(crate) profile: Arc<Profile>,
    /// `lbr_nr`: N, 0 if the boot's probe failed.
    pub(crate) nr: u32,
    pub(crate) msrs: LbrMsrs,
    /// INFO of entry 0, if the driver uses it.
    pub(crate) info: Option<Msr>,
    /// Format 0: one register holds both addresses.
    pub(crate) format_32: bool,
    /// `lbr_from_flags`: FROM\[63\] is MISPRED.
    pub(crate) from_flags: bool,
    /// `lbr_has_tsx`.
    pub(crate) tsx: bool,
    /// `lbr_to_cycles`.
    pub(crate) to_cycles: bool,
    /// `lbr_from_quirk_key`: bits 62:61 of FROM are sign bits to WRMSR and zeros to the hardware.
    pub(crate) sign_quirk: bool,
    /// `lbr_double_abort`.
    pub(crate) double_abort: bool,
    /// `lbr_sel_map`, or the map of `LBR_CTL`.
    pub(crate) select_map: bool,
    pub(crate) call_stack: bool,
    pub(crate) arch: bool,
    /// `lbr_deep_c_reset`, of architectural LBR.
    pub(crate) deep_c_reset: bool,
    /// XSAVES and XRSTORS are used.
    pub(crate) xsaves: bool,
    /// What INFO tells, of architectural LBR: misprediction, cycles, type.
    pub(crate) tells: [bool; 3],
    /// Records tell how often other events occurred: `PMU_FL_BR_CNTR`.
    pub(crate) counters: bool,
    /// Perfmon's version, which says how the LBR is unfrozen.
    pub(crate) version: u8,
    pub(crate) slot_per_core: bool,
}

impl LbrModel {
    pub(crate) fn of(processor: &Processor, behaviour: &Behaviour) -> Self {
        let lbr = processor.logical().lbr();
        let (profile, options) = (Device::profile(lbr), lbr.options());
        let msrs = *processor.lbr_msrs();
        let quirks = options.quirks.unwrap_or(profile.quirks());
        let has = |quirk| quirks.contains(quirk);
        let mut format = profile.format();
        let mut layout = None;
        let (mut deep_c_reset, mut tells, mut counters) = (false, [false; 3], false);
        match profile.interface() {
            Interface::Legacy(legacy) => {
                layout = Some(legacy.select);
                if options.alternative_format {
                    format = legacy.format_alternative.unwrap_or(format);
                }
            }
            Interface::Arch(arch) => {
                deep_c_reset = options
                    .deep_c_state_reset
                    .unwrap_or(arch.eax >> 30 & 1 != 0);
                tells = [0, 1, 2].map(|bit| arch.ecx >> bit & 1 != 0);
                counters = arch.ecx >> 16 & 0xf != 0;
            }
        }
        // intel_pmu_lbr_init_knl.
        if format == LbrFormat::LIP && has(Quirk::HiddenMispred) {
            format = LbrFormat::EIP_FLAGS;
        }
        let arch = profile.is_arch();
        let info = match format {
            LbrFormat::EIP_INFO => true,
            LbrFormat::LIP_INFO => behaviour.info == InfoRule::HasInfo,
            _ => arch,
        };
        let select_map = arch || layout.is_some_and(|layout| layout != SelectLayout::None);
        let state = lbr.cpuid_d_15().eax;
        Self {
            nr: msrs.nr,
            info: msrs.info.filter(|_| info),
            format_32: format == LbrFormat::OFFSET_32,
            from_flags: [
                LbrFormat::EIP_FLAGS,
                LbrFormat::EIP_FLAGS_TSX,
                LbrFormat::LIP_CYCLES,
            ]
            .contains(&format),
            tsx: [LbrFormat::EIP_FLAGS_TSX, LbrFormat::EIP_INFO].contains(&format),
            to_cycles: format == LbrFormat::LIP_CYCLES,
            sign_quirk: format == LbrFormat::EIP_FLAGS_TSX && !options.tsx.unwrap_or(profile.tsx()),
            double_abort: has(Quirk::DoubleAbort),
            select_map,
            call_stack: select_map && profile.has_call_stack(),
            arch,
            deep_c_reset,
            xsaves: arch && behaviour.xsaves && state == 40 + 24 * msrs.nr,
            tells,
            counters: counters && behaviour.branch_counters,
            version: profile.perfmon_version(),
            slot_per_core: layout == Some(SelectLayout::Nehalem) && msrs.nr == 16,
            profile: Arc::new(profile.clone()),
            msrs,
        }
    }

    /// `lbr_nr`: N, 0 if the probe at boot found that the LBR does not work.
    #[must_use]
    pub const fn nr(&self) -> u32 {
        self.nr
    }

    /// INFO is in use: I.
    #[must_use]
    pub const fn has_info(&self) -> bool {
        self.info.is_some()
    }

    /// Registers of an entry that are in use: E.
    #[must_use]
    pub const fn words(&self) -> u32 {
        if self.info.is_some() { 3 } else { 2 }
    }

    /// `lbr_from_signext_quirk_wr`: what is written to FROM.
    #[must_use]
    pub const fn from_for_write(&self, value: u64) -> u64 {
        const COPIED: u64 = 0b11 << 59;
        if self.sign_quirk {
            value | (value & COPIED) << 2
        } else {
            value
        }
    }

    /// `lbr_from_signext_quirk_rd`: what FROM is taken for.
    #[must_use]
    pub const fn from_after_read(&self, value: u64) -> u64 {
        const CLEARED: u64 = 0b11 << 61;
        if self.sign_quirk {
            value & !CLEARED
        } else {
            value
        }
    }
}
