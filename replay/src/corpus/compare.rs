//! What changed between two results of a configuration, the most telling first.

use serde::Serialize;

use super::digest::{ASPECTS, first_difference};
use super::golden::{COUNTS, Results, Section, Stack};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What changed, such as `pushes` or `samples 128 to 135`.
    pub what: String,
    /// As it was.
    pub old: String,
    /// As it is.
    pub new: String,
}

fn change(what: impl Into<String>, old: impl ToString, new: impl ToString) -> Change {
    Change {
        what: what.into(),
        old: old.to_string(),
        new: new.to_string(),
    }
}

/// Everything that changed: the refusal, the register, the sums, the first differing segment, the
/// first differing entry of a stack, the hottest edges. Empty if nothing did.
pub(crate) fn compare(old: &Section, new: &Section) -> Vec<Change> {
    let verdict = |section: &Section| match section {
        Section::Refused(reason) => format!("refused: {reason}"),
        Section::Ran(results) => format!("runs, {} samples", results.counts[2]),
    };
    match (old, new) {
        (Section::Ran(old), Section::Ran(new)) => compare_results(old, new),
        _ if old == new => Vec::new(),
        _ => vec![change("verdict", verdict(old), verdict(new))],
    }
}

fn compare_results(old: &Results, new: &Results) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut texts = |what: &str, old: &String, new: &String| {
        if old != new {
            changes.push(change(what, old, new));
        }
    };
    texts("sampling", &old.sampling, &new.sampling);
    texts("register", &old.register, &new.register);
    let counts = COUNTS.iter().zip(old.counts).zip(new.counts);
    for ((name, old), new) in counts.filter(|((_, old), new)| old != new) {
        changes.push(change(*name, old, new));
    }
    if old.device != new.device {
        changes.push(change(
            "samples compared with the device",
            old.device,
            new.device,
        ));
    }
    changes.extend(segments(old, new));
    changes.extend(exercise(old, new));
    changes.extend(stacks(old, new));
    if old.edges != new.edges {
        let place = old.edges.iter().zip(&new.edges).position(|(a, b)| a != b);
        let place = place.unwrap_or(old.edges.len().min(new.edges.len()));
        let at = |edges: &[String]| edges.get(place).cloned().unwrap_or_else(|| "none".into());
        let what = format!("hottest edge number {}", place + 1);
        changes.push(change(what, at(&old.edges), at(&new.edges)));
    }
    changes
}

fn segments(old: &Results, new: &Results) -> Option<Change> {
    let range = first_difference((old.size, &old.segments), (new.size, &new.segments));
    let parts: Vec<&str> = ASPECTS
        .iter()
        .zip(old.aspects.iter().zip(&new.aspects))
        .filter(|(_, (old, new))| old != new)
        .map(|(name, _)| *name)
        .collect();
    let parts = match parts.len() {
        0 => "no checksum differs".to_owned(),
        1 => format!("{} differs", parts[0]),
        _ => format!("{} differ", parts.join(", ")),
    };
    let digest = |results: &Results, first: u64| {
        let digest = results
            .segments
            .get((first / results.size.max(1)) as usize)
            .map_or_else(|| "none".into(), |digest| format!("{digest:016x}"));
        format!("digest {digest}")
    };
    let count = |results: &Results| {
        format!(
            "{} digests of {} samples",
            results.segments.len(),
            results.size
        )
    };
    match range {
        Some((first, last)) => {
            let last = last.min(old.counts[2].max(new.counts[2]).saturating_sub(1));
            let what = format!("samples {first} to {last} ({parts})");
            Some(change(what, digest(old, first), digest(new, first)))
        }
        None if (old.size, &old.segments, old.aspects)
            != (new.size, &new.segments, new.aspects) =>
        {
            let what = format!("samples ({parts})");
            Some(change(what, count(old), count(new)))
        }
        None => None,
    }
}

/// The device alone with made-up flags.
fn exercise(old: &Results, new: &Results) -> Option<Change> {
    if old.exercised != new.exercised || old.exercise.len() != new.exercise.len() {
        let count = |results: &Results| {
            let (transfers, digests) = (results.exercised, results.exercise.len());
            format!("{transfers} transfers, {digests} digests")
        };
        return Some(change("device with made-up flags", count(old), count(new)));
    }
    let pairs = old.exercise.iter().zip(&new.exercise);
    let (index, (a, b)) = pairs.enumerate().find(|(_, (old, new))| old != new)?;
    let what = format!(
        "device with made-up flags, part {} of {}",
        index + 1,
        old.exercise.len()
    );
    let digest = |digest: &u64| format!("digest {digest:016x}");
    Some(change(what, digest(a), digest(b)))
}

/// The first stack of both results that differs, and where in it.
fn stacks(old: &Results, new: &Results) -> Option<Change> {
    let both = |old: &Stack| new.stacks.iter().find(|new| new.which == old.which);
    let mut pairs = old
        .stacks
        .iter()
        .filter_map(|old| Some((old, both(old)?)))
        .filter(|(old, new)| old != new);
    let Some((old_stack, new_stack)) = pairs.next() else {
        let names = |results: &Results| {
            let names = results.stacks.iter().map(|stack| stack.which.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let (old, new) = (names(old), names(new));
        return (old != new).then(|| change("stacks shown", old, new));
    };
    let which = &old_stack.which;
    if old_stack.about != new_stack.about {
        return Some(change(
            format!("stack of {which}"),
            &old_stack.about,
            &new_stack.about,
        ));
    }
    let entries = old_stack.entries.iter().zip(&new_stack.entries);
    let shorter = old_stack.entries.len().min(new_stack.entries.len());
    let place = entries
        .map(|(old, new)| old != new)
        .position(|differ| differ)
        .unwrap_or(shorter);
    let entry = |stack: &Stack| {
        let entry = stack.entries.get(place).cloned();
        entry.unwrap_or_else(|| "no such entry".into())
    };
    Some(change(
        format!("stack of {which}, entry {place}"),
        entry(old_stack),
        entry(new_stack),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::golden::tests::results;
    use super::*;

    /// What is reported first when `alter` has changed the results.
    fn first(alter: impl Fn(&mut Results)) -> Change {
        let old = results();
        let mut new = results();
        alter(&mut new);
        let changes = compare(
            &Section::Ran(Box::new(old.clone())),
            &Section::Ran(Box::new(new)),
        );
        assert!(!changes.is_empty());
        changes[0].clone()
    }

    #[test]
    fn every_part_of_a_result_is_compared_and_named() {
        assert_eq!(first(|r| r.sampling.push('k')).what, "sampling");
        assert_eq!(first(|r| r.register.push('0')).what, "register");
        for (index, name) in COUNTS.iter().enumerate() {
            assert_eq!(first(|r| r.counts[index] += 1).what, *name);
        }
        assert!(first(|r| r.device += 1).what.contains("device"));
        assert!(first(|r| r.exercised += 1).new.starts_with("21 transfers"));
        let part = first(|r| r.exercise[1] ^= 1).what;
        assert!(part.ends_with("part 2 of 3"), "{part}");
        for (index, name) in ASPECTS.iter().enumerate() {
            assert!(first(|r| r.aspects[index] ^= 1).what.contains(name));
        }
        assert!(
            first(|r| r.segments[0] ^= 1)
                .what
                .starts_with("samples 0 to 2 ")
        );
        assert!(first(|r| r.size *= 2).what.starts_with("samples "));
        assert_eq!(
            first(|r| r.stacks[0].about.push('0')).what,
            "stack of sample 0"
        );
        let entry = first(|r| r.stacks[0].entries[1].push('X'));
        assert_eq!(entry.what, "stack of sample 0, entry 1");
        assert_eq!(
            (entry.old, entry.new),
            ("a+3 > b+4 M".into(), "a+3 > b+4 MX".into())
        );
        let fewer = first(|r| r.stacks[0].entries.truncate(1));
        assert_eq!(fewer.new, "no such entry");
        assert_eq!(first(|r| r.stacks[1].which.push('0')).what, "stacks shown");
        assert_eq!(
            first(|r| r.edges[0].push('0')).what,
            "hottest edge number 1"
        );
        assert_eq!(first(|r| r.edges.clear()).new, "none");
    }

    #[test]
    fn register_and_sums_come_before_samples() {
        let all = first(|r| {
            r.segments[0] ^= 1;
            r.counts[6] += 1;
            r.register.push('1');
        });
        assert_eq!(all.what, "register");
    }

    #[test]
    fn a_refusal_is_a_result() {
        let ran = Section::Ran(Box::new(results()));
        let refused = Section::Refused("EINVAL".into());
        assert_eq!(compare(&refused, &refused), []);
        let changes = compare(&refused, &ran);
        assert_eq!(changes[0].old, "refused: EINVAL");
        assert_eq!(
            compare(&ran, &Section::Refused(String::new()))[0].what,
            "verdict"
        );
    }
}
