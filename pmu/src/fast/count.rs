//! Counting.

use vlbr_arch::PerfEvtSel;

use super::{Active, Checkpoint, Loss, Pmu, SLOTS, slot};
use crate::profile::Pdir;
use crate::{
    Counter, CounterSet, Environment, Horizon, Increments, Limit, Outcome, PmiCause, Quirk,
    Selector, SkidUnit, Source, SourceSet,
};

/// Amounts per counter do not tell the device enough: it wants [`Pmu::retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountsError {
    /// Not one amount for each active counter.
    #[error("{given} amounts for {active} active counters")]
    Length {
        /// Amounts given.
        given: usize,
        /// Active counters.
        active: usize,
    },
    /// Clocks are counted one by one, or an armed counter of E10a looks at other levels.
    #[error("the device wants increments by source")]
    Sources,
}

impl Pmu {
    /// See [`crate::Device::retire`].
    pub fn retire(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        self.follow_transaction(run.in_tx);
        let gone = match self.options.skid_unit {
            SkidUnit::Instructions => run.instructions(),
            SkidUnit::CoreCycles => run.cycles(),
        };
        self.skid(gone);
        self.count(run, false, environment)
    }

    /// See [`crate::Device::retire_sibling`].
    pub fn retire_sibling(
        &mut self,
        run: &Increments,
        environment: &mut dyn Environment,
    ) -> Outcome {
        self.count(run, true, environment)
    }

    /// [`Pmu::retire`] outside of transactions, for a run given as how much each counter of
    /// [`Pmu::active`] counts, in that order, and the instructions and core clocks at every level.
    /// A replay works these out per step, once, and sums them in its loop.
    ///
    /// # Errors
    /// The amounts do not tell enough. Nothing is changed then.
    pub fn retire_amounts(
        &mut self,
        amounts: &[u64],
        instructions: u64,
        cycles: u64,
        environment: &mut dyn Environment,
    ) -> Result<Outcome, AmountsError> {
        if amounts.len() != self.active.len() {
            return Err(AmountsError::Length {
                given: amounts.len(),
                active: self.active.len(),
            });
        }
        if self.options.cycle_by_cycle || self.armed != 0 && self.config.has(Quirk::PebsCplLeak) {
            return Err(AmountsError::Sources);
        }
        self.follow_transaction(false);
        self.skid(match self.options.skid_unit {
            SkidUnit::Instructions => instructions,
            SkidUnit::CoreCycles => cycles,
        });
        if !self.lossy {
            return Ok(self.add(amounts, 0, true, environment));
        }
        let mut counted = [0; SLOTS];
        for (i, amount) in amounts.iter().enumerate() {
            let active = self.active[i];
            counted[i] = match active.lossy {
                true => self.lose(slot(active.counter), *amount),
                false => *amount,
            };
        }
        Ok(self.add(&counted[..amounts.len()], 0, true, environment))
    }

    fn skid(&mut self, gone: u64) {
        if let Some(pending) = &mut self.pending {
            pending.remaining = pending.remaining.saturating_sub(gone);
        }
    }

    fn count(
        &mut self,
        run: &Increments,
        sibling: bool,
        environment: &mut dyn Environment,
    ) -> Outcome {
        let mut amounts = [0; SLOTS];
        let mut leaked = 0;
        for (i, amount) in (0..self.active.len()).zip(&mut amounts) {
            let active = self.active[i];
            if sibling && !active.selector.any_thread {
                continue;
            }
            *amount = self.amount(&active, run);
            let bit = 1u64 << active.counter.bit();
            if self.armed & bit != 0 && self.leaks(&active.selector, run) {
                leaked |= bit;
            }
        }
        let given = &amounts[..self.active.len()];
        self.add(given, leaked, !sibling, environment)
    }

    /// Adds to each active counter what it counts. `happened` are counters whose event occurred
    /// without being counted.
    fn add(
        &mut self,
        amounts: &[u64],
        mut happened: u64,
        own: bool,
        environment: &mut dyn Environment,
    ) -> Outcome {
        let mut overflowed = 0u64;
        for (active, amount) in self.active.iter().zip(amounts) {
            let bit = 1u64 << active.counter.bit();
            let value = &mut self.values[slot(active.counter)];
            if *amount <= active.mask - *value {
                *value += amount;
            } else {
                let sum = u128::from(*value) + u128::from(*amount);
                *value = sum as u64 & active.mask;
                overflowed |= bit;
            }
            happened |= u64::from(*amount != 0) << active.counter.bit();
            if active.logs && own && *amount != 0 {
                environment.log_event(active.counter.bit() as u8, *amount);
            }
        }
        if overflowed | happened & self.armed == 0 {
            return Outcome::default();
        }
        self.overflow(overflowed, happened, environment)
    }

    fn overflow(
        &mut self,
        overflowed: u64,
        happened: u64,
        environment: &mut dyn Environment,
    ) -> Outcome {
        self.status |= overflowed;
        let (mut interrupting, mut exact, mut arming) = (0, 0, 0);
        for active in &self.active {
            let bit = 1u64 << active.counter.bit();
            interrupting |= u64::from(active.interrupts) * bit;
            if active.pebs {
                arming |= bit;
                exact |= u64::from(self.is_exact(active.counter)) * bit;
            }
        }
        let due = self.armed & happened | overflowed & arming & exact;
        self.armed |= overflowed & arming;
        let mut outcome = Outcome {
            overflowed: CounterSet(overflowed),
            ..Outcome::default()
        };
        let mut threshold = false;
        if due != 0 && !self.in_smm {
            let (record, reached) = self.take_record(environment);
            outcome.pebs = Some(record);
            threshold = reached;
        }
        for (raised, cause) in [
            (overflowed & interrupting != 0, PmiCause::Counter),
            (threshold, PmiCause::Pebs),
        ] {
            if raised {
                self.raise(cause, environment);
                outcome.pmi = outcome.pmi.or(Some(cause));
            }
        }
        outcome
    }

    fn is_exact(&self, counter: Counter) -> bool {
        match self.config.pdir {
            Pdir::None => false,
            Pdir::EveryEvent => true,
            Pdir::Fixed0Pmc0 => matches!(counter, Counter::Gp(0) | Counter::Fixed(0)),
            Pdir::PrecDist => {
                let select = self.evtsel[1];
                counter == Counter::Gp(1) && (select.event(), select.umask()) == (0xc0, 1)
            }
        }
    }

    /// E10a: an event of the other level takes the record.
    fn leaks(&self, selector: &Selector, run: &Increments) -> bool {
        let everywhere = Selector {
            kernel: true,
            user: true,
            ..*selector
        };
        self.config.has(Quirk::PebsCplLeak) && everywhere.amount(run) != 0
    }

    fn amount(&mut self, active: &Active, run: &Increments) -> u64 {
        let amount = active.selector.amount(run);
        if active.lossy {
            return self.lose(slot(active.counter), amount);
        }
        if active.cmask == 0 && !active.edge {
            return amount;
        }
        let clock = Selector {
            sources: SourceSet::of(Source::CoreCycles),
            ..active.selector
        };
        let threshold = u64::from(active.cmask);
        let holds = clock.amount(run) != 0
            && match (threshold, active.invert) {
                (0, _) => amount != 0,
                (_, false) => amount >= threshold,
                (_, true) => amount < threshold,
            };
        let bit = 1u64 << active.counter.bit();
        let held = self.conditions & bit != 0;
        self.conditions &= !bit;
        if holds {
            self.conditions |= bit;
        }
        u64::from(holds && !(active.edge && held))
    }

    /// E20: what is left of `amount` branches.
    fn lose(&mut self, at: usize, amount: u64) -> u64 {
        let (seed, mean) = (self.options.seed, self.options.branch_lost_one_in.get());
        let Loss { draws, left } = &mut self.losses[at];
        let mut draw = || {
            *draws += 1;
            1 + noise(seed ^ at as u64, *draws) % (2 * u64::from(mean) - 1)
        };
        if *left == 0 {
            *left = draw();
        }
        let (mut rest, mut lost) = (amount, 0);
        while rest >= *left {
            rest -= *left;
            lost += 1;
            *left = draw();
        }
        *left -= rest;
        amount - lost
    }

    fn follow_transaction(&mut self, in_tx: bool) {
        if in_tx && !self.in_tx && self.evtsel[2].contains(PerfEvtSel::IN_TXCP) {
            self.checkpoint = Some(Checkpoint {
                value: self.values[2],
                overflowed: self.status & 1 << 2 != 0,
            });
        } else if !in_tx {
            self.checkpoint = None;
        }
        self.in_tx = in_tx;
    }

    /// See [`crate::Device::abort_transaction`].
    pub fn abort_transaction(&mut self) {
        self.in_tx = false;
        if let Some(checkpoint) = self.checkpoint.take() {
            self.values[2] = checkpoint.value;
            if !checkpoint.overflowed {
                self.status &= !(1 << 2);
            }
        }
    }

    /// Events until something must happen at its instruction.
    fn limit(&self, active: &Active) -> Option<u64> {
        if active.pebs && self.armed >> active.counter.bit() & 1 != 0 {
            return Some(1);
        }
        if !(active.pebs || active.interrupts) {
            return None;
        }
        Some((active.mask - self.values[slot(active.counter)]).saturating_add(1))
    }

    fn limits(&self) -> impl Iterator<Item = Limit> {
        self.active.iter().filter_map(|active| {
            let events = self.limit(active)?;
            let armed = self.armed >> active.counter.bit() & 1 != 0;
            let mut selector = active.selector;
            if armed && self.config.has(Quirk::PebsCplLeak) {
                (selector.kernel, selector.user) = (true, true);
            }
            Some(Limit {
                counter: active.counter,
                selector,
                events,
            })
        })
    }

    fn delivery(&self) -> Option<(SkidUnit, u64)> {
        self.pending
            .filter(|pending| pending.remaining != 0)
            .map(|pending| (self.options.skid_unit, pending.remaining))
    }

    /// See [`crate::Device::horizon`].
    #[must_use]
    pub fn horizon(&self) -> Horizon {
        Horizon {
            limits: self.limits().collect(),
            delivery: self.delivery(),
        }
    }

    /// Whether a PMI waits for its skid: [`Horizon::delivery`].
    #[must_use]
    pub fn awaits_delivery(&self) -> bool {
        self.delivery().is_some()
    }

    /// [`Horizon::instructions`] of [`Pmu::horizon`], without the list of limits.
    #[must_use]
    pub fn instructions_unlooked(&self) -> u64 {
        let limits = self.limits().map(|limit| limit.instructions());
        let delivery = self
            .delivery()
            .map(crate::horizon::instructions_to_delivery);
        limits.chain(delivery).min().unwrap_or(u64::MAX)
    }
}

/// Draw `n` of the seeded stream: SplitMix64.
fn noise(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
