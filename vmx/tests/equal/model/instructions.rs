//! VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST, VMREAD, VMWRITE. SDM volume 3, "VMX Instruction
//! Reference", operation of each.

use vlbr_arch::vmx::VmcsField;
use vlbr_cpu::ledger::{Actor, Event as Row};

use super::{Mode, Slow};
use crate::ends::Ends;

impl Slow {
    /// Root operation, which every VMX instruction but VMXON needs.
    fn in_root(&self) -> Result<(), Ends> {
        match self.mode {
            Mode::Off => Err(Ends::Undefined),
            Mode::NonRoot => Err(Ends::WouldExit),
            Mode::Shutdown => Err(Ends::ShutDown),
            Mode::Root => Ok(()),
        }
    }

    /// `VMfail(n)`.
    pub(super) fn vmfail(&mut self, number: u32) -> Ends {
        if self.current.is_none() {
            return Ends::FailInvalid;
        }
        self.put(VmcsField::VM_INSTRUCTION_ERROR, number.into());
        Ends::FailValid(number)
    }

    pub(super) fn address_bits(&self) -> u32 {
        match self.capabilities.basic() >> 48 & 1 {
            1 => 32,
            _ => self.choices.physical_address_bits,
        }
    }

    pub(super) fn page_address(&self, at: u64) -> bool {
        at & 0xfff == 0 && at < 1 << self.address_bits()
    }

    pub(crate) fn vmxon(&mut self, at: u64) -> Ends {
        match self.mode {
            Mode::NonRoot => return Ends::WouldExit,
            Mode::Shutdown => return Ends::ShutDown,
            Mode::Root => return self.vmfail(15),
            Mode::Off => {}
        }
        if !self.page_address(at) {
            return Ends::FailInvalid;
        }
        if self.ram.word(at, 4) != self.capabilities.revision() {
            return Ends::FailInvalid;
        }
        self.mode = Mode::Root;
        self.vmxon_pointer = at;
        self.current = None;
        Ends::Done
    }

    pub(crate) fn vmxoff(&mut self) -> Ends {
        if let Err(ends) = self.in_root() {
            return ends;
        }
        self.mode = Mode::Off;
        self.current = None;
        Ends::Done
    }

    pub(crate) fn vmclear(&mut self, at: u64) -> Ends {
        if let Err(ends) = self.in_root() {
            return ends;
        }
        if !self.page_address(at) {
            return self.vmfail(2);
        }
        if at == self.vmxon_pointer {
            return self.vmfail(3);
        }
        if let Some(region) = self.regions.get_mut(&at) {
            region.launched = false;
        }
        if self.current == Some(at) {
            self.current = None;
        }
        Ends::Done
    }

    pub(crate) fn vmptrld(&mut self, at: u64) -> Ends {
        if let Err(ends) = self.in_root() {
            return ends;
        }
        if !self.page_address(at) {
            return self.vmfail(9);
        }
        if at == self.vmxon_pointer {
            return self.vmfail(10);
        }
        if self.ram.word(at, 4) != self.capabilities.revision() {
            return self.vmfail(11);
        }
        self.regions.entry(at).or_default();
        self.current = Some(at);
        Ends::Done
    }

    pub(crate) fn vmptrst(&self) -> Ends {
        match self.in_root() {
            Err(ends) => ends,
            Ok(()) => Ends::Value(self.current.unwrap_or(0xffff_ffff_ffff_ffff)),
        }
    }

    pub(crate) fn vmread(&mut self, actor: Actor, field: VmcsField, wide: bool) -> Ends {
        if let Err(ends) = self.in_root() {
            return ends;
        }
        if self.current.is_none() {
            return Ends::FailInvalid;
        }
        let encoding = field.encoding();
        if !self.capabilities.has_field(encoding) {
            return self.vmfail(12);
        }
        let whole = self.field(VmcsField::new(encoding & !1));
        let value = if encoding & 1 == 1 {
            whole >> 32
        } else {
            whole
        };
        self.count(actor, Row::Vmread(field));
        Ends::Value(if wide { value } else { value & 0xffff_ffff })
    }

    pub(crate) fn vmwrite(
        &mut self,
        actor: Actor,
        field: VmcsField,
        value: u64,
        wide: bool,
    ) -> Ends {
        if let Err(ends) = self.in_root() {
            return ends;
        }
        if self.current.is_none() {
            return Ends::FailInvalid;
        }
        let encoding = field.encoding();
        if !self.capabilities.has_field(encoding) {
            return self.vmfail(12);
        }
        let information = encoding >> 10 & 3 == 1;
        if information && self.capabilities.misc() >> 29 & 1 == 0 {
            return self.vmfail(13);
        }
        let value = if wide { value } else { value & 0xffff_ffff };
        let full = VmcsField::new(encoding & !1);
        if encoding & 1 == 1 {
            let low = self.field(full) & 0xffff_ffff;
            self.put(full, low | (value & 0xffff_ffff) << 32);
        } else {
            self.put(full, value);
        }
        self.count(actor, Row::Vmwrite(field));
        Ends::Done
    }
}
