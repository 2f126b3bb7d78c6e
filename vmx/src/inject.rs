//! Event injection.

use vlbr_arch::FarKind;
use vlbr_arch::vmx::{InterruptionInfo, InterruptionType, VmcsField};

use crate::{Vmcs, VmxProfile};

/// An event that VM entry delivers before the guest's first instruction.
///
/// With `IA32_DEBUGCTL.LBR` (or `IA32_LBR_CTL.LBREn`) of the guest it is recorded like any other
/// event, FROM being the guest's RIP; even a `#DB`, which does not switch recording off either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injected {
    /// Vector, type and flags.
    pub info: InterruptionInfo,
    /// Error code, if one is pushed.
    pub error_code: Option<u32>,
    /// Length of the instruction, of software events; RIP is advanced by it before it is pushed.
    pub instruction_length: Option<u32>,
}

impl Injected {
    /// What the LBR sees of it; `None` for a pending MTF exit, which delivers nothing.
    #[must_use]
    pub const fn far_kind(&self) -> Option<FarKind> {
        Some(match self.info.kind() {
            InterruptionType::External | InterruptionType::Nmi => FarKind::Interrupt,
            InterruptionType::HardwareException | InterruptionType::PrivilegedSoftwareException => {
                FarKind::Exception
            }
            InterruptionType::SoftwareInterrupt | InterruptionType::SoftwareException => {
                FarKind::SoftwareInterrupt
            }
            InterruptionType::Reserved | InterruptionType::Other => return None,
        })
    }
}

/// Why an event cannot be injected. SDM volume 3, "VM-Entry Control Fields".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectionFault {
    /// Type 1.
    #[error("injection: interruption type 1 is reserved")]
    ReservedType,
    /// Type 7 on a processor without monitor trap flag.
    #[error("injection: type 7 needs the monitor trap flag")]
    OtherEvent,
    /// The vector does not fit the type.
    #[error("injection: vector {vector} does not fit {kind:?}")]
    Vector {
        /// The vector.
        vector: u8,
        /// The type.
        kind: InterruptionType,
    },
    /// "Deliver error code" is wrong for the event.
    #[error("injection: \"deliver error code\" is {0} and should not be")]
    ErrorCodeFlag(bool),
    /// Bits 30:12 are set.
    #[error("injection: reserved bits {0:#x} are set")]
    Reserved(u32),
    /// The error code has bits above 14.
    #[error("injection: the error code {0:#x} has bits above 14")]
    ErrorCode(u32),
    /// The length of the instruction is impossible.
    #[error("injection: no instruction has {0} bytes")]
    InstructionLength(u32),
}

/// Exceptions that push an error code.
const WITH_ERROR_CODE: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

/// What the VMCS asks to inject, checked.
pub(crate) fn injected(
    vmcs: &Vmcs,
    profile: &VmxProfile,
    protected_mode: bool,
) -> Result<Option<Injected>, InjectionFault> {
    let info = vmcs.entry_interruption();
    if !info.is_valid() {
        return Ok(None);
    }
    let (kind, vector) = (info.kind(), info.vector());
    let monitor_trap_flag = vlbr_arch::vmx::PrimaryControls::MONITOR_TRAP_FLAG.bits();
    match kind {
        InterruptionType::Reserved => return Err(InjectionFault::ReservedType),
        InterruptionType::Other if profile.primary().excess(monitor_trap_flag) != 0 => {
            return Err(InjectionFault::OtherEvent);
        }
        _ => {}
    }
    let fits = match kind {
        InterruptionType::Nmi => vector == 2,
        InterruptionType::HardwareException => vector <= 31,
        InterruptionType::Other => vector == 0,
        _ => true,
    };
    if !fits {
        return Err(InjectionFault::Vector { vector, kind });
    }
    let may_push = kind == InterruptionType::HardwareException && protected_mode;
    let pushes = if may_push && profile.basic().injects_any_error_code() {
        info.has_error_code()
    } else {
        may_push && WITH_ERROR_CODE.contains(&vector)
    };
    if info.has_error_code() != pushes {
        return Err(InjectionFault::ErrorCodeFlag(info.has_error_code()));
    }
    if info.reserved_for_entry() != 0 {
        return Err(InjectionFault::Reserved(info.reserved_for_entry()));
    }
    let error_code = pushes.then(|| vmcs.field32(VmcsField::VM_ENTRY_EXCEPTION_ERROR_CODE));
    if let Some(code) = error_code.filter(|code| code >> 15 != 0) {
        return Err(InjectionFault::ErrorCode(code));
    }
    let instruction_length = kind
        .is_software()
        .then(|| vmcs.field32(VmcsField::VM_ENTRY_INSTRUCTION_LEN));
    if let Some(length) = instruction_length {
        let shortest = if profile.misc().injects_zero_length() {
            0
        } else {
            1
        };
        if !(shortest..=15).contains(&length) {
            return Err(InjectionFault::InstructionLength(length));
        }
    }
    Ok(Some(Injected {
        info,
        error_code,
        instruction_length,
    }))
}
