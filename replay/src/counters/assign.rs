//! Which counter counts which event.

use thiserror::Error;
use vlbr_pmu::{Counter, EventSpec, Profile};

/// Events that do not fit on the counters of a part.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{profile} has no counter left for '{event}': {gp} general-purpose counters and {fixed} fixed \
     ones that can count the events of the group"
)]
pub struct AssignError {
    /// The part.
    pub profile: String,
    /// The first event without a counter.
    pub event: String,
    /// General-purpose counters of the part.
    pub gp: u32,
    /// Fixed counters of the part.
    pub fixed: u32,
}

/// A counter for each of `events`, no two the same. A fixed counter comes before general-purpose
/// ones and those in the order of their numbers, but an event gives way to a later one that has no
/// other counter, as Linux `perf_assign_events` arranges it.
///
/// # Errors
/// There are not enough counters.
pub(crate) fn assign(profile: &Profile, events: &[EventSpec]) -> Result<Vec<Counter>, AssignError> {
    let allowed: Vec<Vec<Counter>> = events
        .iter()
        .map(|event| {
            let mut counters: Vec<Counter> = event.counters.iter().collect();
            counters.sort_by_key(|counter| matches!(counter, Counter::Gp(_)));
            counters
        })
        .collect();
    let mut taken: Vec<(Counter, usize)> = Vec::new();
    for (number, event) in events.iter().enumerate() {
        if !place(number, &allowed, &mut taken, &mut Vec::new()) {
            return Err(AssignError {
                profile: profile.name().to_owned(),
                event: event.to_string(),
                gp: profile.gp_counters(),
                fixed: profile.fixed_mask().count_ones(),
            });
        }
    }
    taken.sort_by_key(|&(_, event)| event);
    Ok(taken.into_iter().map(|(counter, _)| counter).collect())
}

/// Finds `event` a counter, moving others to counters not in `tried` where that helps.
fn place(
    event: usize,
    allowed: &[Vec<Counter>],
    taken: &mut Vec<(Counter, usize)>,
    tried: &mut Vec<Counter>,
) -> bool {
    let holder =
        |taken: &[(Counter, usize)], counter| taken.iter().position(|&(of, _)| of == counter);
    let free = |&&counter: &&Counter| !tried.contains(&counter) && holder(taken, counter).is_none();
    if let Some(&counter) = allowed[event].iter().find(free) {
        taken.push((counter, event));
        return true;
    }
    for &counter in &allowed[event] {
        let Some(at) = holder(taken, counter).filter(|_| !tried.contains(&counter)) else {
            continue;
        };
        tried.push(counter);
        if place(taken[at].1, allowed, taken, tried) {
            // The other event stands in the list twice now: its old place becomes this one's.
            taken[at].1 = event;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use vlbr_pmu::{Options, SourceSet};

    use super::*;

    fn assigned(cpu: &str, events: &str) -> Result<Vec<Counter>, String> {
        let profile = Profile::named(cpu).unwrap();
        let options = Options {
            feeds: SourceSet::ALL,
            ..Options::default()
        };
        let events = profile.parse_events(events, &options).unwrap();
        assign(profile, &events).map_err(|error| error.to_string())
    }

    #[test]
    fn fixed_counters_come_first() {
        use Counter::{Fixed, Gp};
        assert_eq!(
            assigned("skylake", "branches,instructions,cycles,r20c4"),
            Ok(vec![Gp(0), Fixed(0), Fixed(1), Gp(1)])
        );
        assert_eq!(
            assigned("skylake", "instructions:u,instructions:k"),
            Ok(vec![Fixed(0), Gp(0)])
        );
    }

    #[test]
    fn an_event_gives_way_to_one_without_a_choice() {
        // INST_RETIRED.PREC_DIST is counted on PMC1 only.
        let events = "r1c4,r2c4,inst_retired.prec_dist";
        let counters = assigned("skylake", events).unwrap();
        assert_eq!(counters[2], Counter::Gp(1));
        assert!(counters[0] != counters[1] && !counters[..2].contains(&Counter::Gp(1)));
    }

    #[test]
    fn too_many_events_are_refused_by_name() {
        let error = assigned("skylake", "r1c4,r2c4,r8c4,r10c4,r20c4").unwrap_err();
        assert!(
            error.contains("'r20c4'") && error.contains("4 general-purpose"),
            "{error}"
        );
    }
}
