//! A second, slow, literal reading of the rules.
//!
//! It shares the definitions of `vlbr-arch`, the [`Profile`] and [`Options`] data and the
//! [`crate::Device`] face with the fast device, and no logic: transfers are kept as they came and
//! interpreted when a register is read, architectural entries really shift, and every bit is
//! looked at by itself. It exists to be compared against.

mod access;
mod events;
mod face;
mod filter;
mod image;
mod retire;
mod words;

use vlbr_arch::{Cycles, LbrFormat};

use crate::{ArchLbr, FreezeFlavour, Interface, LegacyLbr, Options, Profile, Quirk};
use words::{Cell, Slot};

/// What SMI put aside for RSM.
#[derive(Clone, Debug)]
struct Smm {
    debugctl: Option<u64>,
    lbr_en: bool,
}

/// The array before an update.
#[derive(Clone, Debug)]
struct Before {
    slots: Vec<Slot>,
    tos: usize,
    last_insert: Option<Cycles>,
}

/// The LBR of one logical processor, kept literally.
#[derive(Clone, Debug)]
pub struct Lbr {
    profile: Profile,
    options: Options,
    debugctl: u64,
    select: u64,
    ctl: u64,
    frz: bool,
    trace_en: bool,
    smm: Option<Smm>,
    /// Legacy: by MSR number. Architectural: youngest first, as many as DEPTH says.
    slots: Vec<Slot>,
    /// Legacy only.
    tos: usize,
    ler: [u64; 3],
    /// The last branch, recorded or not; for `arch_ler_filtered = false`.
    last_taken: Slot,
    last_insert: Option<Cycles>,
    logged: [u8; 4],
    inserts: u64,
    draws: u64,
    before: Vec<Before>,
}

impl Lbr {
    /// A device in the state after power-up.
    #[must_use]
    pub fn new(profile: &Profile, options: Options) -> Self {
        Self {
            slots: vec![Slot::default(); profile.max_depth() as usize],
            profile: profile.clone(),
            options,
            debugctl: 0,
            select: 0,
            ctl: 0,
            frz: false,
            trace_en: false,
            smm: None,
            tos: 0,
            ler: [0; 3],
            last_taken: Slot::default(),
            last_insert: None,
            logged: [0; 4],
            inserts: 0,
            draws: 0,
            before: Vec::new(),
        }
    }

    fn legacy(&self) -> Option<&LegacyLbr> {
        match &self.profile.interface {
            Interface::Legacy(legacy) => Some(legacy),
            Interface::Arch(_) => None,
        }
    }

    fn arch(&self) -> Option<&ArchLbr> {
        match &self.profile.interface {
            Interface::Legacy(_) => None,
            Interface::Arch(arch) => Some(arch),
        }
    }

    fn has(&self, quirk: Quirk) -> bool {
        match self.options.quirks {
            Some(quirks) => quirks.contains(quirk),
            None => self.profile.quirks.contains(quirk),
        }
    }

    fn tsx(&self) -> bool {
        match self.options.tsx {
            Some(tsx) => tsx,
            None => self.profile.tsx,
        }
    }

    /// How entries are laid out: the reported format, or the alternative one if chosen.
    fn format(&self) -> LbrFormat {
        let Some(legacy) = self.legacy() else {
            return LbrFormat::ARCH;
        };
        match legacy.format_alternative {
            Some(alternative) if self.options.alternative_format => alternative,
            _ => legacy.format,
        }
    }

    /// Format 1 is reported but MISPRED is recorded.
    fn hides_mispred(&self) -> bool {
        self.format() == LbrFormat::LIP && self.has(Quirk::HiddenMispred)
    }

    fn freeze_flavour(&self) -> FreezeFlavour {
        if self.arch().is_some() {
            return FreezeFlavour::Streamlined;
        }
        match (self.options.freeze, self.profile.perfmon_version) {
            (Some(flavour), _) => flavour,
            (None, 0..=3) => FreezeFlavour::Legacy,
            (None, _) => FreezeFlavour::Streamlined,
        }
    }

    fn has_frz_bit(&self) -> bool {
        self.profile.perfmon_version >= 4 || self.freeze_flavour() == FreezeFlavour::Streamlined
    }

    /// Intel PT traces and the part cannot do both.
    fn locked_out(&self) -> bool {
        self.trace_en && self.legacy().is_some() && self.has(Quirk::PtExclusive)
    }

    /// Slot of the youngest entry.
    fn top(&self) -> usize {
        if self.arch().is_some() { 0 } else { self.tos }
    }

    /// Draw number `n`, counted from 1, of the seeded stream.
    fn draw(&mut self) -> u64 {
        self.draws += 1;
        split_mix(self.options.seed, self.draws)
    }

    fn forget_history(&mut self) {
        self.before = Vec::new();
    }

    fn wipe_entries(&mut self) {
        self.last_taken = Slot::default();
        for slot in &mut self.slots {
            *slot = Slot {
                from: Cell::Software(0),
                to: Cell::Software(0),
                info: Cell::Software(0),
            };
        }
    }
}

fn split_mix(seed: u64, n: u64) -> u64 {
    let mut state = seed;
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n));
    state ^= state >> 30;
    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state ^= state >> 27;
    state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 == 1
}

fn set_bit(value: &mut u64, n: u32, on: bool) {
    *value &= !(1 << n);
    *value |= u64::from(on) << n;
}
