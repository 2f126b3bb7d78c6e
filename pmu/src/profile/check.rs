//! What must hold in every profile.

use vlbr_arch::PerfCapabilities;

use super::raw::{ProfileError, invalid};
use super::{MAX_FIXED, MAX_GP, Profile};

pub(super) fn check(profile: &Profile) -> Result<(), ProfileError> {
    check_names(profile)?;
    if ![48, 57].contains(&profile.linear_address_bits) {
        return Err(invalid("linear_address_bits", "is neither 48 nor 57"));
    }
    if profile.offcore_rsp.len() > 2 {
        return Err(invalid("offcore_rsp", "there are two such registers"));
    }
    check_leaves(profile)?;
    check_pebs(profile)?;
    check_events(profile)
}

fn check_names(profile: &Profile) -> Result<(), ProfileError> {
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !plain(&profile.name) {
        return Err(invalid("name", "is not made of a-z, 0-9 and -"));
    }
    for (i, alias) in profile.aliases.iter().enumerate() {
        if !plain(alias) || *alias == profile.name || profile.aliases[..i].contains(alias) {
            return Err(invalid(
                "aliases",
                format!("{alias:?} stands twice or is not made of a-z, 0-9 and -"),
            ));
        }
    }
    if profile.models.is_empty() {
        return Err(invalid("models", "is empty"));
    }
    Ok(())
}

fn check_leaves(profile: &Profile) -> Result<(), ProfileError> {
    if profile.leaves.is_empty() {
        return Err(invalid("cpuid_0a", "is missing"));
    }
    for index in 0..profile.leaves.len() {
        let part = Profile {
            leaf: index,
            ..profile.clone()
        };
        if !(1..=6).contains(&part.version()) {
            return Err(invalid("cpuid_0a.eax", "the version is not from 1 to 6"));
        }
        if profile.leaves[index]
            .fixed_counters
            .is_some_and(|count| u32::from(count) > MAX_FIXED)
        {
            return Err(invalid(
                "cpuid_0a.fixed_counters",
                "more than 4 fixed counters",
            ));
        }
        if part.gp_counters() > MAX_GP {
            return Err(invalid("cpuid_0a.eax", "more than 8 counters"));
        }
        if !(32..=64).contains(&part.gp_width()) {
            return Err(invalid(
                "cpuid_0a.eax",
                "counters are not 32 to 64 bits wide",
            ));
        }
        if part.fixed_mask() >> MAX_FIXED != 0 {
            return Err(invalid("cpuid_0a.edx", "more than 4 fixed counters"));
        }
        // Also where no fixed counter is reported: a width without counters is still read.
        if !(32..=64).contains(&part.fixed_width()) {
            return Err(invalid(
                "cpuid_0a.edx",
                "fixed counters are not 32 to 64 bits wide",
            ));
        }
        if part.version() < 2 && part.fixed_mask() != 0 {
            return Err(invalid("cpuid_0a.edx", "fixed counters need version 2"));
        }
    }
    Ok(())
}

fn check_pebs(profile: &Profile) -> Result<(), ProfileError> {
    let capabilities = profile.perf_capabilities;
    let baseline = capabilities.contains(PerfCapabilities::PEBS_BASELINE);
    let Some(pebs) = &profile.pebs else {
        return match baseline {
            true => Err(invalid("perf_capabilities", "PEBS_BASELINE without PEBS")),
            false => Ok(()),
        };
    };
    let format = capabilities.pebs_format();
    if format > 6 {
        return Err(invalid("perf_capabilities", "PEBS formats go from 0 to 6"));
    }
    if baseline != (format >= 4) {
        return Err(invalid(
            "perf_capabilities",
            "PEBS_BASELINE belongs to formats 4 and up",
        ));
    }
    if pebs.counters == 0 {
        return Err(invalid("pebs.counters", "is 0"));
    }
    if pebs.fixed_counters != 0 && !baseline {
        return Err(invalid("pebs.fixed_counters", "needs PEBS_BASELINE"));
    }
    if (pebs.fixed_counters != 0) != pebs.fixed_reset_offset.is_some() {
        return Err(invalid(
            "pebs.fixed_reset_offset",
            "is given exactly with fixed_counters",
        ));
    }
    if u32::from(pebs.counters) >> pebs.reset_slots.min(31) != 0 {
        return Err(invalid("pebs.reset_slots", "are too few for the counters"));
    }
    if pebs
        .reserved
        .iter()
        .any(|offset| !(0x90..0xc8).contains(offset) || offset % 8 != 0)
    {
        return Err(invalid("pebs.reserved", "is no field of formats 1 to 3"));
    }
    Ok(())
}

fn check_events(profile: &Profile) -> Result<(), ProfileError> {
    for event in &profile.events {
        let bad = |what: &str| Err(invalid("event", format!("{}: {what}", event.name)));
        if event.name.is_empty() {
            return bad("has no name");
        }
        if event.fixed.is_some_and(|i| u32::from(i) >= MAX_FIXED) {
            return bad("no such fixed counter");
        }
        let beyond = |n: &u8| u32::from(*n) >= MAX_GP;
        if event
            .counters
            .as_ref()
            .is_some_and(|counters| counters.is_empty() || counters.iter().any(beyond))
        {
            return bad("no such counter");
        }
    }
    Ok(())
}
