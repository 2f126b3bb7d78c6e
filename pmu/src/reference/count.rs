//! Counting.

use vlbr_arch::Msr;

use super::{BeforeTransaction, Pmu};
use crate::{
    Counter, CounterSet, Environment, Horizon, Increments, Limit, Outcome, Pdir, PmiCause, Quirk,
    Selector, SkidUnit, Source, SourceSet,
};

impl Pmu {
    /// Whether the counter counts at all now.
    fn counts(&self, counter: Counter) -> bool {
        let frozen = self.bit(Msr::PERF_GLOBAL_STATUS, 59);
        let enabled = match (self.version(), counter) {
            (1, Counter::Gp(_)) => true,
            (1, Counter::Fixed(_)) => false,
            _ => self.bit(Msr::PERF_GLOBAL_CTRL, counter.bit()),
        };
        enabled && !frozen && self.is_set_to_count(counter) && self.sources(counter).is_ok()
    }

    fn any_thread(&self, counter: Counter) -> bool {
        let set = match counter {
            Counter::Gp(n) => self.bit(Self::evtsel(n), 21),
            Counter::Fixed(i) => self.fixed_bit(i, 2),
        };
        set && self.version() >= 3 && self.leaf().edx >> 15 & 1 == 0
    }

    fn transactions_only(&self, counter: Counter) -> bool {
        matches!(counter, Counter::Gp(n) if self.bit(Self::evtsel(n), 32))
    }

    fn interrupts(&self, counter: Counter) -> bool {
        let wanted = match counter {
            Counter::Gp(n) => self.bit(Self::evtsel(n), 20),
            Counter::Fixed(i) => self.fixed_bit(i, 3),
        };
        wanted && !self.samples(counter)
    }

    /// Occurrences of `sources` in the run, at the levels given.
    fn occurrences(sources: SourceSet, rings: [bool; 2], run: &Increments) -> u64 {
        let mut sum = 0u64;
        for (source, _) in Source::NAMED {
            for user in [false, true] {
                if sources.contains(source) && rings[usize::from(user)] {
                    sum = sum.saturating_add(run.amount(source, user));
                }
            }
        }
        sum
    }

    fn events(&self, counter: Counter, rings: [bool; 2], run: &Increments) -> u64 {
        if self.transactions_only(counter) && !run.in_tx {
            return 0;
        }
        Self::occurrences(self.sources(counter).unwrap_or_default(), rings, run)
    }

    /// How much the counter counts of the run.
    fn increment(&mut self, counter: Counter, run: &Increments) -> u64 {
        let rings = self.rings(counter);
        let events = self.events(counter, rings, run);
        let Some(select) = self.select_of(counter) else {
            return events;
        };
        if select.event() == 0xc4 && self.has(Quirk::LostBranches) {
            return self.without_lost(counter, events);
        }
        let (threshold, inverted) = (u64::from(select.cmask()), select.bits() >> 23 & 1 == 1);
        let edge = select.bits() >> 18 & 1 == 1;
        if threshold == 0 && !edge {
            return events;
        }
        let clocks = match self.transactions_only(counter) && !run.in_tx {
            true => 0,
            false => Self::occurrences(SourceSet::of(Source::CoreCycles), rings, run),
        };
        let condition = if clocks == 0 {
            false
        } else if threshold == 0 {
            events > 0
        } else if inverted {
            events < threshold
        } else {
            events >= threshold
        };
        let before = self.held_high.contains(&counter);
        self.held_high.retain(|other| *other != counter);
        if condition {
            self.held_high.push(counter);
        }
        u64::from(if edge {
            condition && !before
        } else {
            condition
        })
    }

    /// E20, one branch after the other.
    fn without_lost(&mut self, counter: Counter, events: u64) -> u64 {
        let place = match counter {
            Counter::Gp(n) => u64::from(n),
            Counter::Fixed(i) => 8 + u64::from(i),
        };
        let seed = self.options.seed ^ place;
        let span = 2 * u64::from(self.options.branch_lost_one_in.get()) - 1;
        let (mut drawn, mut left) = self.gaps.get(&counter).copied().unwrap_or((0, 0));
        if left == 0 {
            drawn += 1;
            left = 1 + split_mix(seed, drawn) % span;
        }
        let mut counted = 0;
        for _ in 0..events {
            left -= 1;
            if left == 0 {
                drawn += 1;
                left = 1 + split_mix(seed, drawn) % span;
            } else {
                counted += 1;
            }
        }
        self.gaps.insert(counter, (drawn, left));
        counted
    }

    pub(super) fn run(&mut self, run: &Increments, environment: &mut dyn Environment) -> Outcome {
        if run.in_tx && !self.in_tx && self.bit(Self::evtsel(2), 33) {
            self.before = Some(BeforeTransaction {
                pmc2: self.get(Self::home(Counter::Gp(2))),
                overflow2: self.bit(Msr::PERF_GLOBAL_STATUS, 2),
            });
        }
        if !run.in_tx {
            self.before = None;
        }
        self.in_tx = run.in_tx;
        let gone = match self.options.skid_unit {
            SkidUnit::Instructions => run.instructions(),
            SkidUnit::CoreCycles => run.cycles(),
        };
        if let Some(pending) = &mut self.pending {
            pending.remaining -= pending.remaining.min(gone);
        }
        self.boundary(run, false, environment)
    }

    /// Counters count, overflows are seen, records are taken, PMIs are raised.
    pub(super) fn boundary(
        &mut self,
        run: &Increments,
        of_sibling: bool,
        environment: &mut dyn Environment,
    ) -> Outcome {
        let counting: Vec<Counter> = self
            .counters()
            .into_iter()
            .filter(|counter| self.counts(*counter))
            .filter(|counter| !of_sibling || self.any_thread(*counter))
            .collect();
        let mut overflowed = Vec::new();
        let mut record_due = false;
        for counter in counting {
            let increment = self.increment(counter, run);
            let leaked = self.has(Quirk::PebsCplLeak) && self.events(counter, [true; 2], run) > 0;
            if self.armed.contains(&counter) && (increment > 0 || leaked) {
                record_due = true;
            }
            if let Counter::Gp(n) = counter
                && increment > 0
                && self.bit(Self::evtsel(n), 35)
                && !of_sibling
            {
                environment.log_event(n, increment);
            }
            let end = 1u128 << self.width(counter);
            let sum = u128::from(self.get(Self::home(counter))) + u128::from(increment);
            self.put(Self::home(counter), (sum % end) as u64);
            if sum >= end {
                overflowed.push(counter);
            }
        }
        for counter in &overflowed {
            self.set_bit(Msr::PERF_GLOBAL_STATUS, counter.bit(), true);
            if self.samples(*counter) {
                if self.is_exact(*counter) {
                    record_due = true;
                }
                if !self.armed.contains(counter) {
                    self.armed.push(*counter);
                }
            }
        }
        let interrupt = overflowed.iter().any(|counter| self.interrupts(*counter));
        let mut outcome = Outcome {
            overflowed: CounterSet(overflowed.iter().fold(0, |set, c| set | 1 << c.bit())),
            pmi: interrupt.then_some(PmiCause::Counter),
            pebs: None,
        };
        let mut threshold = false;
        if record_due && !self.in_smm {
            let (made, reached) = self.make_record(environment);
            outcome.pebs = Some(made);
            threshold = reached;
        }
        if interrupt {
            self.raise_pmi(PmiCause::Counter, environment);
        }
        if threshold {
            self.raise_pmi(PmiCause::Pebs, environment);
            outcome.pmi = Some(outcome.pmi.unwrap_or(PmiCause::Pebs));
        }
        outcome
    }

    fn is_exact(&self, counter: Counter) -> bool {
        match self.profile.pebs.as_ref().map(|pebs| pebs.pdir) {
            None | Some(Pdir::None) => false,
            Some(Pdir::EveryEvent) => true,
            Some(Pdir::Fixed0Pmc0) => [Counter::Gp(0), Counter::Fixed(0)].contains(&counter),
            Some(Pdir::PrecDist) => {
                counter == Counter::Gp(1) && self.get(Self::evtsel(1)) % 0x1_0000 == 0x01c0
            }
        }
    }

    pub(super) fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.put(Self::home(Counter::Gp(2)), before.pmc2);
            if !before.overflow2 {
                self.set_bit(Msr::PERF_GLOBAL_STATUS, 2, false);
            }
        }
        self.in_tx = false;
    }

    pub(super) fn selector(&self, counter: Counter) -> Selector {
        let [kernel, user] = self.rings(counter);
        Selector {
            sources: self.sources(counter).unwrap_or_default(),
            kernel,
            user,
            in_tx: self.transactions_only(counter),
            any_thread: self.any_thread(counter),
        }
    }

    pub(super) fn counting(&self) -> Vec<Counter> {
        let all = self.counters().into_iter();
        all.filter(|counter| self.counts(*counter)).collect()
    }

    pub(super) fn limits(&self) -> Horizon {
        let mut limits = Vec::new();
        for counter in self.counting() {
            let mut selector = self.selector(counter);
            let to_overflow =
                (1u128 << self.width(counter)) - u128::from(self.get(Self::home(counter)));
            let events = if self.armed.contains(&counter) {
                if self.has(Quirk::PebsCplLeak) {
                    selector.kernel = true;
                    selector.user = true;
                }
                1
            } else if self.interrupts(counter) || self.samples(counter) {
                u64::try_from(to_overflow).unwrap_or(u64::MAX)
            } else {
                continue;
            };
            limits.push(Limit {
                counter,
                selector,
                events,
            });
        }
        let waiting = self.pending.filter(|pending| pending.remaining > 0);
        Horizon {
            limits,
            delivery: waiting.map(|pending| (self.options.skid_unit, pending.remaining)),
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
