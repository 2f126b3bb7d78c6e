//! What a session takes where its options leave a choice: PMU, privilege levels, default event.

use vlbr_lbr::Profile;
use vlbr_pmu::{EventSpec, Source, SourceSet};
use vlbr_traces::vlt::Scope;

use crate::counters::EventListError;
use crate::error::ReplayError;

/// The known PMU of the part whose LBR this is. A profile of one's own may have another name.
pub(crate) fn pmu_of(lbr: &Profile) -> Result<vlbr_pmu::Profile, ReplayError> {
    if let Ok(pmu) = vlbr_pmu::Profile::named(lbr.name()) {
        return Ok(pmu.clone());
    }
    let models: Vec<String> = lbr
        .models()
        .iter()
        .map(|model| format!("{:02X}_{:02X}", model.family, model.model))
        .collect();
    vlbr_pmu::Profile::all()
        .iter()
        .find(|pmu| pmu.models().iter().any(|model| models.contains(model)))
        .map(|pmu| pmu.renamed(lbr.name()))
        .ok_or_else(|| ReplayError::NoPmu(lbr.name().to_owned()))
}

/// The error of an event of clocks or mispredictions says what would feed it.
pub(crate) fn without_clock(event: &str, error: impl Into<ReplayError>) -> ReplayError {
    use vlbr_pmu::{EventNameError, Refusal};
    let clocks = [Source::CoreCycles, Source::ReferenceCycles];
    let fed: SourceSet = clocks.into_iter().collect();
    match error.into() {
        ReplayError::Event(EventListError::Name(EventNameError::Refused(refusal)))
        | ReplayError::EventName(EventNameError::Refused(refusal))
            if matches!(&refusal, Refusal::NotFed { missing, .. }
                if !missing.is_empty() && missing.is_subset_of(fed)) =>
        {
            ReplayError::NeedsClock {
                event: event.to_owned(),
                refusal,
            }
        }
        ReplayError::Event(EventListError::Name(EventNameError::Refused(refusal)))
        | ReplayError::EventName(EventNameError::Refused(refusal))
            if matches!(&refusal, Refusal::NotFed { missing, .. }
                if !missing.is_empty() && missing.is_subset_of(SourceSet::MISPREDICTIONS)) =>
        {
            ReplayError::NeedsPredictions(refusal)
        }
        error => error,
    }
}

/// Events without privilege levels count user code, if that is all there is.
pub(crate) fn levels(
    events: &mut [EventSpec],
    call_stack: bool,
    scope: Scope,
) -> Result<(), ReplayError> {
    let user = scope == Scope::User;
    for event in events.iter_mut() {
        if !event.explicit && (user || call_stack) {
            event.kernel = false;
        }
        if event.kernel && user {
            return Err(ReplayError::UserOnly(event.name.clone()));
        }
    }
    Ok(())
}

/// Whether every instruction is an event.
pub(crate) fn is_each_instruction(sources: SourceSet) -> bool {
    let each = [
        Source::Instructions,
        Source::CoreCycles,
        Source::ReferenceCycles,
    ];
    each.map(SourceSet::of).contains(&sources)
}

/// What is sampled if nobody says: see [`crate::SessionOptions::event`].
pub(crate) fn default_event(
    pmu: &vlbr_pmu::Profile,
    options: &vlbr_pmu::Options,
    call_stack: bool,
) -> Result<EventSpec, EventListError> {
    if call_stack {
        return Ok(pmu.parse_event("instructions", options)?);
    }
    let names = [
        "br_inst_retired.near_taken",
        "br_inst_retired.all_taken_branches",
    ];
    for name in names {
        if let Ok(event) = pmu.parse_event(name, options) {
            return Ok(event);
        }
    }
    Ok(pmu.parse_event("branches", options)?)
}
