//! Whether a spec can be generated.

use vlbr_cpu::ExitInstruction;
use vlbr_lbr::Profile;

use super::due::{MOST_SITES, kinds};
use super::exits::Emitted;
use super::spec::{CodeSpec, Spec};

/// What in a spec cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SpecError {
    /// The field, with the tables around it.
    pub field: String,
    /// Why not.
    pub reason: String,
}

/// How far shares may be from 1 in sum.
const SUM_TOLERANCE: f64 = 0.01;
/// Deepest structure of calls.
pub(super) const MAX_LEVELS: usize = 256;
/// Most functions of a ring.
pub(super) const MAX_FUNCTIONS: u32 = 4000;
/// Most targets of an indirect branch.
pub(super) const MAX_TARGETS: u32 = 512;
/// Most events of all kinds, or exits of all kinds, per million instructions.
const MAX_RATE: f64 = 20_000.0;
/// Sites are met so much more often than their instruction is due, at least.
const LEAST_SPARE: f64 = 1.5;
/// Fewest instructions of the kernel for each entry.
const LEAST_ENTRY: f64 = 60.0;
/// Fewest instructions between two reads of the LBR: a read takes fewer.
const LEAST_PERIOD: u64 = 1000;

fn refuse<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError {
        field: field.into(),
        reason: reason.into(),
    })
}

/// Whether `value` is a number from `low` to `high`.
fn within(field: impl Into<String>, value: f64, low: f64, high: f64) -> Result<(), SpecError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    refuse(field, format!("{value} is not from {low} to {high}"))
}

pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    if spec.name.is_empty() || spec.name.len() > 100 || spec.name.chars().any(char::is_control) {
        return refuse(
            "name",
            "1 to 100 characters, none of them control characters",
        );
    }
    if i64::try_from(spec.seed).is_err() {
        return refuse("seed", format!("{} is above 2^63 - 1", spec.seed));
    }
    within("instructions", spec.instructions as f64, 1000.0, 1e13)?;
    within("threads", spec.threads.into(), 1.0, 1024.0)?;
    if spec.user.is_none() && spec.kernel.is_none() {
        return refuse(
            "user",
            "neither user nor kernel code; one of [user] and [kernel] is needed",
        );
    }
    for (name, code) in [("user", &spec.user), ("kernel", &spec.kernel)] {
        if let Some(code) = code {
            check_code(name, code)?;
        }
    }
    check_events(spec)?;
    check_exits(spec)?;
    check_lbr(spec)
}

fn check_code(name: &str, code: &CodeSpec) -> Result<(), SpecError> {
    let at = |field: &str| format!("{name}.{field}");
    let branches = &code.branches;
    within(
        at("functions"),
        code.functions.into(),
        1.0,
        MAX_FUNCTIONS.into(),
    )?;
    within(at("block"), code.block, 1.5, 200.0)?;
    for (field, share) in [
        ("conditional", branches.conditional),
        ("jump", branches.jump),
        ("indirect_jump", branches.indirect_jump),
        ("call", branches.call),
        ("indirect_call", branches.indirect_call),
        ("zero_call", branches.zero_call),
    ] {
        within(at(&format!("branches.{field}")), share, 0.0, 1.0)?;
    }
    within(at("branches.call"), branches.call, 0.001, 0.45)?;
    let sum = branches.conditional
        + branches.jump
        + branches.indirect_jump
        + branches.zero_call
        + 2.0 * branches.returns();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        let reason = format!("the shares sum to {sum:.4}, not 1, with a return for each call");
        return refuse(at("branches"), reason);
    }
    let taken = &code.conditional.taken;
    shares(&at("conditional.taken"), taken.iter().map(|s| s.1))?;
    for (probability, _) in taken {
        within(at("conditional.taken"), *probability, 0.0, 1.0)?;
    }
    within(at("loops.share"), code.loops.share, 0.0, 1.0)?;
    shares(&at("loops.trips"), code.loops.trips.iter().map(|s| s.1))?;
    for (trips, _) in &code.loops.trips {
        within(at("loops.trips"), *trips, 1.0, 1e6)?;
    }
    within(at("loops.nest"), code.loops.nest.into(), 1.0, 8.0)?;
    within(at("calls.base"), code.calls.base.into(), 0.0, 64.0)?;
    let levels = code.calls.depth.len();
    if levels > MAX_LEVELS {
        let reason = format!("{levels} levels of calls, at most {MAX_LEVELS}");
        return refuse(at("calls.depth"), reason);
    }
    shares(&at("calls.depth"), code.calls.depth.iter().copied())?;
    if let Some(gap) = code.calls.depth.iter().position(|&share| share <= 0.0) {
        let reason = format!("level {} has no calls, so nothing leads below it", gap + 1);
        return refuse(at("calls.depth"), reason);
    }
    if (code.functions as usize) < levels {
        let reason = format!("{} for {levels} levels of calls", code.functions);
        return refuse(at("functions"), reason);
    }
    within(at("calls.recursion"), code.calls.recursion, 0.0, 0.9)?;
    within(
        at("calls.recursion_depth"),
        code.calls.recursion_depth,
        2.0,
        10_000.0,
    )?;
    for (field, targets) in [
        ("indirect.jump_targets", &code.indirect.jump_targets),
        ("indirect.call_targets", &code.indirect.call_targets),
    ] {
        shares(&at(field), targets.iter().map(|s| s.1))?;
        for (count, _) in targets {
            within(at(field), (*count).into(), 1.0, MAX_TARGETS.into())?;
        }
    }
    Ok(())
}

/// Whether these are shares of a whole.
fn shares(field: &str, shares: impl Iterator<Item = f64> + Clone) -> Result<(), SpecError> {
    if shares.clone().count() > 1000 {
        return refuse(field, "more than 1000 entries");
    }
    for share in shares.clone() {
        within(field, share, 0.0, 1.0)?;
    }
    let sum: f64 = shares.sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return refuse(field, format!("the shares sum to {sum:.4}, not 1"));
    }
    Ok(())
}

fn check_events(spec: &Spec) -> Result<(), SpecError> {
    let events = &spec.events;
    for (field, rate) in [
        ("events.syscalls", events.syscalls),
        ("events.interrupts", events.interrupts),
        ("events.exceptions", events.exceptions),
    ] {
        within(field, rate, 0.0, MAX_RATE)?;
    }
    within("events.handler", events.handler, LEAST_ENTRY, 1e9)?;
    if events.syscalls > 0.0 && spec.user.is_none() {
        return refuse("events.syscalls", "there is no [user] code to make them");
    }
    let entries = events.syscalls + events.interrupts + events.exceptions;
    let both = spec.user.is_some() && spec.kernel.is_some();
    match spec.kernel_share {
        None if both => refuse(
            "kernel_share",
            "missing; [user] and [kernel] share the instructions",
        ),
        Some(_) if !both => refuse("kernel_share", "there is code of one ring only"),
        None => {
            let taken = entries * events.handler / 1e6;
            if spec.user.is_none() && taken > 0.9 {
                let reason = format!(
                    "handlers of {} instructions would take {:.0} % of all",
                    events.handler,
                    100.0 * taken
                );
                return refuse("events.handler", reason);
            }
            Ok(())
        }
        Some(share) => {
            within("kernel_share", share, 0.001, 0.999)?;
            if entries <= 0.0 {
                return refuse("events", "nothing enters the kernel: all rates are 0");
            }
            let each = share * 1e6 / entries;
            if each < LEAST_ENTRY {
                let reason = format!(
                    "{share} leaves {each:.0} instructions for each of {entries} entries a million, \
                     {LEAST_ENTRY} are needed"
                );
                return refuse("kernel_share", reason);
            }
            Ok(())
        }
    }
}

fn check_exits(spec: &Spec) -> Result<(), SpecError> {
    let mut sum = 0.0;
    let mut halts = 0.0;
    if spec.exits.len() > 1000 {
        return refuse("exits", "more than 1000 entries");
    }
    for (number, rate) in (1..).zip(&spec.exits) {
        let emitted =
            Emitted::new(rate, spec.kernel.is_some()).map_err(|(field, reason)| SpecError {
                field: format!("exits {number} ({}), {field}", printable(&rate.instruction)),
                reason,
            })?;
        let field = |name: &str| format!("exits {number} ({}), {name}", rate.instruction);
        within(field("per_million"), rate.per_million, 0.0, MAX_RATE)?;
        let there = if emitted.user {
            &spec.user
        } else {
            &spec.kernel
        };
        if there.is_none() {
            return refuse(field("ring"), "there is no code of this ring");
        }
        sum += rate.per_million;
        if emitted.instruction == ExitInstruction::Hlt {
            halts += rate.per_million;
        }
    }
    within("exits, per_million of all", sum, 0.0, MAX_RATE)?;
    for (user, code) in [(true, &spec.user), (false, &spec.kernel)] {
        if let Some(code) = code {
            check_sites(spec, code, user)?;
        }
    }
    if halts > spec.events.interrupts {
        let reason = format!(
            "{} per million, but {halts} HLTs wait for one each",
            spec.events.interrupts
        );
        return refuse("events.interrupts", reason);
    }
    Ok(())
}

/// Whether there are branches enough to hold what is due at its rate.
fn check_sites(spec: &Spec, code: &CodeSpec, user: bool) -> Result<(), SpecError> {
    let share = match spec.kernel_share {
        Some(share) if user => 1.0 - share,
        Some(share) => share,
        None => 1.0,
    };
    let due = kinds(spec)
        .iter()
        .filter(|kind| kind.user == user)
        .map(|kind| kind.rate)
        .sum::<f64>();
    let forward = 1e6 / code.block * code.branches.conditional * (1.0 - code.loops.share);
    let most = MOST_SITES * forward * share / LEAST_SPARE;
    if due > most {
        let ring = if user { "user" } else { "kernel" };
        let reason = format!(
            "{due} system calls and exits a million do not fit into this code, {most:.0} would"
        );
        return refuse(ring, reason);
    }
    Ok(())
}

/// The start of a text out of a file, fit for an error.
fn printable(text: &str) -> String {
    text.chars()
        .take(40)
        .flat_map(char::escape_default)
        .collect()
}

fn check_lbr(spec: &Spec) -> Result<(), SpecError> {
    let Some(lbr) = &spec.lbr else {
        return Ok(());
    };
    if spec.kernel.is_none() {
        return refuse("lbr", "there is no [kernel] to use it");
    }
    if let Err(error) = Profile::named(&lbr.cpu) {
        return refuse("lbr.cpu", printable_reason(&error.to_string()));
    }
    if i64::try_from(lbr.select).is_err() {
        return refuse("lbr.select", format!("{} is above 2^63 - 1", lbr.select));
    }
    for (field, length) in [
        ("lbr.period", Some(lbr.period)),
        ("lbr.active", lbr.active),
        ("lbr.idle", lbr.idle),
    ] {
        if let Some(length) = length {
            within(field, length as f64, LEAST_PERIOD as f64, 1e13)?;
        }
    }
    if lbr.idle.is_some() && lbr.active.is_none() {
        return refuse(
            "lbr.active",
            "missing; a session that never ends has no idle time",
        );
    }
    Ok(())
}

/// A reason on one line of bounded length.
fn printable_reason(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}
