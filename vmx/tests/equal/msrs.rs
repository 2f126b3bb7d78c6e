//! The MSRs of both processors: what an address leads to, and what stands around the counters.

use std::collections::BTreeMap;

use vlbr_arch::{Cycles, DebugCtl, LvtPc, Msr, Transfer};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{Boundary, LogicalProcessor, MsrFault, Surroundings};
use vlbr_lbr::Device as _;
use vlbr_pmu::{
    Device as _, Environment, Increments, MachineState, MemoryFault, Outcome, PmiCause, PmuError,
};
use vlbr_vmx::VmxProfile;

use crate::ends::Ends;
use crate::ram::Ram;

/// Where the tests put the debug store.
pub(crate) const DEBUG_STORE: u64 = 0xffff_8800_0000_0000;

fn cause(cause: PmiCause) -> vlbr_lbr::Pmi {
    match cause {
        PmiCause::Counter => vlbr_lbr::Pmi::Counter,
        PmiCause::Pebs => vlbr_lbr::Pmi::Pebs,
        PmiCause::Bts => vlbr_lbr::Pmi::Bts,
    }
}

/// The debug store, and the registers that its records hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) ram: Ram,
    pub(crate) machine: MachineState,
}

impl Store {
    fn load(&self, address: u64) -> Result<u64, MemoryFault> {
        match address {
            DEBUG_STORE.. => Ok(self.ram.word(address, 8)),
            _ => Err(MemoryFault { address }),
        }
    }

    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        if address < DEBUG_STORE {
            return Err(MemoryFault { address });
        }
        for (n, byte) in (0..).zip(bytes) {
            self.ram.set(address.wrapping_add(n), *byte);
        }
        Ok(())
    }
}

impl Surroundings for Store {
    fn machine(&self) -> MachineState {
        self.machine.clone()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        self.load(address)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.store(address, bytes)
    }
}

/// The LBR and the debug store, as the slow counters see them.
struct Around<'a> {
    lbr: &'a mut vlbr_lbr::reference::Lbr,
    store: &'a mut Store,
}

impl Environment for Around<'_> {
    fn debugctl(&self) -> DebugCtl {
        DebugCtl::from_bits(self.lbr.rdmsr(Msr::DEBUGCTL).unwrap_or(0))
    }

    fn lbr_frz(&self) -> bool {
        self.lbr.lbr_frz()
    }

    fn set_lbr_frz(&mut self, frozen: bool) {
        self.lbr.set_lbr_frz(frozen);
    }

    fn freeze_lbr(&mut self, raised: PmiCause) {
        self.lbr.freeze_on_pmi(cause(raised));
    }

    fn lbr_entry(&self, index: usize) -> Option<[u64; 3]> {
        let record = *self.lbr.records().get(index)?;
        Some([record.from, record.to, record.raw[2]])
    }

    fn log_event(&mut self, pmc: u8, events: u64) {
        for _ in 0..events.min(3) {
            self.lbr.log_event(pmc);
        }
    }

    fn machine(&self) -> MachineState {
        self.store.machine.clone()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        self.store.load(address)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.store.store(address, bytes)
    }
}

/// Registers by address, each with the device that has it.
#[derive(Clone, Debug)]
pub(crate) struct SlowMsrs {
    pub(crate) lbr: vlbr_lbr::reference::Lbr,
    pub(crate) pmu: vlbr_pmu::reference::Pmu,
    /// `IA32_MISC_ENABLE`, `IA32_RTIT_CTL` and `IA32_XSS`, those that the part has.
    pub(crate) others: BTreeMap<u32, u64>,
    /// What `IA32_PERF_CAPABILITIES` says of the LBR.
    pub(crate) format: u64,
    /// What only VMX has.
    pub(crate) capabilities: BTreeMap<u32, u64>,
    pub(crate) x2apic: bool,
    /// Registers that do not exist read 0 and take every value.
    pub(crate) ignores: bool,
    pub(crate) store: Store,
    pub(crate) clock: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Lbr,
    Pmu,
    Vmx,
    Apic,
    Other,
    Nobody,
}

const MISC_ENABLE: u32 = 0x1a0;
const RTIT_CTL: u32 = 0x570;
const XSS: u32 = 0xda0;
const PERF_CAPABILITIES: u32 = 0x345;
/// Bits of `IA32_MISC_ENABLE` that software only reads: counters, BTS, PEBS.
const TELLING: u64 = 1 << 7 | 1 << 11 | 1 << 12;
/// What the LVT entry takes: vector, delivery mode, mask, and the status that it drops.
const LVT: u64 = 0xff | 7 << 8 | 1 << 12 | 1 << 16;

/// hardware.md 1.2, 5.2, 6.2 and 7: which part of the processor an address belongs to.
fn owner(msr: u32) -> Owner {
    match msr {
        0x40..=0x47 | 0x60..=0x67 => Owner::Lbr,
        0x1c8 | 0x1c9 | 0x1d9 | 0x1dd | 0x1de | 0x1e0 => Owner::Lbr,
        0x680..=0x69f | 0x6c0..=0x6df | 0xdc0..=0xddf => Owner::Lbr,
        0x14ce | 0x14cf | 0x1200..=0x121f | 0x1500..=0x151f | 0x1600..=0x161f => Owner::Lbr,
        0xc1..=0xc8 | 0x4c1..=0x4c8 | 0x186..=0x18d | 0x309..=0x30c => Owner::Pmu,
        0x345 | 0x329 | 0x38d..=0x392 | 0x3f1 | 0x3f2 | 0x3f6 | 0x3f7 => Owner::Pmu,
        0x1a6 | 0x1a7 | 0x600 | 0x1309..=0x130c | 0x14c1..=0x14c8 => Owner::Pmu,
        0x480..=0x493 => Owner::Vmx,
        0x834 => Owner::Apic,
        MISC_ENABLE | RTIT_CTL | XSS => Owner::Other,
        _ => Owner::Nobody,
    }
}

impl SlowMsrs {
    /// The registers that no device has, after power-up.
    pub(crate) fn others(lbr: &vlbr_lbr::Profile, pmu: &vlbr_pmu::Profile) -> BTreeMap<u32, u64> {
        let mut misc = 0;
        if pmu.version() > 0 {
            misc += 1 << 7;
        }
        if lbr.debugctl().bits() >> 7 & 1 == 0 {
            misc += 1 << 11;
        }
        if pmu.pebs().is_none() {
            misc += 1 << 12;
        }
        let mut others = BTreeMap::from([(MISC_ENABLE, misc)]);
        let excludes = lbr.quirks().contains(vlbr_lbr::Quirk::PtExclusive);
        if excludes || pmu.version() >= 4 {
            others.insert(RTIT_CTL, 0);
        }
        if lbr.is_arch() {
            others.insert(XSS, 0);
        }
        others
    }

    fn missing<T>(&self, nothing: T) -> Result<T, Ends> {
        if self.ignores {
            Ok(nothing)
        } else {
            Err(Ends::Gp)
        }
    }

    pub(crate) fn read(&mut self, msr: u32) -> Result<u64, Ends> {
        let name = Msr::new(msr);
        match owner(msr) {
            Owner::Lbr => match self.lbr.rdmsr(name) {
                Ok(value) => Ok(value),
                Err(fault) if fault.reason == vlbr_lbr::GpReason::NoSuchMsr => self.missing(0),
                Err(_) => Err(Ends::Gp),
            },
            Owner::Pmu => {
                let around = Around {
                    lbr: &mut self.lbr,
                    store: &mut self.store,
                };
                match self.pmu.rdmsr(name, &around) {
                    Ok(value) if msr == PERF_CAPABILITIES => Ok(value >> 6 << 6 | self.format),
                    Ok(value) => Ok(value),
                    Err(_) => self.missing(0),
                }
            }
            Owner::Vmx => self.capabilities.get(&msr).copied().ok_or(Ends::Gp),
            Owner::Apic if self.x2apic => Ok(self.pmu.lvtpc().bits().into()),
            Owner::Other => match self.others.get(&msr) {
                Some(value) => Ok(*value),
                None => self.missing(0),
            },
            Owner::Apic | Owner::Nobody => self.missing(0),
        }
    }

    pub(crate) fn write(&mut self, msr: u32, value: u64) -> Result<(), Ends> {
        let name = Msr::new(msr);
        match owner(msr) {
            Owner::Lbr => match self.lbr.wrmsr(name, value) {
                Ok(()) => Ok(()),
                Err(fault) if fault.reason == vlbr_lbr::GpReason::NoSuchMsr => self.missing(()),
                Err(_) => Err(Ends::Gp),
            },
            Owner::Pmu => {
                let mut around = Around {
                    lbr: &mut self.lbr,
                    store: &mut self.store,
                };
                match self.pmu.wrmsr(name, value, &mut around) {
                    Ok(()) => Ok(()),
                    Err(PmuError::Gp(fault)) if fault.reason == vlbr_pmu::GpReason::NoSuchMsr => {
                        self.missing(())
                    }
                    Err(PmuError::Gp(_)) => Err(Ends::Gp),
                    Err(PmuError::Refused { .. }) => Err(Ends::Refused),
                }
            }
            Owner::Vmx => Err(Ends::Gp),
            Owner::Apic if self.x2apic => {
                if value & !LVT != 0 {
                    return Err(Ends::Gp);
                }
                self.pmu.set_lvtpc(LvtPc::from_bits(value as u32));
                Ok(())
            }
            Owner::Other => self.write_other(msr, value),
            Owner::Apic | Owner::Nobody => self.missing(()),
        }
    }

    fn write_other(&mut self, msr: u32, value: u64) -> Result<(), Ends> {
        let Some(old) = self.others.get(&msr).copied() else {
            return self.missing(());
        };
        match msr {
            MISC_ENABLE if value & TELLING != old & TELLING => return Err(Ends::Gp),
            RTIT_CTL if value > 1 => return Err(Ends::Refused),
            RTIT_CTL => self.lbr.set_trace_en(value == 1),
            XSS if value & !(1 << 15) != 0 => return Err(Ends::Gp),
            _ => {}
        }
        self.others.insert(msr, value);
        Ok(())
    }

    /// Whether a value has no bit that WRMSR refuses; 0 has none, even where there is no register.
    pub(crate) fn keeps_reserved_bits(&self, msr: u32, value: u64) -> bool {
        let mut tried = self.clone();
        tried.ignores = false;
        value == 0 || tried.write(msr, value) != Err(Ends::Gp)
    }

    pub(crate) fn transfer(&mut self, transfer: &Transfer) -> u64 {
        let before = self.lbr.lbr_inserts().unwrap_or(0);
        self.lbr.retire(transfer, Cycles::new(self.clock));
        let after = self.lbr.lbr_inserts().unwrap_or(0);
        after.wrapping_sub(before)
    }

    pub(crate) fn retire(&mut self, run: &Increments) -> Outcome {
        let mut around = Around {
            lbr: &mut self.lbr,
            store: &mut self.store,
        };
        self.pmu.retire(run, &mut around)
    }
}

/// The processor under test with its capability MSRs, which VMX has.
#[derive(Clone, Debug)]
pub(crate) struct FastMsrs {
    pub(crate) cpu: LogicalProcessor,
    pub(crate) vmx: VmxProfile,
    pub(crate) store: Store,
    pub(crate) clock: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}")]
pub(crate) struct Fault(pub(crate) Ends);

impl From<MsrFault> for Fault {
    fn from(fault: MsrFault) -> Self {
        Self(if fault.is_gp() {
            Ends::Gp
        } else {
            Ends::Refused
        })
    }
}

impl FastMsrs {
    /// A transfer of which the counters hear later: what the LBR counted as inserted.
    pub(crate) fn transfer(&mut self, transfer: &Transfer) -> u64 {
        let before = self.cpu.lbr().lbr_inserts().unwrap_or(0);
        self.cpu.lbr_mut().retire(transfer, Cycles::new(self.clock));
        let after = self.cpu.lbr().lbr_inserts().unwrap_or(0);
        after.wrapping_sub(before)
    }

    pub(crate) fn retire(&mut self, run: &Increments, transfer: Option<&Transfer>) -> Outcome {
        let boundary = Boundary {
            run,
            transfer,
            now: Cycles::new(self.clock),
        };
        self.cpu.retire(boundary, &mut self.store).counted
    }
}

const CAPABILITIES: core::ops::RangeInclusive<u32> = 0x480..=0x493;

impl MsrAccess for FastMsrs {
    type Fault = Fault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Fault> {
        if CAPABILITIES.contains(&msr.value()) {
            return self.vmx.msr(msr).ok_or(Fault(Ends::Gp));
        }
        Ok(self.cpu.rdmsr(msr)?)
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), Fault> {
        if CAPABILITIES.contains(&msr.value()) {
            return Err(Fault(Ends::Gp));
        }
        Ok(self.cpu.wrmsr(msr, value)?)
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.cpu.reserved_bits(msr)
    }
}
