//! The virtual-machine control structure.

use core::fmt;

use vlbr_arch::vmx::{
    EntryControls, ExitControls, InterruptionInfo, PinControls, PrimaryControls, SecondaryControls,
    VmcsField,
};

/// Launch state. SDM volume 3, "VMCS State".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LaunchState {
    /// After VMCLEAR; VMLAUNCH needs it.
    #[default]
    Clear,
    /// After VMLAUNCH; VMRESUME needs it.
    Launched,
}

impl fmt::Display for LaunchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "clear",
            Self::Launched => "launched",
        })
    }
}

/// Place of an encoding in [`POSITIONS`]: width, kind and the low seven bits of the index. SDM volume
/// 3, "Structure of VMCS Component Encoding".
const fn slot(field: VmcsField) -> Option<usize> {
    let encoding = field.encoding() as usize;
    let (index, kind, width) = (encoding >> 1 & 0x1ff, encoding >> 10 & 3, encoding >> 13);
    if index < 128 && width < 4 {
        Some(width << 9 | kind << 7 | index)
    } else {
        None
    }
}

/// How many fields there are.
const FIELDS: usize = VmcsField::NAMED.len();

/// Positions in [`VmcsField::NAMED`] by [`slot`]; beyond its end where there is no field.
static POSITIONS: [u16; 2048] = {
    let mut positions = [u16::MAX; 2048];
    let mut at = 0;
    while at < VmcsField::NAMED.len() {
        match slot(VmcsField::NAMED[at].0) {
            Some(slot) => positions[slot] = at as u16,
            None => panic!("a field beyond the table"),
        }
        at += 1;
    }
    positions
};

/// A VMCS: its fields, launch state and revision identifier.
///
/// This is the structure itself. What VMREAD and VMWRITE may do with it is [`crate::Vmx`]'s
/// business.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Vmcs {
    pub(crate) revision: u32,
    pub(crate) launch: LaunchState,
    /// By position in [`VmcsField::NAMED`].
    values: Box<[u64; FIELDS]>,
}

impl Vmcs {
    /// A clear VMCS whose fields are 0.
    #[must_use]
    pub fn new(revision: u32) -> Self {
        Self {
            revision,
            launch: LaunchState::Clear,
            values: Box::new([0; FIELDS]),
        }
    }

    /// Bits 30:0 of its first word.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// Launch state.
    #[must_use]
    pub const fn launch_state(&self) -> LaunchState {
        self.launch
    }

    #[inline]
    fn position(field: VmcsField) -> Option<usize> {
        let field = field.full();
        let position = usize::from(*POSITIONS.get(slot(field)?)?);
        // The table has no room for reserved bits: they are compared here.
        (VmcsField::NAMED.get(position)?.0 == field).then_some(position)
    }

    /// Whether a field has this encoding, on some processor.
    pub(crate) fn has(field: VmcsField) -> bool {
        Self::position(field).is_some()
    }

    /// The value of a field: of the upper half, if the encoding is of access type "high"; `None` if
    /// no field has this encoding.
    #[must_use]
    #[inline]
    pub fn get(&self, field: VmcsField) -> Option<u64> {
        let whole = *self.values.get(Self::position(field)?)?;
        Some(if field.is_high() { whole >> 32 } else { whole })
    }

    /// Sets a field, dropping bits beyond its width; of access type "high", its upper half.
    /// Returns whether there is such a field.
    #[inline]
    pub fn set(&mut self, field: VmcsField, value: u64) -> bool {
        let Some(slot) = Self::position(field).and_then(|at| self.values.get_mut(at)) else {
            return false;
        };
        *slot = if field.is_high() {
            *slot & 0xffff_ffff | value << 32
        } else {
            value & field.width().mask()
        };
        true
    }

    /// As [`Self::get`] for the named fields, which all exist.
    #[inline]
    pub(crate) fn field(&self, field: VmcsField) -> u64 {
        self.get(field).unwrap_or(0)
    }

    #[inline]
    pub(crate) fn field32(&self, field: VmcsField) -> u32 {
        self.field(field) as u32
    }

    /// Pin-based controls.
    #[must_use]
    pub fn pin_controls(&self) -> PinControls {
        PinControls::from_bits(self.field32(VmcsField::PIN_BASED_VM_EXEC_CONTROL))
    }

    /// Primary processor-based controls.
    #[must_use]
    pub fn primary_controls(&self) -> PrimaryControls {
        PrimaryControls::from_bits(self.field32(VmcsField::CPU_BASED_VM_EXEC_CONTROL))
    }

    /// Secondary processor-based controls as they act: 0 unless they are activated.
    #[must_use]
    pub fn secondary_controls(&self) -> SecondaryControls {
        let active = self
            .primary_controls()
            .contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
        SecondaryControls::from_bits(if active {
            self.field32(VmcsField::SECONDARY_VM_EXEC_CONTROL)
        } else {
            0
        })
    }

    /// VM-exit controls.
    #[must_use]
    pub fn exit_controls(&self) -> ExitControls {
        ExitControls::from_bits(self.field32(VmcsField::VM_EXIT_CONTROLS))
    }

    /// VM-entry controls.
    #[must_use]
    pub fn entry_controls(&self) -> EntryControls {
        EntryControls::from_bits(self.field32(VmcsField::VM_ENTRY_CONTROLS))
    }

    /// The event to be injected.
    #[must_use]
    pub fn entry_interruption(&self) -> InterruptionInfo {
        InterruptionInfo::from_bits(self.field32(VmcsField::VM_ENTRY_INTR_INFO_FIELD))
    }

    /// Every field that is not 0, by encoding.
    pub fn fields(&self) -> impl Iterator<Item = (VmcsField, u64)> + '_ {
        VmcsField::NAMED
            .iter()
            .zip(&*self.values)
            .map(|((field, ..), &value)| (*field, value))
            .filter(|&(_, value)| value != 0)
    }
}

impl fmt::Debug for Vmcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmcs")
            .field("revision", &self.revision)
            .field("launch", &self.launch)
            .field("fields", &self.fields().collect::<Vec<_>>())
            .finish()
    }
}
