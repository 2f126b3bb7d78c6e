//! What a logical processor is made with.

/// What becomes of RDMSR and WRMSR of a register that no device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownMsrs {
    /// `#GP(0)`, as on hardware.
    #[default]
    Fault,
    /// Reads give 0, writes do nothing, both are counted: KVM's module parameter `ignore_msrs`.
    /// Registers that exist still refuse what they refuse.
    Ignore,
}

/// The choices for both devices and what lies around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Those of the LBR.
    pub lbr: vlbr_lbr::Options,
    /// Those of the PMU. `tsx` must say the same in both.
    pub pmu: vlbr_pmu::Options,
    /// Registers that no device has \[fault\].
    pub unknown_msrs: UnknownMsrs,
    /// The local APIC is in x2APIC mode, so that its LVT performance monitoring entry is MSR 0x834
    /// \[false: it is in memory\].
    pub x2apic: bool,
}

/// Two devices that are not those of one processor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProcessorError {
    /// No such LBR.
    #[error(transparent)]
    Lbr(#[from] vlbr_lbr::ProfileError),
    /// No such PMU.
    #[error(transparent)]
    Pmu(#[from] vlbr_pmu::ProfileError),
    /// LBR and PMU say different things about the part.
    #[error("the LBR of {lbr} and the PMU of {pmu} are not of one part: {what} differs")]
    Different {
        /// Name of the LBR's profile.
        lbr: String,
        /// Name of the PMU's profile.
        pmu: String,
        /// What they disagree about.
        what: &'static str,
    },
}
