//! The fast device: what counts is worked out when a control register changes, so that
//! retirement adds.

mod config;
mod count;
mod face;
mod msr;
mod pebs;
mod pmi;

use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

pub use count::AmountsError;

use vlbr_arch::{FixedCtrCtrl, LvtPc, PerfEvtSel, PerfGlobalStatus};

use crate::profile::{MAX_FIXED, MAX_GP};
use crate::{Counter, Options, Pending, Profile, Quirk, Refusal, Selector, SourceSet};
use config::Config;

/// Counters of the largest part: general-purpose ones, then fixed ones.
const SLOTS: usize = (MAX_GP + MAX_FIXED) as usize;

/// Where counter and control of a counter are kept.
const fn slot(counter: Counter) -> usize {
    match counter {
        Counter::Gp(n) => n as usize,
        Counter::Fixed(i) => MAX_GP as usize + i as usize,
    }
}

/// A counter that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Active {
    counter: Counter,
    selector: Selector,
    /// Values the counter holds.
    mask: u64,
    /// An overflow raises a PMI.
    interrupts: bool,
    /// An overflow arms PEBS.
    pebs: bool,
    edge: bool,
    invert: bool,
    cmask: u8,
    /// E20.
    lossy: bool,
    /// Events go into the LBR.
    logs: bool,
}

/// Counter 2 at the start of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    value: u64,
    overflowed: bool,
}

/// E20: when the next branch is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loss {
    draws: u64,
    left: u64,
}

/// The PMU of one logical processor.
///
/// ```
/// use vlbr_arch::{Cpl, Msr};
/// use vlbr_pmu::{Alone, Device, Increments, Options, Pmu, Profile};
///
/// let mut pmu = Pmu::new(Profile::named("skylake")?, Options::default());
/// let mut alone = Alone::default();
/// // Instructions at every level on counter 0; GLOBAL_CTRL enables it from reset on.
/// pmu.wrmsr(Msr::PERFEVTSEL0, 0x43_00c0, &mut alone)?;
/// pmu.retire(&Increments::instruction(Cpl::Ring3), &mut alone);
/// assert_eq!(pmu.rdpmc(0, Cpl::Ring0, false)?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pmu {
    profile: Arc<Profile>,
    options: Arc<Options>,
    config: Config,
    values: [u64; SLOTS],
    evtsel: [PerfEvtSel; MAX_GP as usize],
    fixed_ctrl: FixedCtrCtrl,
    global_ctrl: u64,
    /// `GLOBAL_STATUS` but `LBR_FRZ`, which the LBR owns.
    status: u64,
    pebs_enable: u64,
    pebs_data_cfg: u64,
    ds_area: u64,
    /// Load latency threshold, front end, two off-core responses, metrics, reload values.
    stored: [u64; msr::STORED],
    lvtpc: LvtPc,
    pending: Option<Pending>,
    in_smm: bool,
    smm_global_ctrl: Option<u64>,
    /// PEBS counters that overflowed.
    armed: u64,
    /// E10b: the PMI of a threshold that was reached.
    late_pmi: bool,
    in_tx: bool,
    checkpoint: Option<Checkpoint>,
    /// The condition of edge detection held in the last clock.
    conditions: u64,
    losses: [Loss; SLOTS],
    sources: [SourceSet; SLOTS],
    held: [Option<Refusal>; SLOTS],
    active: Vec<Active>,
    /// One of them is lossy.
    lossy: bool,
}

impl Pmu {
    /// A device in the state after power-up.
    #[must_use]
    pub fn new(profile: &Profile, options: Options) -> Self {
        let config = Config::new(profile, &options);
        let mut pmu = Self {
            profile: Arc::new(profile.clone()),
            options: Arc::new(options),
            config,
            values: [0; SLOTS],
            evtsel: [PerfEvtSel::default(); MAX_GP as usize],
            fixed_ctrl: FixedCtrCtrl::default(),
            global_ctrl: 0,
            status: 0,
            pebs_enable: 0,
            pebs_data_cfg: 0,
            ds_area: 0,
            stored: [0; msr::STORED],
            lvtpc: LvtPc::RESET,
            pending: None,
            in_smm: false,
            smm_global_ctrl: None,
            armed: 0,
            late_pmi: false,
            in_tx: false,
            checkpoint: None,
            conditions: 0,
            losses: [Loss::default(); SLOTS],
            sources: [SourceSet::EMPTY; SLOTS],
            held: [const { None }; SLOTS],
            active: Vec::with_capacity(SLOTS),
            lossy: false,
        };
        pmu.power_up();
        pmu
    }

    /// Works out which counters count, after a control changed.
    fn refresh(&mut self) {
        self.active.clear();
        self.lossy = false;
        if self.status & PerfGlobalStatus::CTR_FRZ.bits() != 0 {
            return;
        }
        let enabled = match self.config.version {
            0 | 1 => self.config.gp_bits,
            _ => self.global_ctrl,
        };
        for n in 0..self.config.gp {
            let counter = Counter::Gp(n as u8);
            let select = self.evtsel[slot(counter)];
            if enabled >> counter.bit() & 1 != 0 && select.contains(PerfEvtSel::EN) {
                self.activate_gp(counter, select);
            }
        }
        for i in 0..MAX_FIXED {
            let counter = Counter::Fixed(i as u8);
            if enabled & self.config.fixed_bits & 1 << counter.bit() != 0 {
                self.activate_fixed(counter, self.fixed_ctrl.field(i));
            }
        }
    }

    fn activate_gp(&mut self, counter: Counter, select: PerfEvtSel) {
        let any_thread = self.config.any_thread && select.contains(PerfEvtSel::ANY);
        let lossy = self.config.has(Quirk::LostBranches) && select.event() == 0xc4;
        self.activate(Active {
            counter,
            selector: Selector {
                sources: self.sources[slot(counter)],
                kernel: select.contains(PerfEvtSel::OS),
                user: select.contains(PerfEvtSel::USR),
                in_tx: select.contains(PerfEvtSel::IN_TX),
                any_thread,
            },
            mask: self.config.gp_mask,
            interrupts: select.contains(PerfEvtSel::INT),
            pebs: false,
            edge: select.contains(PerfEvtSel::EDGE),
            invert: select.contains(PerfEvtSel::INV),
            cmask: select.cmask(),
            lossy,
            logs: select.contains(PerfEvtSel::LBR_LOG),
        });
    }

    fn activate_fixed(&mut self, counter: Counter, field: u64) {
        self.activate(Active {
            counter,
            selector: Selector {
                sources: self.sources[slot(counter)],
                kernel: field & FixedCtrCtrl::OS != 0,
                user: field & FixedCtrCtrl::USR != 0,
                in_tx: false,
                any_thread: self.config.any_thread && field & FixedCtrCtrl::ANY != 0,
            },
            mask: self.config.fixed_mask,
            interrupts: field & FixedCtrCtrl::PMI != 0,
            pebs: false,
            edge: false,
            invert: false,
            cmask: 0,
            lossy: false,
            logs: false,
        });
    }

    fn activate(&mut self, mut active: Active) {
        let Selector { kernel, user, .. } = active.selector;
        if !(kernel || user) || self.held[slot(active.counter)].is_some() {
            return;
        }
        active.pebs = self.pebs_enable & self.config.pebs_counters & 1 << active.counter.bit() != 0;
        // A PEBS counter interrupts through the threshold of its buffer.
        active.interrupts &= !active.pebs;
        self.lossy |= active.lossy;
        self.active.push(active);
    }
}

impl PartialEq for Pmu {
    /// Compares what software can tell apart, now or later.
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
            && self.evtsel == other.evtsel
            && self.fixed_ctrl == other.fixed_ctrl
            && self.global_ctrl == other.global_ctrl
            && self.status == other.status
            && (self.pebs_enable, self.pebs_data_cfg) == (other.pebs_enable, other.pebs_data_cfg)
            && (self.ds_area, self.stored) == (other.ds_area, other.stored)
            && (self.lvtpc, self.pending) == (other.lvtpc, other.pending)
            && (self.in_smm, self.smm_global_ctrl) == (other.in_smm, other.smm_global_ctrl)
            && (self.armed, self.late_pmi) == (other.armed, other.late_pmi)
            && (self.in_tx, self.checkpoint) == (other.in_tx, other.checkpoint)
            && (self.conditions, self.losses) == (other.conditions, other.losses)
            && self.held == other.held
    }
}

impl Eq for Pmu {}

impl Hash for Pmu {
    /// Equal devices have equal hashes: counters and their controls go in.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.values.hash(state);
        for select in self.evtsel {
            state.write_u64(select.bits());
        }
        state.write_u64(self.fixed_ctrl.bits());
        for word in [self.global_ctrl, self.status, self.pebs_enable, self.armed] {
            state.write_u64(word);
        }
        state.write_u32(self.lvtpc.bits());
    }
}

impl fmt::Debug for Pmu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pmu")
            .field("profile", &self.profile.name())
            .field("values", &self.values)
            .field("evtsel", &self.evtsel)
            .field("fixed_ctrl", &self.fixed_ctrl)
            .field("global_ctrl", &self.global_ctrl)
            .field("status", &PerfGlobalStatus::from_bits(self.status))
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
