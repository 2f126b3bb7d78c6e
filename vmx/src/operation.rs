//! VMXON to VMXOFF, and the instructions on VMCS pointers and fields.

use core::hash::{Hash, Hasher};
use std::collections::BTreeMap;

use vlbr_arch::vmx::{FieldKind, VmInstructionError, VmcsField};

use crate::error::{Fail, FailReason};
use crate::{LaunchState, Options, PhysicalMemory, PreemptionTimer, Vmcs, VmxProfile};

/// In which kind of operation the processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Outside VMX operation.
    Off,
    /// Root operation.
    Root,
    /// Non-root operation: a guest runs.
    NonRoot,
    /// Shut down by a VMX abort.
    Shutdown,
}

/// Operand size of VMREAD and VMWRITE: 64 bits in 64-bit mode, else 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperandSize {
    /// Outside 64-bit mode.
    Bits32,
    /// In 64-bit mode.
    Bits64,
}

impl OperandSize {
    const fn mask(self) -> u64 {
        match self {
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }
}

/// The VMX side of a logical processor.
///
/// The data of a VMCS is kept here under its physical address, as processors keep it in a cache; of
/// the region in memory only the header is used: revision identifier and VMX-abort indicator.
#[derive(Clone, Debug)]
pub struct Vmx {
    pub(crate) profile: VmxProfile,
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) smm: bool,
    vmxon: u64,
    current: Option<u64>,
    regions: BTreeMap<u64, Vmcs>,
    pub(crate) timer: Option<PreemptionTimer>,
}

impl PartialEq for Vmx {
    /// Equal if made alike and no later operation can tell them apart.
    fn eq(&self, other: &Self) -> bool {
        (self.state, self.smm, self.vmxon, self.current)
            == (other.state, other.smm, other.vmxon, other.current)
            && self.timer == other.timer
            && self.regions == other.regions
            && self.options == other.options
            && self.profile == other.profile
    }
}

impl Eq for Vmx {}

impl Hash for Vmx {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.state, self.smm, self.vmxon, self.current).hash(state);
        self.timer.hash(state);
        self.regions.hash(state);
    }
}

impl Vmx {
    /// A processor outside VMX operation.
    #[must_use]
    pub fn new(profile: &VmxProfile, options: Options) -> Self {
        Self {
            profile: profile.clone(),
            options,
            state: State::Off,
            smm: false,
            vmxon: 0,
            current: None,
            regions: BTreeMap::new(),
            timer: None,
        }
    }

    /// Its capabilities.
    #[must_use]
    pub const fn profile(&self) -> &VmxProfile {
        &self.profile
    }

    /// Kind of operation.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the processor is in SMM, where other MSRs may stand in the areas.
    pub const fn set_smm(&mut self, smm: bool) {
        self.smm = smm;
    }

    /// The current VMCS.
    #[must_use]
    pub fn vmcs(&self) -> Option<&Vmcs> {
        self.regions.get(&self.current?)
    }

    /// The data of the VMCS at this address, current or not.
    #[must_use]
    pub fn region(&self, at: u64) -> Option<&Vmcs> {
        self.regions.get(&at)
    }

    pub(crate) fn vmcs_mut(&mut self) -> Option<&mut Vmcs> {
        self.regions.get_mut(&self.current?)
    }

    pub(crate) const fn current(&self) -> Option<u64> {
        self.current
    }

    pub(crate) fn root(&self) -> Result<(), Fail> {
        match self.state {
            State::Off => Err(Fail::NotInVmx),
            State::Root => Ok(()),
            State::NonRoot => Err(Fail::NonRoot),
            State::Shutdown => Err(Fail::Shutdown),
        }
    }

    pub(crate) fn non_root(&self) -> Result<&Vmcs, Fail> {
        match (self.state, self.vmcs()) {
            (State::NonRoot, Some(vmcs)) => Ok(vmcs),
            (State::Shutdown, _) => Err(Fail::Shutdown),
            _ => Err(Fail::NotNonRoot),
        }
    }

    /// `VMfail`: with the number in the current VMCS, or without one.
    pub(crate) fn fail(&mut self, error: VmInstructionError, reason: FailReason) -> Fail {
        match self.vmcs_mut() {
            Some(vmcs) => {
                vmcs.set(VmcsField::VM_INSTRUCTION_ERROR, error.number().into());
                Fail::Valid { error, reason }
            }
            None => Fail::Invalid(reason),
        }
    }

    /// Width of the physical addresses that VMX structures may have.
    pub(crate) fn address_bits(&self) -> u8 {
        if self.profile.basic().addresses_of_32_bits() {
            32
        } else {
            self.options.physical_address_bits
        }
    }

    fn is_page(&self, at: u64) -> bool {
        at & 0xfff == 0 && at >> self.address_bits() == 0
    }

    fn check_revision(
        &self,
        memory: &(impl PhysicalMemory + ?Sized),
        at: u64,
    ) -> Result<(), FailReason> {
        let expected = self.profile.basic().revision();
        let mut word = [0; 4];
        memory.read(at, &mut word);
        let found = u32::from_le_bytes(word);
        if found == expected {
            Ok(())
        } else {
            Err(FailReason::Revision {
                at,
                found,
                expected,
            })
        }
    }

    /// VMXON.
    ///
    /// # Errors
    /// VMfailInvalid for a bad pointer or revision; in root operation VMfail 15.
    pub fn vmxon(&mut self, memory: &(impl PhysicalMemory + ?Sized), at: u64) -> Result<(), Fail> {
        match self.state {
            State::Off => {}
            State::Root => {
                return Err(self.fail(VmInstructionError::VMXON_IN_ROOT, FailReason::Plain));
            }
            State::NonRoot => return Err(Fail::NonRoot),
            State::Shutdown => return Err(Fail::Shutdown),
        }
        if !self.is_page(at) {
            return Err(Fail::Invalid(FailReason::Address(at)));
        }
        self.check_revision(memory, at).map_err(Fail::Invalid)?;
        self.state = State::Root;
        self.vmxon = at;
        self.current = None;
        Ok(())
    }

    /// VMXOFF.
    ///
    /// # Errors
    /// Not in root operation.
    pub fn vmxoff(&mut self) -> Result<(), Fail> {
        self.root()?;
        self.state = State::Off;
        self.current = None;
        Ok(())
    }

    /// VMCLEAR: the VMCS becomes clear, and no longer current if it was.
    ///
    /// # Errors
    /// VMfail 2 and 3.
    pub fn vmclear(&mut self, at: u64) -> Result<(), Fail> {
        self.root()?;
        if !self.is_page(at) {
            return Err(self.fail(VmInstructionError::VMCLEAR_ADDRESS, FailReason::Address(at)));
        }
        if at == self.vmxon {
            let error = VmInstructionError::VMCLEAR_VMXON_POINTER;
            return Err(self.fail(error, FailReason::Plain));
        }
        if let Some(vmcs) = self.regions.get_mut(&at) {
            vmcs.launch = LaunchState::Clear;
        }
        if self.current == Some(at) {
            self.current = None;
        }
        Ok(())
    }

    /// VMPTRLD: the VMCS at this address becomes current.
    ///
    /// # Errors
    /// VMfail 9, 10 and 11.
    pub fn vmptrld(
        &mut self,
        memory: &(impl PhysicalMemory + ?Sized),
        at: u64,
    ) -> Result<(), Fail> {
        self.root()?;
        if !self.is_page(at) {
            return Err(self.fail(VmInstructionError::VMPTRLD_ADDRESS, FailReason::Address(at)));
        }
        if at == self.vmxon {
            let error = VmInstructionError::VMPTRLD_VMXON_POINTER;
            return Err(self.fail(error, FailReason::Plain));
        }
        if let Err(reason) = self.check_revision(memory, at) {
            return Err(self.fail(VmInstructionError::VMPTRLD_REVISION, reason));
        }
        let revision = self.profile.basic().revision();
        self.regions
            .entry(at)
            .or_insert_with(|| Vmcs::new(revision));
        self.current = Some(at);
        Ok(())
    }

    /// The data of the VMCS at this address leaves the processor, as VMCLEAR writes it to memory:
    /// another processor may [`Vmx::adopt`] it. It is no longer current then.
    ///
    /// # Errors
    /// Not in root operation.
    pub fn surrender(&mut self, at: u64) -> Result<Option<Vmcs>, Fail> {
        self.root()?;
        if self.current == Some(at) {
            self.current = None;
        }
        Ok(self.regions.remove(&at).map(|mut vmcs| {
            vmcs.launch = LaunchState::Clear;
            vmcs
        }))
    }

    /// The data of the VMCS at this address is read from memory, as the first VMPTRLD does.
    ///
    /// # Errors
    /// Not in root operation.
    pub fn adopt(&mut self, at: u64, vmcs: Vmcs) -> Result<(), Fail> {
        self.root()?;
        self.regions.insert(at, vmcs);
        Ok(())
    }

    /// VMPTRST: address of the current VMCS, all ones without one.
    ///
    /// # Errors
    /// Not in root operation.
    pub fn vmptrst(&self) -> Result<u64, Fail> {
        self.root()?;
        Ok(self.current.unwrap_or(u64::MAX))
    }

    fn accessible(&mut self, field: VmcsField) -> Result<(), Fail> {
        self.root()?;
        if self.current.is_none() {
            return Err(Fail::Invalid(FailReason::Plain));
        }
        if self.profile.has_field(field) {
            return Ok(());
        }
        let error = VmInstructionError::UNSUPPORTED_COMPONENT;
        Err(self.fail(error, FailReason::Field(field)))
    }

    /// VMREAD. A field shorter than the operand is extended with zeros; of a longer one the low
    /// bits are read.
    ///
    /// # Errors
    /// VMfailInvalid without a current VMCS, VMfail 12 for a field that does not exist.
    pub fn vmread(&mut self, field: VmcsField, size: OperandSize) -> Result<u64, Fail> {
        self.accessible(field)?;
        let value = self.vmcs().map_or(0, |vmcs| vmcs.field(field));
        Ok(value & size.mask())
    }

    /// VMWRITE. Of an operand longer than the field the low bits are written; a longer field gets
    /// zeros above.
    ///
    /// # Errors
    /// VMfailInvalid without a current VMCS, VMfail 12 for a field that does not exist, 13 for
    /// exit information where the processor has it read only.
    pub fn vmwrite(&mut self, field: VmcsField, value: u64, size: OperandSize) -> Result<(), Fail> {
        self.accessible(field)?;
        if field.kind() == FieldKind::ExitInformation && !self.profile.misc().vmwrite_any_field() {
            let error = VmInstructionError::READ_ONLY_COMPONENT;
            return Err(self.fail(error, FailReason::ReadOnly(field)));
        }
        if let Some(vmcs) = self.vmcs_mut() {
            vmcs.set(field, value & size.mask());
        }
        Ok(())
    }
}
