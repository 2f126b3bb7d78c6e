//! Areas: folders of scenarios and their numbers.

/// A folder of scenarios. A file's number tells its area.
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
    /// 2001: Linux as host, its perf and KVM.
    Host,
    /// 3101: the contract between KVM and perf over the LBR.
    Contract,
}

impl Area {
    /// Every area, by number.
    pub const ALL: [Self; 13] = [
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
        Self::Host,
        Self::Contract,
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
            Self::Host => "host",
            Self::Contract => "contract",
        }
    }

    /// The first number.
    #[must_use]
    pub const fn first_number(self) -> u32 {
        match self {
            // Each file has the number of its scenario behind 2000.
            Self::Host => 2001,
            // A hundred for each rule behind 3000.
            Self::Contract => 3101,
            _ => 100 * (self as u32 + 1),
        }
    }

    /// The last number.
    #[must_use]
    pub const fn last_number(self) -> u32 {
        match self {
            Self::Host => 2699,
            Self::Contract => 4599,
            _ => self.first_number() + 99,
        }
    }

    /// Whether a file of this area may have this number.
    #[must_use]
    pub const fn has_number(self, number: u32) -> bool {
        number >= self.first_number() && number <= self.last_number()
    }

    /// Whether its files are about a host, with the headers and steps of those.
    #[must_use]
    pub const fn is_of_hosts(self) -> bool {
        matches!(self, Self::Host | Self::Contract)
    }

    /// The area with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.name() == name)
    }
}
