//! Which device owns which MSR.

use core::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use vlbr_arch::Msr;
use vlbr_lbr::Interface;

/// Who answers RDMSR and WRMSR of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The LBR; `IA32_DEBUGCTL` is its own, too.
    Lbr,
    /// The PMU.
    Pmu,
    /// The local APIC.
    Apic,
    /// The rest of the core.
    Core,
}

impl Owner {
    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lbr => "LBR",
            Self::Pmu => "PMU",
            Self::Apic => "APIC",
            Self::Core => "core",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The registers of a part with their owners, ascending.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    all: Arc<[(Msr, Owner)]>,
    by_number: Arc<ByNumber>,
}

/// Registers below this number are found by it; there are few above.
const LOW: usize = 0x2000;

#[derive(Debug)]
struct ByNumber {
    low: Box<[Option<Owner>; LOW]>,
    high: FxHashMap<Msr, Owner>,
}

impl ByNumber {
    fn of(routes: &[(Msr, Owner)]) -> Self {
        let mut by_number = Self {
            low: Box::new([None; LOW]),
            high: FxHashMap::default(),
        };
        for &(msr, owner) in routes {
            match by_number.low.get_mut(msr.value() as usize) {
                Some(low) => *low = Some(owner),
                None => {
                    by_number.high.insert(msr, owner);
                }
            }
        }
        by_number
    }
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for Routes {}

impl Routes {
    pub(super) fn of(
        lbr: &impl vlbr_lbr::Device,
        pmu: &impl vlbr_pmu::Device,
        core: &[Msr],
        x2apic: bool,
    ) -> Self {
        let mut routes: Vec<(Msr, Owner)> = Vec::new();
        let mut add = |registers: Vec<Msr>, owner| {
            routes.extend(registers.into_iter().map(|msr| (msr, owner)));
        };
        add(lbr.msrs(), Owner::Lbr);
        if let Interface::Arch(_) = lbr.profile().interface() {
            // Those at or above IA32_LBR_DEPTH exist and fault.
            for base in [Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Msr::LBR_0_INFO] {
                let entries = 0..lbr.profile().max_depth();
                add(entries.map(|n| base.plus(n)).collect(), Owner::Lbr);
            }
        }
        add(pmu.msrs(), Owner::Pmu);
        if x2apic {
            add(vec![Msr::X2APIC_LVT_PMI], Owner::Apic);
        }
        add(core.to_vec(), Owner::Core);
        // Stable: of two owners the first one stays.
        routes.sort_by_key(|(msr, _)| *msr);
        routes.dedup_by_key(|(msr, _)| *msr);
        Self {
            by_number: Arc::new(ByNumber::of(&routes)),
            all: routes.into(),
        }
    }

    pub(super) fn owner(&self, msr: Msr) -> Option<Owner> {
        let ByNumber { low, high } = &*self.by_number;
        match low.get(msr.value() as usize) {
            Some(owner) => *owner,
            None => high.get(&msr).copied(),
        }
    }

    /// Whether these are the routes of the same part; clones share them.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.all, &other.all) || self.all == other.all
    }

    pub(super) fn all(&self) -> &[(Msr, Owner)] {
        &self.all
    }
}
