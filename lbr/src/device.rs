//! The face of an LBR device.

use vlbr_arch::{CpuidResult, Cycles, Msr, Transfer, XSTATE_LBR_SIZE};

use crate::{GpFault, Profile, Record};

/// What a transfer does to the LBR stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing.
    Ignore,
    /// A record is added.
    Push,
    /// Call-stack mode: the youngest record is removed.
    Pop,
}

/// What raised a performance-monitoring interrupt. SDM volume 3, "Freezing LBR and Performance
/// Counters on PMI".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pmi {
    /// A counter overflowed.
    Counter,
    /// The PEBS buffer reached its threshold.
    Pebs,
    /// The BTS buffer reached its threshold.
    Bts,
}

/// A kind of reset. SDM volume 3, "Processor State After Reset".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Power-up.
    Cold,
    /// RESET without loss of power.
    Warm,
    /// RESET without loss of power while the core is in C6: its LBR state is lost.
    WarmInC6,
    /// INIT.
    Init,
}

/// The LBR of one logical processor.
///
/// Two implementations exist, [`crate::Lbr`] and [`crate::reference::Lbr`]; whatever is done to
/// both in the same order reads the same from both.
///
/// Not modelled, because its owner lies elsewhere: CPL 0 and VMX checks of MSR accesses, the
/// `#DB` that BTF raises, the BTS buffer, `IA32_PERF_GLOBAL_STATUS` apart from `LBR_FRZ`.
pub trait Device {
    /// The profile it was made from.
    fn profile(&self) -> &Profile;

    /// RDMSR.
    ///
    /// # Errors
    /// `#GP(0)` for a register that the part lacks or that this device does not own
    /// (see [`Device::msrs`]), and for entries at or above `IA32_LBR_DEPTH`.
    fn rdmsr(&self, msr: Msr) -> Result<u64, GpFault>;

    /// WRMSR. A refused write changes nothing.
    ///
    /// # Errors
    /// As for [`Device::rdmsr`], and for values with reserved, unsupported or non-canonical bits.
    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), GpFault>;

    /// The registers that RDMSR answers now, ascending.
    fn msrs(&self) -> Vec<Msr>;

    /// The bits that no value has which WRMSR takes; every bit for a register that RDMSR does not
    /// answer. Addresses must be canonical beside. VM entry tests `IA32_DEBUGCTL` and `IA32_LBR_CTL`
    /// with it.
    fn reserved_bits(&self, msr: Msr) -> u64;

    /// A taken transfer retires at `now`. Returns what it did to the stack.
    ///
    /// Asynchronous transfers are retired too: interrupts, exceptions, SMI, RSM, INIT. A `#DB`
    /// that VM entry injects is retired as [`vlbr_arch::FarKind::Exception`], every other one as
    /// [`vlbr_arch::FarKind::DebugException`]. VM exits and entries are not retired: they are
    /// never recorded. INIT's effect on registers is [`Device::reset`].
    fn retire(&mut self, transfer: &Transfer, now: Cycles) -> Verdict;

    /// What [`Device::retire`] would do to the stack now. Changes nothing.
    fn verdict(&self, transfer: &Transfer) -> Verdict;

    /// Whether recording is enabled, not frozen and not locked out.
    fn recording(&self) -> bool;

    /// Index of the youngest entry as software reads it: `MSR_LASTBRANCH_TOS`; 0 for
    /// architectural LBR.
    fn tos(&self) -> usize;

    /// Number of entries: `IA32_LBR_DEPTH` for architectural LBR.
    fn depth(&self) -> usize;

    /// Every entry, youngest first, empty ones included, as software reads them.
    fn records(&self) -> Vec<Record>;

    /// Entry `index` of [`Device::records`]; `None` beyond the depth.
    fn record(&self, index: usize) -> Option<Record> {
        self.records().into_iter().nth(index)
    }

    /// A PMI is raised: freezes if `DEBUGCTL.FREEZE_LBRS_ON_PMI` is set.
    fn freeze_on_pmi(&mut self, pmi: Pmi);

    /// `IA32_PERF_GLOBAL_STATUS.LBR_FRZ`.
    fn lbr_frz(&self) -> bool;

    /// Software sets or clears `LBR_FRZ` through `GLOBAL_STATUS_SET` or `GLOBAL_STATUS_RESET`. No
    /// effect on parts without the bit.
    fn set_lbr_frz(&mut self, frozen: bool);

    /// Software acknowledges the freeze: [`Device::set_lbr_frz`] with false.
    fn unfreeze(&mut self) {
        self.set_lbr_frz(false);
    }

    /// The logical processor leaves a C-state deeper than C1 that resets the LBR.
    fn deep_c_state(&mut self);

    /// RESET or INIT.
    fn reset(&mut self, reset: Reset);

    /// `IA32_RTIT_CTL.TraceEn` becomes `enabled`.
    fn set_trace_en(&mut self, enabled: bool);

    /// XSAVES of component 15 in its compacted form.
    ///
    /// # Errors
    /// The part has no architectural LBR; the image is untouched.
    fn xsaves(&self, image: &mut [u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault>;

    /// XRSTORS of component 15. `IA32_LBR_DEPTH` is never written: an image of another depth
    /// clears the entries and LER instead.
    ///
    /// # Errors
    /// The part has no architectural LBR, or a word of the image would be refused by WRMSR.
    /// Nothing is changed then.
    fn xrstors(&mut self, image: &[u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault>;

    /// XRSTORS with `XSTATE_BV[15]` = 0: CTL, LER and entries become 0.
    ///
    /// # Errors
    /// The part has no architectural LBR.
    fn xrstors_init(&mut self) -> Result<(), GpFault>;

    /// CPUID leaf 0x1C, subleaf 0; zeros without architectural LBR.
    fn cpuid_1c(&self) -> CpuidResult;

    /// CPUID leaf 0xD, subleaf 15; zeros without architectural LBR.
    fn cpuid_d_15(&self) -> CpuidResult;

    /// VERR, VERW, LAR or LSL ended with ZF = 0: of interest to [`crate::Quirk::SpuriousLer`].
    fn segment_test_failed(&mut self);

    /// An occurrence of the event that `PMCn` logs into the LBR (event logging, CPUID
    /// leaf 0x1C ECX\[19:16\]). Attached to the next record, up to 3. No effect on parts without.
    fn log_event(&mut self, pmc: u8);

    /// What the event `LBR_INSERTS` has counted since the device was made, in wrapping
    /// arithmetic; `None` on parts without the event.
    fn lbr_inserts(&self) -> Option<u64>;
}
