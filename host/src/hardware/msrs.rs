//! Which MSRs a part's LBR has, as the host driver and hypervisors list them.

use vlbr_arch::Msr;
use vlbr_lbr::{Interface, Profile, SelectLayout};

/// The registers of an LBR. `struct x86_pmu_lbr` of the host driver, with what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LbrMsrs {
    /// Entries: N. With architectural LBR the depth that is set.
    pub nr: u32,
    /// FROM of entry 0.
    pub from: Msr,
    /// TO of entry 0.
    pub to: Msr,
    /// INFO of entry 0.
    pub info: Option<Msr>,
    /// `MSR_LASTBRANCH_TOS`, of the legacy interface.
    pub tos: Option<Msr>,
    /// `MSR_LBR_SELECT`.
    pub select: Option<Msr>,
    /// The LER pair exists.
    pub ler: bool,
    /// The interface is the architectural one: `IA32_LBR_CTL` and `IA32_LBR_DEPTH` exist, entry 0
    /// is the youngest.
    pub arch: bool,
}

/// Which word of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// FROM.
    From,
    /// TO.
    To,
    /// INFO.
    Info,
}

/// A register of the LBR, without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbrRegister {
    /// A word of entry n. Legacy: of physical slot n.
    Entry(Word, u32),
    /// TOS.
    Tos,
    /// `MSR_LBR_SELECT` or, of architectural LBR, `IA32_LBR_CTL`: who is recorded.
    Filter,
    /// `IA32_LBR_DEPTH`.
    Depth,
    /// `IA32_DEBUGCTL`.
    DebugCtl,
    /// LER: FROM, TO or INFO.
    Ler(Word),
}

impl LbrMsrs {
    /// Those of a part; of architectural LBR at the greatest depth.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        match profile.interface() {
            Interface::Legacy(legacy) => Self {
                nr: legacy.depth,
                from: legacy.from,
                to: legacy.to,
                info: legacy.info,
                tos: Some(Msr::LASTBRANCH_TOS),
                select: (legacy.select != SelectLayout::None).then_some(Msr::LBR_SELECT),
                ler: legacy.ler,
                arch: false,
            },
            Interface::Arch(_) => Self {
                nr: profile.max_depth(),
                from: Msr::LBR_0_FROM_IP,
                to: Msr::LBR_0_TO_IP,
                info: Some(Msr::LBR_0_INFO),
                tos: None,
                select: None,
                ler: true,
                arch: true,
            },
        }
    }

    /// The register that says what is recorded: `MSR_LBR_SELECT`, or `IA32_LBR_CTL`.
    #[must_use]
    pub const fn filter(&self) -> Option<Msr> {
        if self.arch {
            Some(Msr::LBR_CTL)
        } else {
            self.select
        }
    }

    /// MSRs of an entry: E.
    #[must_use]
    pub const fn words(&self) -> u32 {
        if self.info.is_some() { 3 } else { 2 }
    }

    /// The words of an entry, in the order in which the host driver saves and restores them.
    pub fn words_of_entry(&self) -> impl Iterator<Item = Word> + Clone + use<> {
        [Word::From, Word::To, Word::Info]
            .into_iter()
            .take(self.words() as usize)
    }

    /// Address of a word of entry n; `None` if entries have no such word or there is no such entry.
    #[must_use]
    pub fn entry(&self, word: Word, n: u32) -> Option<Msr> {
        let base = match word {
            Word::From => Some(self.from),
            Word::To => Some(self.to),
            Word::Info => self.info,
        }?;
        (n < self.nr).then(|| base.plus(n))
    }

    /// The entry that is `i` entries older than `first`: so many slots below, where `nr` - 1 follows
    /// 0; of architectural LBR so many above.
    #[must_use]
    pub const fn older(&self, first: u32, i: u32) -> u32 {
        // nr is not 0, and a power of two with every legacy interface.
        if self.arch {
            (first + i) % self.nr
        } else {
            (first % self.nr + self.nr - i % self.nr) % self.nr
        }
    }

    /// Which register of the LBR this is; `None` if of something else.
    #[must_use]
    pub fn register(&self, msr: Msr) -> Option<LbrRegister> {
        for word in [Word::From, Word::To, Word::Info] {
            let base = self.entry(word, 0);
            let n = base.map(|base| msr.value().wrapping_sub(base.value()));
            if let Some(n) = n.filter(|n| *n < self.nr) {
                return Some(LbrRegister::Entry(word, n));
            }
        }
        Some(match msr {
            Msr::DEBUGCTL => LbrRegister::DebugCtl,
            _ if Some(msr) == self.tos => LbrRegister::Tos,
            _ if Some(msr) == self.select => LbrRegister::Filter,
            Msr::LBR_CTL if self.arch => LbrRegister::Filter,
            Msr::LBR_DEPTH if self.arch => LbrRegister::Depth,
            Msr::LER_FROM if self.ler => LbrRegister::Ler(Word::From),
            Msr::LER_TO if self.ler => LbrRegister::Ler(Word::To),
            Msr::LER_INFO if self.ler && self.arch => LbrRegister::Ler(Word::Info),
            _ => return None,
        })
    }

    /// Every register that holds records or steers them, but `IA32_DEBUGCTL` and LER: SELECT, TOS,
    /// then FROM, TO and INFO of all entries; of architectural LBR the entries alone. What KVM
    /// passes through: `vmx_update_intercept_for_lbr_msrs`.
    pub fn passed_through(&self) -> impl Iterator<Item = Msr> + use<> {
        let this = *self;
        let arrays = [Some(this.from), Some(this.to), this.info];
        let entries = arrays.into_iter().flatten();
        [this.select, this.tos]
            .into_iter()
            .flatten()
            .chain(entries.flat_map(move |base| (0..this.nr).map(move |n| base.plus(n))))
    }
}
