//! VMX: fields and controls of the VMCS, exit reasons, layouts.
//!
//! SDM volume 3, "Virtual Machine Control Structures", "VM Entries", "VM Exits", and the appendices
//! on capability reporting, field encoding and basic exit reasons.

mod area;
mod capability;
mod controls;
mod exit_reason;
mod field;
mod instruction_error;
mod interruption;

pub use area::{MSR_AREA_ENTRY_SIZE, MsrArea, VmxAbort};
pub use capability::{VmxBasic, VmxMisc};
pub use controls::{EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls};
pub use exit_reason::ExitReason;
pub use field::{FieldKind, FieldWidth, UnknownField, VmcsField};
pub use instruction_error::VmInstructionError;
pub use interruption::{Interruptibility, InterruptionInfo, InterruptionType, PendingDebug};
