//! Registers that neither device owns and LBR and counters depend on.

use vlbr_arch::{DebugCtl, Msr};
use vlbr_lbr::{Quirk, Reset};

use super::MsrReason;

/// `IA32_MISC_ENABLE`: performance monitoring available.
const PERFMON_AVAILABLE: u64 = 1 << 7;
/// `IA32_MISC_ENABLE`: no branch trace store.
const BTS_UNAVAILABLE: u64 = 1 << 11;
/// `IA32_MISC_ENABLE`: no PEBS.
const PEBS_UNAVAILABLE: u64 = 1 << 12;
/// Bits of `IA32_MISC_ENABLE` that tell and cannot be switched.
pub(super) const MISC_READ_ONLY: u64 = PERFMON_AVAILABLE | BTS_UNAVAILABLE | PEBS_UNAVAILABLE;
/// `IA32_RTIT_CTL.TraceEn`.
const TRACE_EN: u64 = 1;
/// `IA32_XSS`: component 15.
const LBR_STATE: u64 = 1 << 15;

/// `IA32_MISC_ENABLE`, `IA32_RTIT_CTL` and `IA32_XSS`.
///
/// Of `IA32_MISC_ENABLE` the bits about counters, BTS and PEBS mean something; the others are of
/// the model and are kept as written. Of Intel PT there is `TraceEn` only, for what it does to the
/// LBR. `IA32_XSS` has the bit of the LBR state and stands on parts with architectural LBR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CoreRegisters {
    misc_enable: u64,
    misc_enable_reset: u64,
    rtit_ctl: Option<u64>,
    xss: Option<u64>,
}

impl CoreRegisters {
    pub(super) fn new(lbr: &vlbr_lbr::Profile, pmu: &vlbr_pmu::Profile) -> Self {
        let mut misc_enable = 0;
        if pmu.version() != 0 {
            misc_enable |= PERFMON_AVAILABLE;
        }
        if !lbr.debugctl().contains(DebugCtl::BTS) {
            misc_enable |= BTS_UNAVAILABLE;
        }
        if pmu.pebs().is_none() {
            misc_enable |= PEBS_UNAVAILABLE;
        }
        // Intel PT came with Broadwell and Goldmont: the parts where it excludes the LBR, and all
        // of perfmon version 4.
        let has_pt = lbr.quirks().contains(Quirk::PtExclusive) || pmu.version() >= 4;
        Self {
            misc_enable,
            misc_enable_reset: misc_enable,
            rtit_ctl: has_pt.then_some(0),
            xss: lbr.is_arch().then_some(0),
        }
    }

    pub(super) fn msrs(&self) -> Vec<Msr> {
        let mut msrs = vec![Msr::MISC_ENABLE];
        msrs.extend(self.rtit_ctl.map(|_| Msr::RTIT_CTL));
        msrs.extend(self.xss.map(|_| Msr::XSS));
        msrs
    }

    pub(super) fn read(&self, msr: Msr) -> Result<u64, MsrReason> {
        let value = match msr {
            Msr::MISC_ENABLE => Some(self.misc_enable),
            Msr::RTIT_CTL => self.rtit_ctl,
            Msr::XSS => self.xss,
            _ => None,
        };
        value.ok_or(MsrReason::NoSuchMsr)
    }

    pub(super) fn write(
        &mut self,
        msr: Msr,
        value: u64,
        lbr: &mut impl vlbr_lbr::Device,
    ) -> Result<(), MsrReason> {
        match (msr, &mut self.rtit_ctl, &mut self.xss) {
            (Msr::MISC_ENABLE, ..) => {
                let changed = (value ^ self.misc_enable) & MISC_READ_ONLY;
                if changed != 0 {
                    return Err(MsrReason::ReadOnlyBits(changed));
                }
                self.misc_enable = value;
            }
            (Msr::RTIT_CTL, Some(rtit_ctl), _) => {
                if value & !TRACE_EN != 0 {
                    return Err(MsrReason::IntelPt(value & !TRACE_EN));
                }
                *rtit_ctl = value;
                lbr.set_trace_en(value != 0);
            }
            (Msr::XSS, _, Some(xss)) => {
                if value & !LBR_STATE != 0 {
                    return Err(MsrReason::Reserved(value & !LBR_STATE));
                }
                *xss = value;
            }
            _ => return Err(MsrReason::NoSuchMsr),
        }
        Ok(())
    }

    pub(super) fn reserved_bits(&self, msr: Msr) -> u64 {
        match msr {
            Msr::MISC_ENABLE => MISC_READ_ONLY,
            Msr::RTIT_CTL if self.rtit_ctl.is_some() => !TRACE_EN,
            Msr::XSS if self.xss.is_some() => !LBR_STATE,
            _ => u64::MAX,
        }
    }

    /// INIT leaves all three; RESET takes the LBR's view of `TraceEn` back with it.
    pub(super) fn reset(&mut self, reset: Reset) {
        if reset == Reset::Init {
            return;
        }
        self.misc_enable = self.misc_enable_reset;
        self.rtit_ctl = self.rtit_ctl.map(|_| 0);
        self.xss = self.xss.map(|_| 0);
    }
}
