//! The face of a PMU device.

use vlbr_arch::{Cpl, LvtPc, Msr};

use crate::{
    Counter, CounterSet, Environment, GpFault, Horizon, Increments, Interrupt, Options, Outcome,
    Pending, PmiCause, PmuError, Profile, Refusal, Reset, Selector, Source,
};

/// The PMU of one logical processor, with the LVT entry its interrupts go through.
///
/// Two implementations exist, [`crate::Pmu`] and [`crate::reference::Pmu`]; whatever is done to
/// both in the same order reads the same from both.
///
/// Every event of one [`Device::retire`] falls on one boundary, behind the last instruction of the
/// run: counters count, then overflows are seen, then PEBS records are taken, then PMIs are raised
/// and freeze, so that no counter loses the instruction that overflowed another. Inside
/// [`Device::horizon`] it does not matter how a run is divided.
///
/// Not modelled, because its owner lies elsewhere: CPL 0 and VMX checks of MSR accesses and of
/// RDPMC, `IA32_MISC_ENABLE`, the APIC beside the LVT entry, the BTS buffer, `IA32_DEBUGCTL`.
pub trait Device {
    /// The profile it was made from.
    fn profile(&self) -> &Profile;

    /// The options it was made with.
    fn options(&self) -> &Options;

    /// RDMSR.
    ///
    /// # Errors
    /// `#GP(0)` for a register that the part lacks or that this device does not own (see
    /// [`Device::msrs`]).
    fn rdmsr(&self, msr: Msr, environment: &dyn Environment) -> Result<u64, GpFault>;

    /// WRMSR. A refused write changes nothing.
    ///
    /// The instruction itself is retired before its write is done, so that the WRMSR that enables a
    /// counter is not counted and the one that disables it is. RDMSR and RDPMC read before they
    /// are retired.
    ///
    /// # Errors
    /// `#GP(0)` as for [`Device::rdmsr`], for read-only registers and for values with reserved
    /// bits; [`PmuError::Refused`] for what the part does and the model cannot.
    fn wrmsr(
        &mut self,
        msr: Msr,
        value: u64,
        environment: &mut dyn Environment,
    ) -> Result<(), PmuError>;

    /// The registers that RDMSR answers, ascending.
    fn msrs(&self) -> Vec<Msr>;

    /// The bits that must be 0 for WRMSR not to fault; every bit for a register that cannot be
    /// written. VM entry tests `IA32_PERF_GLOBAL_CTRL` with it.
    fn reserved_bits(&self, msr: Msr) -> u64;

    /// RDPMC with this ECX: 0 + n general-purpose counters, 0x40000000 + i fixed ones, 0x20000000
    /// the topdown metrics. In real mode `cpl` is 0, in virtual-8086 mode 3.
    ///
    /// # Errors
    /// `#GP(0)`: CPL above 0 without CR4.PCE, or no such counter. Bit 31, the fast read of parts
    /// without architectural performance monitoring, names no counter.
    fn rdpmc(&self, ecx: u32, cpl: Cpl, cr4_pce: bool) -> Result<u64, GpFault>;

    /// A run of instructions retired.
    fn retire(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome;

    /// A run of instructions retired on another logical processor of the core: counters with
    /// AnyThread count it.
    fn retire_sibling(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome;

    /// The transaction that the last run was in aborts: `IN_TXCP` takes back what counter 2
    /// counted in it and the overflow, if there was one; a PMI stays raised.
    fn abort_transaction(&mut self);

    /// Something else raises a PMI: BTS.
    fn raise(&mut self, cause: PmiCause, environment: &mut dyn Environment);

    /// The PMI that the APIC accepted and the core has not taken.
    fn pending(&self) -> Option<Pending>;

    /// At a boundary at which the core takes interrupts: the PMI, if one is due. Its delivery sets
    /// the mask bit of the LVT entry.
    fn deliver(&mut self) -> Option<Interrupt>;

    /// The LVT performance monitoring entry.
    fn lvtpc(&self) -> LvtPc;

    /// Software writes the LVT entry; bits it cannot set are ignored.
    fn set_lvtpc(&mut self, entry: LvtPc);

    /// An SMI is taken, before the LBR clears `IA32_DEBUGCTL`.
    fn smi(&mut self, environment: &dyn Environment);

    /// RSM.
    fn rsm(&mut self);

    /// RESET or INIT.
    fn reset(&mut self, reset: Reset);

    /// How far one may retire without looking.
    fn horizon(&self) -> Horizon;

    /// Whether a counter may count this source now. Of one that none counts nothing has to be told.
    fn watches(&self, source: Source) -> bool {
        let _ = source;
        true
    }

    /// The counters that count now with what they count, general-purpose ones first.
    fn active(&self) -> Vec<(Counter, Selector)>;

    /// Counters that stand still because nobody feeds their event ([`crate::Unfed::Hold`]).
    fn held(&self) -> Vec<Refusal>;

    /// Counters that overflowed and will take a PEBS record at their next event.
    fn armed(&self) -> CounterSet;
}
