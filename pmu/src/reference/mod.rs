//! A second, slow, literal reading of the rules.
//!
//! It shares the definitions of `vlbr-arch`, the [`Profile`] and [`Options`] data with the events
//! a code names, and the [`crate::Device`] face with the fast device, and no logic: every register
//! is a number in a map, every bit is looked at where a rule asks for it, nothing is worked out
//! ahead. It exists to be compared against.

mod access;
mod count;
mod face;
mod interrupt;
mod record;

use std::collections::BTreeMap;

use vlbr_arch::{CpuidResult, Msr, PerfEvtSel};

use crate::{Counter, FreezeFlavour, Options, Pending, Profile, Quirk, Refusal, SourceSet};

/// What an aborted transaction gives back.
#[derive(Clone, Debug, PartialEq)]
struct BeforeTransaction {
    pmc2: u64,
    overflow2: bool,
}

/// The PMU of one logical processor, kept literally.
#[derive(Clone, Debug)]
pub struct Pmu {
    profile: Profile,
    options: Options,
    /// Every register that holds something, by address; absent ones read 0.
    registers: BTreeMap<u32, u64>,
    lvtpc: u32,
    pending: Option<Pending>,
    in_smm: bool,
    put_aside: Option<u64>,
    armed: Vec<Counter>,
    pmi_owed: bool,
    in_tx: bool,
    before: Option<BeforeTransaction>,
    /// Counters whose edge condition held in the last clock.
    held_high: Vec<Counter>,
    /// E20: per counter, gaps drawn and branches left to the next lost one.
    gaps: BTreeMap<Counter, (u64, u64)>,
}

impl Pmu {
    /// A device in the state after power-up.
    #[must_use]
    pub fn new(profile: &Profile, options: Options) -> Self {
        let mut this = Self {
            profile: profile.clone(),
            options,
            registers: BTreeMap::new(),
            lvtpc: 1 << 16,
            pending: None,
            in_smm: false,
            put_aside: None,
            armed: Vec::new(),
            pmi_owed: false,
            in_tx: false,
            before: None,
            held_high: Vec::new(),
            gaps: BTreeMap::new(),
        };
        if this.version() >= 2 {
            for n in 0..this.gp_count() {
                this.set_bit(Msr::PERF_GLOBAL_CTRL, n, true);
            }
        }
        this
    }

    fn get(&self, msr: Msr) -> u64 {
        self.registers.get(&msr.value()).copied().unwrap_or(0)
    }

    fn put(&mut self, msr: Msr, value: u64) {
        self.registers.insert(msr.value(), value);
    }

    fn bit(&self, msr: Msr, bit: u32) -> bool {
        self.get(msr) >> bit & 1 == 1
    }

    fn set_bit(&mut self, msr: Msr, bit: u32, on: bool) {
        let value = self.get(msr) & !(1 << bit);
        self.put(msr, value | u64::from(on) << bit);
    }

    fn leaf(&self) -> CpuidResult {
        self.profile.cpuid_0a()
    }

    fn version(&self) -> u32 {
        self.leaf().eax % 0x100
    }

    fn gp_count(&self) -> u32 {
        self.leaf().eax / 0x100 % 0x100
    }

    fn has_fixed(&self, i: u32) -> bool {
        // Where CPUID is known to say too little, the profile knows.
        match self.profile.leaves[self.profile.leaf].fixed_counters {
            Some(count) => i < u32::from(count),
            None => self.leaf().ecx >> i & 1 == 1 || self.leaf().edx % 0x20 > i,
        }
    }

    fn width(&self, counter: Counter) -> u32 {
        let gp = self.leaf().eax / 0x1_0000 % 0x100;
        let fixed = self.leaf().edx / 0x20 % 0x100;
        match counter {
            Counter::Gp(_) => gp,
            Counter::Fixed(_) if fixed == 0 => gp,
            Counter::Fixed(_) => fixed,
        }
    }

    fn capability(&self, bit: u32) -> bool {
        self.profile.perf_capabilities().bits() >> bit & 1 == 1
    }

    fn adaptive(&self) -> bool {
        self.capability(14)
    }

    fn has_metrics(&self) -> bool {
        self.capability(15) && self.has_fixed(3)
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

    fn streamlined(&self) -> bool {
        match self.options.freeze {
            Some(flavour) => flavour == FreezeFlavour::Streamlined,
            None => self.version() >= 4,
        }
    }

    fn has_freeze_bits(&self) -> bool {
        self.version() >= 4 || self.streamlined()
    }

    /// Every counter that exists, general-purpose ones first.
    fn counters(&self) -> Vec<Counter> {
        let gp = (0..self.gp_count()).map(|n| Counter::Gp(n as u8));
        let fixed = (0..4)
            .filter(|i| self.has_fixed(*i))
            .map(|i| Counter::Fixed(i as u8));
        gp.chain(fixed).collect()
    }

    /// Where a counter's value is kept.
    fn home(counter: Counter) -> Msr {
        match counter {
            Counter::Gp(n) => Msr::PMC0.plus(u32::from(n)),
            Counter::Fixed(i) => Msr::FIXED_CTR0.plus(u32::from(i)),
        }
    }

    fn evtsel(n: u8) -> Msr {
        Msr::PERFEVTSEL0.plus(u32::from(n))
    }

    /// Bit `bit` of the four that control fixed counter `i`.
    fn fixed_bit(&self, i: u8, bit: u32) -> bool {
        self.bit(Msr::FIXED_CTR_CTRL, 4 * u32::from(i) + bit)
    }

    /// What a counter is set to count; nobody may feed it.
    fn sources(&self, counter: Counter) -> Result<SourceSet, Refusal> {
        match counter {
            Counter::Gp(n) => {
                let select = PerfEvtSel::from_bits(self.get(Self::evtsel(n)));
                self.profile.sources_of(counter, select, &self.options)
            }
            Counter::Fixed(i) => self.profile.sources_of_fixed(i, &self.options),
        }
    }

    /// At CPL 0 and above, as the control says.
    fn rings(&self, counter: Counter) -> [bool; 2] {
        match counter {
            Counter::Gp(n) => [self.bit(Self::evtsel(n), 17), self.bit(Self::evtsel(n), 16)],
            Counter::Fixed(i) => [self.fixed_bit(i, 0), self.fixed_bit(i, 1)],
        }
    }

    fn is_set_to_count(&self, counter: Counter) -> bool {
        let enabled = match counter {
            Counter::Gp(n) => self.bit(Self::evtsel(n), 22),
            Counter::Fixed(_) => true,
        };
        enabled && self.rings(counter) != [false, false]
    }
}
