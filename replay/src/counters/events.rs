//! Which events a session counts, as `-e` says.

use thiserror::Error;
use vlbr_arch::PerfEvtSel;
use vlbr_pmu::{EventNameError, EventSpec, Options, Profile};

/// Why a text is no event to sample on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventListError {
    /// The part has no such event, or it cannot be counted.
    #[error(transparent)]
    Name(#[from] EventNameError),
    /// Several events that are not a group.
    #[error(
        "{0:?}: one event is sampled; others are counted beside it in a group with leader \
         sampling, -e '{{leader,others}}:S'"
    )]
    NoGroup(String),
    /// Braces that do not match, or other modifiers behind them.
    #[error("{0:?} is not of the form {{LEADER,EVENT,...}}:S")]
    Braces(String),
    /// Braces around events of which none is sampled.
    #[error("{0:?}: braces are for sampling; events that are counted are listed without them")]
    NotSampled(String),
    /// A precise event.
    #[error(
        "{0:?}: precise sampling (p) is not modelled here; without it and without skid samples fall \
         on the exact instruction and name the one that would run next"
    )]
    Precise(String),
    /// A counter that takes back what an aborted transaction counted.
    #[error("{0:?}: in_tx_cp is not modelled here: aborted transactions take nothing back")]
    Checkpointed(String),
    /// A period among the terms of an event that is not sampled.
    #[error("{0:?} is counted, not sampled: it takes no period")]
    Period(String),
}

/// Reads what `-e` gives a session that samples: one event, or a group in braces whose first event
/// is sampled and whose others are read with every sample.
///
/// # Errors
/// See [`EventListError`].
pub fn sampled_events(
    profile: &Profile,
    text: &str,
    options: &Options,
) -> Result<Vec<EventSpec>, EventListError> {
    let text = text.trim();
    let group = match text.strip_prefix('{') {
        Some(rest) => Some(
            rest.strip_suffix("}:S")
                .filter(|inside| !inside.contains(['{', '}']))
                .ok_or_else(|| EventListError::Braces(text.to_owned()))?,
        ),
        None => None,
    };
    let events = profile.parse_events(group.unwrap_or(text), options)?;
    if group.is_none() && events.len() > 1 {
        return Err(EventListError::NoGroup(text.to_owned()));
    }
    let mut refused = events.iter().enumerate();
    match refused.find_map(|(number, event)| refusal(event, number == 0)) {
        Some(error) => Err(error),
        None => Ok(events),
    }
}

/// Reads what `-e` gives a session that only counts.
///
/// # Errors
/// See [`EventListError`].
pub(crate) fn counted_events(
    profile: &Profile,
    text: &str,
    options: &Options,
) -> Result<Vec<EventSpec>, EventListError> {
    if text.split(',').any(|one| one.trim().starts_with('{')) {
        return Err(EventListError::NotSampled(text.to_owned()));
    }
    let events = profile.parse_events(text, options)?;
    match events.iter().find_map(|event| refusal(event, false)) {
        Some(error) => Err(error),
        None => Ok(events),
    }
}

/// What a replay cannot do with `event`.
fn refusal(event: &EventSpec, sampled: bool) -> Option<EventListError> {
    if event.precise > 0 {
        return Some(EventListError::Precise(event.to_string()));
    }
    if event.select.contains(PerfEvtSel::IN_TXCP) {
        return Some(EventListError::Checkpointed(event.to_string()));
    }
    (!sampled && event.period.is_some()).then(|| EventListError::Period(event.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let profile = Profile::named("skylake").unwrap();
        sampled_events(profile, text, &Options::default())
            .map(|events| events.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_event_or_a_group_with_a_leader() {
        assert_eq!(parse("instructions:u").unwrap(), ["instructions:u"]);
        assert_eq!(
            parse("{instructions:u,cpu/event=0xc4,umask=0x20/u}:S").unwrap(),
            ["instructions:u", "cpu/event=0xc4,umask=0x20/u"]
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for (text, reason) in [
            ("instructions,branches", "in a group"),
            ("{instructions", "{LEADER"),
            ("{instructions}:k", "{LEADER"),
            ("{{branches}:S}:S", "{LEADER"),
            ("instructions:pp", "precise"),
            ("cpu/event=0xc0,in_tx_cp=1/", "in_tx_cp is not"),
            ("{branches,cpu/event=0xc0,period=5/}:S", "takes no period"),
            ("instrctions", "nearest are"),
            ("", "names no event"),
            ("{}:S", "names no event"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn counted_events_have_no_braces() {
        let profile = Profile::named("skylake").unwrap();
        for text in ["{branches}:S", "branches, {branches,instructions}:S"] {
            let error = counted_events(profile, text, &Options::default()).unwrap_err();
            assert_eq!(error, EventListError::NotSampled(text.to_owned()));
        }
    }
}
