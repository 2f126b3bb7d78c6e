//! Events of a part, by code and by name.

use vlbr_arch::PerfEvtSel;

use super::Profile;
use crate::{Counter, Options, Refusal, SourceSet};

/// An event that a part is known to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventEntry {
    pub(crate) name: String,
    pub(crate) code: u8,
    pub(crate) umask: u8,
    pub(crate) counts: SourceSet,
    pub(crate) fixed: Option<u8>,
    pub(crate) counters: Option<Vec<u8>>,
    pub(crate) architectural: Option<u8>,
}

impl EventEntry {
    /// As Intel's list spells it, or perf for the architectural ones.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Event and unit mask. For the events of fixed counters the pseudo encoding of Intel's lists
    /// and of perf: event 0, unit mask 1 for fixed counter 0 and so on.
    #[must_use]
    pub const fn select(&self) -> PerfEvtSel {
        PerfEvtSel::of_event(self.code, self.umask)
    }

    /// What it counts; empty if no model tells.
    #[must_use]
    pub const fn counts(&self) -> SourceSet {
        self.counts
    }

    /// The only fixed counter that counts it, if one does.
    #[must_use]
    pub const fn fixed(&self) -> Option<u8> {
        self.fixed
    }

    /// The general-purpose counters that count it, if not all do.
    #[must_use]
    pub fn counters(&self) -> Option<&[u8]> {
        self.counters.as_deref()
    }

    /// Its number among the architectural events.
    #[must_use]
    pub const fn architectural(&self) -> Option<u8> {
        self.architectural
    }
}

/// How many names an error suggests.
const SUGGESTIONS: usize = 3;

impl Profile {
    /// What a general-purpose counter counts with `select`.
    ///
    /// # Errors
    /// The event is not known, not available, not counted on this counter, or cannot be fed as
    /// `options` say; CMASK or E without increments cycle by cycle.
    pub fn sources_of(
        &self,
        counter: Counter,
        select: PerfEvtSel,
        options: &Options,
    ) -> Result<SourceSet, Refusal> {
        let (code, umask) = (select.event(), select.umask());
        let same = |event: &&EventEntry| event.code == code && event.umask == umask;
        let mut matching = self
            .events
            .iter()
            .filter(same)
            .filter(|event| event.fixed.is_none());
        let nearest = || self.nearest_codes(code, options);
        let Some(first) = matching.clone().next() else {
            return Err(Refusal::UnknownEvent {
                counter,
                select: PerfEvtSel::of_event(code, umask),
                nearest: nearest(),
            });
        };
        let available = |event: &&EventEntry| {
            event
                .architectural
                .is_none_or(|n| self.architectural_event(n))
        };
        let Some(event) = matching.find(available) else {
            return Err(Refusal::NotAvailable {
                counter,
                event: first.name.clone(),
                nearest: nearest(),
            });
        };
        let (Counter::Gp(n) | Counter::Fixed(n)) = counter;
        if let Some(allowed) = event.counters.as_ref().filter(|list| !list.contains(&n)) {
            return Err(Refusal::WrongCounter {
                counter,
                event: event.name.clone(),
                allowed: allowed.clone(),
            });
        }
        self.fed(counter, event, options)?;
        let bits = match (select.cmask() != 0, select.contains(PerfEvtSel::EDGE)) {
            (true, true) => "CMASK and E",
            (true, false) => "CMASK",
            (false, true) => "E",
            (false, false) => return Ok(event.counts),
        };
        if options.cycle_by_cycle {
            return Ok(event.counts);
        }
        Err(Refusal::NeedsCycles {
            counter,
            event: event.name.clone(),
            bits,
        })
    }

    /// What fixed counter `i` counts.
    ///
    /// # Errors
    /// It cannot be fed as `options` say.
    pub fn sources_of_fixed(&self, i: u8, options: &Options) -> Result<SourceSet, Refusal> {
        let counter = Counter::Fixed(i);
        let Some(event) = self.events.iter().find(|event| event.fixed == Some(i)) else {
            return Err(Refusal::UnknownEvent {
                counter,
                select: PerfEvtSel::of_event(0, i.saturating_add(1)),
                nearest: self.nearest_codes(0, options),
            });
        };
        self.fed(counter, event, options)?;
        Ok(event.counts)
    }

    fn fed(&self, counter: Counter, event: &EventEntry, options: &Options) -> Result<(), Refusal> {
        let missing = event.counts.needed().without(options.feeds);
        if missing.is_empty() && !event.counts.is_empty() {
            return Ok(());
        }
        Err(Refusal::NotFed {
            counter,
            event: event.name.clone(),
            missing,
            nearest: self.nearest_names(&event.name, options),
        })
    }

    /// Whether the part counts `event` and `options` feed it.
    #[must_use]
    pub fn is_fed(&self, event: &EventEntry, options: &Options) -> bool {
        let available = event
            .architectural
            .is_none_or(|n| self.architectural_event(n));
        let exists = event.fixed.is_none_or(|i| self.fixed_mask() >> i & 1 != 0);
        available
            && exists
            && !event.counts.is_empty()
            && event.counts.needed().is_subset_of(options.feeds)
    }

    /// Names of fed events whose code is nearest to `code`.
    fn nearest_codes(&self, code: u8, options: &Options) -> Vec<String> {
        let mut fed: Vec<_> = self
            .events
            .iter()
            .filter(|event| self.is_fed(event, options))
            .collect();
        fed.sort_by_key(|event| event.code.abs_diff(code));
        names(fed.into_iter())
    }

    /// Names of fed events nearest to `name`, as a person may have misspelt it.
    #[must_use]
    pub fn nearest_names(&self, name: &str, options: &Options) -> Vec<String> {
        let name = name.to_ascii_lowercase();
        let mut fed: Vec<_> = self
            .events
            .iter()
            .filter(|event| self.is_fed(event, options))
            .map(|event| (distance(&name, &event.name.to_ascii_lowercase()), event))
            .collect();
        fed.sort_by_key(|(distance, _)| *distance);
        names(fed.into_iter().map(|(_, event)| event))
    }
}

fn names<'a>(events: impl Iterator<Item = &'a EventEntry>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for event in events {
        if !names.contains(&event.name) {
            names.push(event.name.clone());
        }
        if names.len() == SUGGESTIONS {
            break;
        }
    }
    names
}

/// Longest name that is compared: longer ones are cut.
const LONGEST: usize = 64;

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let a = &a.as_bytes()[..a.len().min(LONGEST)];
    let b = &b.as_bytes()[..b.len().min(LONGEST)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("x", "x", 0),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
