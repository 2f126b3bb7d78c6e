//! The fast device: verdicts looked up, entries held as the MSRs read.

mod bulk;
mod config;
mod face;
mod gate;
mod layout;
mod msr;
mod retire;
mod state;
mod xsave;

use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

use vlbr_arch::{Cycles, DebugCtl, LbrCtl, LbrSelect, Transfer};

use crate::{GpFault, Options, Profile, Record, Verdict};
use config::Config;
use gate::{Control, Gate};

pub use bulk::{EntryWrites, StackWords};

/// Entries that the largest part has.
pub const MAX_DEPTH: usize = 32;
const SLOT: u32 = MAX_DEPTH as u32 - 1;

/// What RSM restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SavedBySmi {
    /// `IA32_DEBUGCTL`, if FREEZE_WHILE_SMM was set.
    debugctl: Option<DebugCtl>,
    /// `LBR_CTL.LBREn`, with architectural LBR.
    lbr_en: LbrCtl,
}

/// How an update of the array is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Undo {
    slot: u32,
    words: [u64; 3],
    head: u32,
    last_insert: Option<Cycles>,
}

/// The LBR of one logical processor.
///
/// Both generations are held as a ring: architectural entry k is slot `head - k`, so that
/// a record moves one index instead of the whole array.
///
/// ```
/// use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
/// use vlbr_lbr::{Lbr, Options, Profile};
///
/// let mut lbr = Lbr::new(Profile::named("skylake")?, Options::default());
/// lbr.wrmsr(Msr::DEBUGCTL, 1)?;
/// let jump = Transfer::near(BranchClass::NearRelJmp, 0x40_1000, 0x40_2000, Cpl::Ring3);
/// lbr.retire(&jump, Cycles::new(7));
/// assert_eq!(lbr.rdmsr(Msr::LASTBRANCH_TOS)?, 1);
/// assert_eq!(lbr.stack().next().map(|record| record.to), Some(0x40_2000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Lbr {
    profile: Arc<Profile>,
    options: Arc<Options>,
    config: Config,
    control: Control,
    gate: Gate,
    depth: u32,
    trace_en: bool,
    smm: Option<SavedBySmi>,
    head: u32,
    from: [u64; MAX_DEPTH],
    to: [u64; MAX_DEPTH],
    info: [u64; MAX_DEPTH],
    ler: [u64; 3],
    /// The last taken branch, kept for LER where filters do not apply to it.
    last_taken: [u64; 3],
    last_insert: Option<Cycles>,
    pending_events: u8,
    inserts: u64,
    draws: u64,
    undo: Vec<Undo>,
}

impl Lbr {
    /// A device in the state after power-up.
    #[must_use]
    pub fn new(profile: &Profile, options: Options) -> Self {
        let config = Config::new(profile, &options);
        let mut lbr = Self {
            profile: Arc::new(profile.clone()),
            options: Arc::new(options),
            config,
            control: Control {
                debugctl: DebugCtl::default(),
                select: LbrSelect::default(),
                ctl: LbrCtl::default(),
                lbr_frz: false,
                locked_out: false,
            },
            gate: Gate::default(),
            depth: config.max_depth,
            trace_en: false,
            smm: None,
            head: 0,
            from: [0; MAX_DEPTH],
            to: [0; MAX_DEPTH],
            info: [0; MAX_DEPTH],
            ler: [0; 3],
            last_taken: [0; 3],
            last_insert: None,
            pending_events: 0,
            inserts: 0,
            draws: 0,
            undo: Vec::new(),
        };
        lbr.refresh();
        lbr
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The profile it was made from.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// See [`crate::Device::verdict`].
    #[inline]
    #[must_use]
    pub fn verdict(&self, transfer: &Transfer) -> Verdict {
        self.judge(transfer, gate::class_bit(transfer.class))
    }

    #[inline]
    fn judge(&self, transfer: &Transfer, bit: u32) -> Verdict {
        let cpl = if self.config.cpl_before {
            transfer.cpl_before
        } else {
            transfer.cpl_after
        };
        let level = usize::from(!cpl.is_kernel());
        if self.gate.push[level] & bit != 0 {
            Verdict::Push
        } else if self.gate.pop[level] & bit != 0 {
            Verdict::Pop
        } else {
            Verdict::Ignore
        }
    }

    /// See [`crate::Device::recording`].
    #[inline]
    #[must_use]
    pub fn recording(&self) -> bool {
        self.gate.recording
    }

    /// See [`crate::Device::depth`].
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth as usize
    }

    /// See [`crate::Device::tos`].
    #[must_use]
    pub fn tos(&self) -> usize {
        match self.config.arch() {
            None if !self.control.locked_out => (self.head & (self.depth - 1)) as usize,
            _ => 0,
        }
    }

    /// Every entry, youngest first, empty ones included, as software reads them.
    pub fn stack(&self) -> impl ExactSizeIterator<Item = Record> + '_ {
        (0..self.depth).map(|k| {
            let hidden = self.control.locked_out;
            let raw = if hidden {
                [0; 3]
            } else {
                self.words(self.slot(k))
            };
            self.config.layout.decode(raw)
        })
    }

    /// `MSR_LBR_SELECT` as it acts, Intel PT or not; empty on parts without the register.
    ///
    /// On Nehalem, Westmere, Silvermont, Airmont and Goldmont the register belongs to the core
    /// ([`crate::Scope::Core`]): whoever models several logical processors keeps theirs equal,
    /// as [`crate::SmtCore`] does.
    #[must_use]
    pub fn select(&self) -> LbrSelect {
        self.control.select
    }

    /// Sets `MSR_LBR_SELECT`, as when a sibling writes the shared register.
    ///
    /// # Errors
    /// As WRMSR.
    pub fn set_select(&mut self, select: LbrSelect) -> Result<(), GpFault> {
        self.wrmsr(vlbr_arch::Msr::LBR_SELECT, select.bits())
    }

    /// Slot of the k-th youngest entry.
    #[inline]
    fn slot(&self, k: u32) -> u32 {
        self.head.wrapping_sub(k) & (self.depth - 1)
    }

    #[inline]
    fn words(&self, slot: u32) -> [u64; 3] {
        let slot = (slot & SLOT) as usize;
        [self.from[slot], self.to[slot], self.info[slot]]
    }

    #[inline]
    fn set_words(&mut self, slot: u32, words: [u64; 3]) {
        let slot = (slot & SLOT) as usize;
        [self.from[slot], self.to[slot], self.info[slot]] = words;
    }

    /// Recomputes the verdicts after a change of the registers they follow from.
    fn refresh(&mut self) {
        let mut after_rsm = self.control;
        if let Some(saved) = &self.smm {
            saved.restore(&mut after_rsm);
        }
        self.gate = Gate::new(&self.config, &self.control, &after_rsm);
    }

    /// The next number of the stream that seeded quirks draw from.
    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        noise(self.config.seed, self.draws)
    }
}

impl SavedBySmi {
    fn restore(&self, control: &mut Control) {
        if let Some(debugctl) = self.debugctl {
            control.debugctl = debugctl;
        }
        control.ctl = control.ctl.without(LbrCtl::LBR_EN) | self.lbr_en;
    }
}

/// SplitMix64.
fn noise(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl PartialEq for Lbr {
    /// Equal if made alike and no later access or transfer can tell them apart.
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.profile, &other.profile) || self.profile == other.profile)
            && (Arc::ptr_eq(&self.options, &other.options) || self.options == other.options)
            && self.control == other.control
            && self.depth == other.depth
            && self.trace_en == other.trace_en
            && self.smm == other.smm
            // Where the ring starts is invisible with architectural LBR.
            && (self.config.arch().is_some() || self.slot(0) == other.slot(0))
            && (0..self.depth).all(|k| self.words(self.slot(k)) == other.words(other.slot(k)))
            && self.ler == other.ler
            && self.last_taken == other.last_taken
            && self.last_insert == other.last_insert
            && self.pending_events == other.pending_events
            && self.inserts == other.inserts
            && self.draws == other.draws
            && self.undo == other.undo
    }
}

impl Eq for Lbr {}

impl Hash for Lbr {
    /// Equal devices have equal hashes: registers and entries go in.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let control = &self.control;
        state.write_u64(control.debugctl.bits());
        state.write_u64(control.select.bits());
        state.write_u64(control.ctl.bits());
        state.write_u32(self.depth);
        if self.config.arch().is_none() {
            state.write_u32(self.slot(0));
        }
        (0..self.depth).for_each(|k| self.words(self.slot(k)).hash(state));
        self.ler.hash(state);
        state.write_u64(self.inserts);
    }
}

impl fmt::Debug for Lbr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lbr")
            .field("profile", &self.profile.name)
            .field("control", &self.control)
            .field("depth", &self.depth)
            .field("tos", &self.slot(0))
            .field("in_smm", &self.smm.is_some())
            .field("ler", &self.ler)
            .field("stack", &self.stack().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{BranchClass, Cpl, Msr};

    use super::*;

    /// A device in call-stack mode, and one that also saw a return on the empty stack.
    fn with_and_without_return(name: &str, enable: Msr, value: u64) -> (Lbr, Lbr) {
        let mut lbr = Lbr::new(Profile::named(name).unwrap(), Options::default());
        if enable == Msr::DEBUGCTL {
            lbr.wrmsr(Msr::LBR_SELECT, 0x3c5).unwrap();
        }
        lbr.wrmsr(enable, value).unwrap();
        let mut other = lbr.clone();
        let ret = Transfer::near(BranchClass::NearRet, 0x1000, 0x2000, Cpl::Ring3);
        assert_eq!(other.retire(&ret, Cycles::new(0)), Verdict::Pop);
        (lbr, other)
    }

    #[test]
    fn where_the_ring_starts_is_no_state_of_architectural_lbr() {
        let (a, b) = with_and_without_return("spr", Msr::LBR_CTL, 0x38_000d);
        assert_ne!(a.head, b.head);
        assert_eq!(a, b);
    }

    #[test]
    fn records_that_others_overwrite_may_be_passed_over() {
        let jump = |number: u64| {
            let kind = Cpl::Ring3;
            Transfer::near(
                BranchClass::NearRelJmp,
                0x1000 + number,
                0x2000 + number,
                kind,
            )
        };
        for name in ["nehalem", "skl", "spr"] {
            let mut lbr = Lbr::new(Profile::named(name).unwrap(), Options::default());
            match lbr.config.arch() {
                Some(_) => lbr.wrmsr(Msr::LBR_CTL, 0x7f_0007).unwrap(),
                None => lbr.wrmsr(Msr::DEBUGCTL, 1).unwrap(),
            }
            let enabled = lbr.clone();
            for passed in [1, 5, 100_u64] {
                let mut other = lbr.clone();
                let all = passed + lbr.depth() as u64;
                let at = |number: u64| Cycles::new(number * 3);
                for number in 0..all {
                    assert!(lbr.is_plain(&jump(number)), "{name}");
                    assert_eq!(lbr.retire(&jump(number), at(number)), Verdict::Push);
                }
                other.pass_over(passed, at(passed - 1));
                assert_ne!(lbr, other, "{name}");
                for number in passed..all {
                    other.retire(&jump(number), at(number));
                }
                assert_eq!(lbr, other, "{name}, {passed} passed over");
                assert!(other.judges_as(&enabled));
            }
            match lbr.config.arch() {
                Some(_) => lbr.wrmsr(Msr::LBR_CTL, 0).unwrap(),
                None => lbr.wrmsr(Msr::DEBUGCTL, 0).unwrap(),
            }
            assert!(!lbr.judges_as(&enabled), "{name}");
        }
    }

    #[test]
    fn tos_is_state_of_legacy_lbr() {
        let (a, b) = with_and_without_return("skl", Msr::DEBUGCTL, 1);
        assert_ne!(a, b);
    }
}
