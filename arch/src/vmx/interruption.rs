//! Interruption information, interruptibility, pending debug exceptions.

use core::fmt;

use crate::bits::register_bits;

/// Type of an event, bits 10:8 of interruption information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InterruptionType {
    /// External interrupt.
    External = 0,
    /// Reserved.
    Reserved = 1,
    /// NMI.
    Nmi = 2,
    /// Exception raised by hardware.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 or INTO.
    SoftwareException = 6,
    /// Anything else; injected with vector 0: a pending MTF exit.
    Other = 7,
}

impl InterruptionType {
    const ALL: [Self; 8] = [
        Self::External,
        Self::Reserved,
        Self::Nmi,
        Self::HardwareException,
        Self::SoftwareInterrupt,
        Self::PrivilegedSoftwareException,
        Self::SoftwareException,
        Self::Other,
    ];

    /// Whether the event comes from an instruction, whose length is then told.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self,
            Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException
        )
    }
}

/// Interruption information: VM-entry (0x4016), VM-exit (0x4404) and IDT-vectoring (0x4408). SDM
/// volume 3, "VM-Entry Controls for Event Injection", "Information for VM Exits Due to Vectored
/// Events".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct InterruptionInfo(u32);

impl InterruptionInfo {
    const VALID: u32 = 1 << 31;
    const ERROR_CODE: u32 = 1 << 11;
    const NMI_UNBLOCKING: u32 = 1 << 12;

    /// A valid event with this vector and type.
    #[must_use]
    pub const fn new(vector: u8, kind: InterruptionType) -> Self {
        Self(Self::VALID | (kind as u32) << 8 | vector as u32)
    }

    /// The field with this value.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The value of the field.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Bits 7:0.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Bits 10:8.
    #[must_use]
    pub const fn kind(self) -> InterruptionType {
        InterruptionType::ALL[(self.0 >> 8 & 7) as usize]
    }

    /// Bit 11: there is an error code.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE != 0
    }

    /// With bit 11 set.
    #[must_use]
    pub const fn with_error_code(self) -> Self {
        Self(self.0 | Self::ERROR_CODE)
    }

    /// Bit 12 of exit information: the event came while IRET unblocked NMIs.
    #[must_use]
    pub const fn nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }

    /// Bit 31.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// With bit 31 cleared.
    #[must_use]
    pub const fn without_valid(self) -> Self {
        Self(self.0 & !Self::VALID)
    }

    /// Bits 30:12, which are 0 when an event is injected.
    #[must_use]
    pub const fn reserved_for_entry(self) -> u32 {
        self.0 & 0x7fff_f000
    }
}

impl fmt::Debug for InterruptionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "InterruptionInfo({:#x} {:?} vector {})",
            self.0,
            self.kind(),
            self.vector()
        )
    }
}

register_bits! {
    /// Guest interruptibility state (field 0x4824). SDM volume 3, "Guest Non-Register State".
    Interruptibility: u32 {
        /// The instruction before was STI.
        BLOCKING_BY_STI = 0,
        /// The instruction before loaded SS.
        BLOCKING_BY_MOV_SS = 1,
        /// In SMM.
        BLOCKING_BY_SMI = 2,
        /// NMIs are blocked, virtually if "virtual NMIs" is 1.
        BLOCKING_BY_NMI = 3,
        /// The exit came from an enclave.
        ENCLAVE_INTERRUPTION = 4,
    }
}

register_bits! {
    /// Guest pending debug exceptions (field 0x6822). SDM volume 3, "Guest Non-Register State".
    PendingDebug {
        /// Breakpoint 0 met.
        B0 = 0,
        /// Breakpoint 1 met.
        B1 = 1,
        /// Breakpoint 2 met.
        B2 = 2,
        /// Breakpoint 3 met.
        B3 = 3,
        /// A bus lock was taken.
        BLD = 11,
        /// At least one enabled breakpoint was met.
        ENABLED_BREAKPOINT = 12,
        /// A single step, or a step over a taken branch.
        BS = 14,
        /// In an RTM transaction with advanced debugging.
        RTM = 16,
    }
}
