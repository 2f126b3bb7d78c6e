//! VMX once more, slow and literal.
//!
//! The rules stand in the order in which the SDM lists them, on numbers: a VMCS is a map from
//! encoding to value, controls are tested by bit position, capabilities are the values of the
//! capability MSRs as the profile's file gives them, the preemption timer is decremented. Of the
//! code under test nothing is called; names of MSRs, fields and events come from `vlbr-arch`, names
//! of rows from the ledger, which is kept here as a map of its own.

mod capabilities;
mod checks;
mod entry;
mod exit;
mod guest;
mod instructions;

use std::collections::{BTreeMap, BTreeSet};

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};
use vlbr_cpu::ledger::{Actor, Event as Row};

use crate::ends::Ends;
use crate::msrs::SlowMsrs;
use crate::ram::Ram;
pub(crate) use capabilities::{Capabilities, VECTORS};
pub(crate) use guest::Access;

/// Kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Off,
    Root,
    NonRoot,
    Shutdown,
}

/// What the capability MSRs do not tell.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) physical_address_bits: u32,
    /// An area beyond the recommended length is a machine check.
    pub(crate) long_area_checks: bool,
    pub(crate) banned: BTreeSet<u32>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Region {
    pub(crate) launched: bool,
    /// Fields that are not 0, by encoding of full access type.
    pub(crate) fields: BTreeMap<u32, u64>,
}

/// Registers that entry and exit switch beside MSRs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gprs {
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) rflags: u64,
    pub(crate) dr7: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Slow {
    pub(crate) capabilities: Capabilities,
    pub(crate) choices: Choices,
    pub(crate) mode: Mode,
    pub(crate) in_smm: bool,
    pub(crate) vmxon_pointer: u64,
    pub(crate) current: Option<u64>,
    pub(crate) regions: BTreeMap<u64, Region>,
    /// What the preemption timer reads, while it runs.
    pub(crate) timer: Option<u32>,
    pub(crate) tsc: u64,
    pub(crate) gprs: Gprs,
    pub(crate) ram: Ram,
    pub(crate) msrs: SlowMsrs,
    pub(crate) rows: BTreeMap<(Actor, Row), u64>,
}

impl Slow {
    pub(crate) fn new(capabilities: Capabilities, choices: Choices, msrs: SlowMsrs) -> Self {
        Self {
            capabilities,
            choices,
            mode: Mode::Off,
            in_smm: false,
            vmxon_pointer: 0,
            current: None,
            regions: BTreeMap::new(),
            timer: None,
            tsc: 0,
            gprs: Gprs::default(),
            ram: Ram::default(),
            msrs,
            rows: BTreeMap::new(),
        }
    }

    /// Power off and on: VMX operation ends, every VMCS is gone.
    pub(crate) fn power(&mut self) {
        self.mode = Mode::Off;
        self.in_smm = false;
        self.current = None;
        self.regions.clear();
        self.timer = None;
    }

    fn count(&mut self, actor: Actor, row: Row) {
        *self.rows.entry((actor, row)).or_insert(0) += 1;
    }

    fn hardware(&mut self, row: Row) {
        self.count(Actor::Hardware, row);
    }

    /// RDMSR by the host.
    pub(crate) fn rdmsr(&mut self, actor: Actor, msr: u32) -> Result<u64, Ends> {
        let name = Msr::new(msr);
        let done = self.msrs.read(msr);
        let row = if done.is_ok() {
            Row::Rdmsr(name)
        } else {
            Row::RdmsrFault(name)
        };
        self.count(actor, row);
        done
    }

    /// WRMSR by the host.
    pub(crate) fn wrmsr(&mut self, actor: Actor, msr: u32, value: u64) -> Result<(), Ends> {
        let name = Msr::new(msr);
        let done = self.msrs.write(msr, value);
        let row = if done.is_ok() {
            Row::Wrmsr(name)
        } else {
            Row::WrmsrFault(name)
        };
        self.count(actor, row);
        done
    }

    /// Time passes: the preemption timer loses 1 whenever the bit of the TSC that
    /// `IA32_VMX_MISC[4:0]` names changes.
    pub(crate) fn pass(&mut self, clocks: u64) {
        let period = 1u64 << (self.capabilities.misc() & 0x1f);
        let end = self.tsc + clocks;
        let mut change = (self.tsc / period + 1) * period;
        while change <= end {
            match &mut self.timer {
                None | Some(0) => break,
                Some(left) => *left -= 1,
            }
            change += period;
        }
        self.tsc = end;
    }

    /// A field of the current VMCS; 0 without one.
    pub(crate) fn field(&self, field: VmcsField) -> u64 {
        let region = self.current.and_then(|at| self.regions.get(&at));
        let value = region.and_then(|region| region.fields.get(&field.encoding()));
        value.copied().unwrap_or(0)
    }

    /// One bit of a field.
    pub(crate) fn bit(&self, field: VmcsField, bit: u32) -> bool {
        self.field(field) >> bit & 1 == 1
    }

    /// The processor writes a field of the current VMCS, as wide as the field is.
    pub(crate) fn put(&mut self, field: VmcsField, value: u64) {
        let value = match field.encoding() >> 13 {
            0 => value & 0xffff,
            2 => value & 0xffff_ffff,
            _ => value,
        };
        let Some(region) = self.current.and_then(|at| self.regions.get_mut(&at)) else {
            return;
        };
        if value == 0 {
            region.fields.remove(&field.encoding());
        } else {
            region.fields.insert(field.encoding(), value);
        }
    }

    /// Entries of an area in order, until one fails: its number from 1 on, 0 for the area itself.
    fn area(&mut self, area: MsrArea) -> Result<(), u64> {
        let (address, count) = match area {
            MsrArea::EntryLoad => (0x200a, 0x4014),
            MsrArea::ExitStore => (0x2006, 0x400e),
            MsrArea::ExitLoad => (0x2008, 0x4010),
        };
        let address = self.field(VmcsField::new(address));
        let count = self.field(VmcsField::new(count));
        if count == 0 {
            return Ok(());
        }
        let recommended = 512 * ((self.capabilities.misc() >> 25 & 7) + 1);
        if count > recommended && self.choices.long_area_checks {
            return Err(0);
        }
        self.hardware(Row::Area(area));
        for n in 1..=count {
            let at = address + 16 * (n - 1);
            let index = self.ram.word(at, 4) as u32;
            let reserved = self.ram.word(at + 4, 4);
            let data = self.ram.word(at + 8, 8);
            let loads = area != MsrArea::ExitStore;
            let base = index == 0xc000_0100 || index == 0xc000_0101;
            if loads && base {
                return Err(n);
            }
            if (0x800..=0x8ff).contains(&index) {
                return Err(n);
            }
            // Written in SMM only; read in SMM only.
            let smm_only = if loads { 0x9b } else { 0x9e };
            if index == smm_only && !self.in_smm {
                return Err(n);
            }
            if self.choices.banned.contains(&index) {
                return Err(n);
            }
            if reserved != 0 {
                return Err(n);
            }
            if loads {
                self.msrs.write(index, data).map_err(|_| n)?;
            } else {
                let value = self.msrs.read(index).map_err(|_| n)?;
                self.ram.set_word(at + 8, value, 8);
            }
            self.hardware(Row::Transfer(area, Msr::new(index)));
        }
        Ok(())
    }
}

/// The number of a basic exit reason.
const fn reason(reason: ExitReason) -> u32 {
    reason.value()
}
