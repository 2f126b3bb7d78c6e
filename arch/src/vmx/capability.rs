//! `IA32_VMX_BASIC` and `IA32_VMX_MISC`.

/// `IA32_VMX_BASIC` (0x480). SDM volume 3, appendix "Basic VMX Information".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VmxBasic(u64);

impl VmxBasic {
    /// The register with this value.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The value as RDMSR returns it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bits 30:0, the VMCS revision identifier.
    #[must_use]
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }

    /// Bits 44:32, the size of a VMCS region in bytes.
    #[must_use]
    pub const fn region_size(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1fff
    }

    /// Bit 48: physical addresses of VMX structures are limited to 32 bits.
    #[must_use]
    pub const fn addresses_of_32_bits(self) -> bool {
        self.0 & 1 << 48 != 0
    }

    /// Bit 55: the TRUE capability MSRs 0x48D to 0x490 exist.
    #[must_use]
    pub const fn has_true_controls(self) -> bool {
        self.0 & 1 << 55 != 0
    }

    /// Bit 56: hardware exceptions may be injected with or without an error code, whatever their
    /// vector.
    #[must_use]
    pub const fn injects_any_error_code(self) -> bool {
        self.0 & 1 << 56 != 0
    }
}

/// `IA32_VMX_MISC` (0x485). SDM volume 3, appendix "Miscellaneous Data".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VmxMisc(u64);

impl VmxMisc {
    /// The register with this value.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The value as RDMSR returns it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bits 4:0: the preemption timer counts down whenever this bit of the TSC changes.
    #[must_use]
    pub const fn preemption_timer_shift(self) -> u32 {
        self.0 as u32 & 0x1f
    }

    /// Bits 8:6: whether activity state 1 (HLT), 2 (shutdown) or 3 (wait for SIPI) exists; state 0
    /// always does.
    #[must_use]
    pub const fn has_activity_state(self, state: u32) -> bool {
        state == 0 || (state <= 3 && self.0 & 1 << (5 + state) != 0)
    }

    /// Bits 27:25, N: an MSR area should have at most 512 * (N + 1) entries.
    #[must_use]
    pub const fn msr_area_limit(self) -> u32 {
        512 * ((self.0 >> 25 & 7) as u32 + 1)
    }

    /// Bit 29: VMWRITE may write the exit-information fields.
    #[must_use]
    pub const fn vmwrite_any_field(self) -> bool {
        self.0 & 1 << 29 != 0
    }

    /// Bit 30: software events may be injected with an instruction length of 0.
    #[must_use]
    pub const fn injects_zero_length(self) -> bool {
        self.0 & 1 << 30 != 0
    }
}
