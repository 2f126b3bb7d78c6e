//! Areas: folders of scenarios and their numbers.

/// A folder of scenarios. The hundreds of a file's number tell its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// 100: what is recorded, where it is put, what FROM and TO hold.
    Insertion,
    /// 200: `MSR_LBR_SELECT`.
    Filtering,
    /// 300: call-stack mode of the legacy LBR.
    CallStack,
    /// 400: registers, depths, formats.
    Msr,
    /// 500: architectural LBR.
    Arch,
    /// 600: `IA32_DEBUGCTL`, freezing, `#DB`, SMM, resets, C-states, Intel PT.
    Control,
    /// 700: last exception record.
    Ler,
    /// 800: errata and oddities.
    Errata,
    /// 900: the test vectors T1 and so on.
    Vectors,
    /// 1000: counters, PMIs, PEBS.
    Pmu,
    /// 1100: VMX.
    Vmx,
}

impl Area {
    /// Every area, by number.
    pub const ALL: [Self; 11] = [
        Self::Insertion,
        Self::Filtering,
        Self::CallStack,
        Self::Msr,
        Self::Arch,
        Self::Control,
        Self::Ler,
        Self::Errata,
        Self::Vectors,
        Self::Pmu,
        Self::Vmx,
    ];

    /// Name of the folder and of the `area:` line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insertion => "insertion",
            Self::Filtering => "filtering",
            Self::CallStack => "call-stack",
            Self::Msr => "msr",
            Self::Arch => "arch",
            Self::Control => "control",
            Self::Ler => "ler",
            Self::Errata => "errata",
            Self::Vectors => "vectors",
            Self::Pmu => "pmu",
            Self::Vmx => "vmx",
        }
    }

    /// The first number; the area has this one and the 99 that follow.
    #[must_use]
    pub const fn first_number(self) -> u32 {
        100 * (self as u32 + 1)
    }

    /// Whether a file of this area may have this number.
    #[must_use]
    pub const fn has_number(self, number: u32) -> bool {
        number >= self.first_number() && number < self.first_number() + 100
    }

    /// The area with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.name() == name)
    }
}
