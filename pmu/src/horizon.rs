//! How far one may retire without looking.

use crate::{Counter, Increments, Selector, SkidUnit, SourceSet};

/// A counter whose next overflow must fall on its instruction: it interrupts or samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The counter.
    pub counter: Counter,
    /// What it counts.
    pub selector: Selector,
    /// Its event of this number, from 1 on, may overflow it or take its PEBS record.
    pub events: u64,
}

impl Limit {
    /// The instruction of this number, from 1 on, may reach it.
    pub(crate) fn instructions(&self) -> u64 {
        most_per_instruction(self.selector.sources)
            .map_or(1, |most| self.events.saturating_sub(1) / most + 1)
    }
}

pub(crate) fn instructions_to_delivery((unit, left): (SkidUnit, u64)) -> u64 {
    match unit {
        SkidUnit::Instructions => left.max(1),
        SkidUnit::CoreCycles => 1,
    }
}

/// How far one may retire without looking: while a run stays before every limit, its increments
/// may be added up and given to [`crate::Device::retire`] in one, or in any number of parts.
///
/// The instruction that reaches a limit is given by itself. Counters that neither interrupt nor
/// sample set no limit: they overflow into `GLOBAL_STATUS` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// The limits, general-purpose counters first.
    pub limits: Vec<Limit>,
    /// A PMI waits for so much more skid.
    pub delivery: Option<(SkidUnit, u64)>,
}

impl Horizon {
    /// The instruction of this number, from 1 on, may reach a limit: fewer may retire unlooked,
    /// so that one compare serves the common case. 1 if a limit is in units of which one
    /// instruction may bring many; `u64::MAX` without limits.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        let limits = self.limits.iter().map(Limit::instructions);
        let delivery = self.delivery.map(instructions_to_delivery);
        limits.chain(delivery).min().unwrap_or(u64::MAX)
    }

    /// Whether a run with these increments stays before every limit.
    #[must_use]
    pub fn allows(&self, increments: &Increments) -> bool {
        let before = |limit: &Limit| limit.selector.amount(increments) < limit.events;
        let undelivered = match self.delivery {
            Some((SkidUnit::Instructions, left)) => increments.instructions() < left,
            Some((SkidUnit::CoreCycles, left)) => increments.cycles() < left,
            None => true,
        };
        undelivered && self.limits.iter().all(before)
    }
}

/// How many occurrences of `sources` one instruction has at most, if that is known.
fn most_per_instruction(sources: SourceSet) -> Option<u64> {
    if !sources.is_subset_of(SourceSet::AT_MOST_ONE_EACH) {
        return None;
    }
    let branch = u64::from(!sources.without(SourceSet::NO_BRANCH).is_empty());
    let others = sources.without(SourceSet::MISPREDICTIONS);
    Some((branch + u64::from(others.bits().count_ones())).max(1))
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{BranchClass, Cpl};

    use super::*;
    use crate::{Counter, Source};

    fn limit(sources: &str, events: u64) -> Limit {
        Limit {
            counter: Counter::Gp(0),
            selector: Selector {
                sources: SourceSet::from_name(sources).unwrap(),
                kernel: false,
                user: true,
                in_tx: false,
                any_thread: false,
            },
            events,
        }
    }

    #[test]
    fn one_compare_bounds_every_counter() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.instructions(), u64::MAX);
        horizon.limits.push(limit("instructions", 100));
        assert_eq!(horizon.instructions(), 100);
        horizon.limits.push(limit("branches", 7));
        assert_eq!(
            horizon.instructions(),
            7,
            "each instruction may be a branch"
        );
        horizon.delivery = Some((SkidUnit::Instructions, 3));
        assert_eq!(horizon.instructions(), 3);
        horizon.limits.push(limit("core-cycles", 1000));
        assert_eq!(
            horizon.instructions(),
            1,
            "an instruction may take any time"
        );
    }

    #[test]
    fn a_run_is_compared_with_what_it_brings() {
        let horizon = Horizon {
            limits: vec![limit("branches", 2), limit("instructions", 10)],
            delivery: None,
        };
        let mut run = Increments::branch(BranchClass::Jcc, false, false, Cpl::Ring3);
        assert!(horizon.allows(&run));
        run.add(Source::Instructions, Cpl::Ring0, 100);
        assert!(horizon.allows(&run), "the counters are user only");
        run.add(Source::Instructions, Cpl::Ring3, 8);
        assert!(horizon.allows(&run));
        run.add(Source::Instructions, Cpl::Ring3, 1);
        assert!(!horizon.allows(&run));
    }
}
