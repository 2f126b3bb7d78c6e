//! A spec that is like a recorded trace.

use thiserror::Error;
use vlbr_cpu::ExitInstruction;

use super::check::{MAX_FUNCTIONS, MAX_TARGETS, SpecError};
use super::compare::{Row, Unit, compare, ratio};
use super::exits::{encoding, runs_in_user_code};
use super::measure::{Measured, Ring};
use super::record::{GenerateError, measure_spec};
use super::sites::Site;
use super::spec::{
    Branches, Calls, CodeSpec, Conditional, Events, ExitRate, Indirect, Loops, Share, Spec,
};

/// Most instructions of a fitted spec, all threads together; it can be edited.
const MOST_INSTRUCTIONS: u64 = 10_000_000;
/// Fewest branches that a ring's code is fitted to.
const LEAST_BRANCHES: u64 = 1000;
/// Calls below this part of all are those of the frames that everything stands on.
const BASE_PART: f64 = 0.02;
/// Calls above this part are left out: a few that are far deeper than the others.
const DEEP_PART: f64 = 0.998;
/// Most levels of calls of a fit.
const LEVELS: usize = 64;
/// How often, on average, the code of a fitted spec runs as a whole. With few passes its branches do
/// not show their bias; with many it has few functions, which cannot be of every kind.
const PASSES: [f64; 3] = [60.0, 20.0, 7.0];
/// Programs tried for each of them.
const SEEDS: u64 = 8;
/// Calls of each function in a pass.
const CALLS_EACH: f64 = 3.0;
/// Where the classes of bias end.
const BIAS: [f64; 10] = [
    1e-9,
    0.005,
    0.02,
    0.1,
    0.3,
    0.7,
    0.9,
    0.98,
    0.995,
    1.0 - 1e-9,
];

/// Where the classes of trips end.
const TRIPS: [u64; 7] = [2, 4, 8, 16, 40, 200, 2000];

/// Why a trace has no fit.
#[derive(Debug, Error)]
pub enum FitError {
    /// There is too little of it.
    #[error("{0} branches, at least {LEAST_BRANCHES} are needed")]
    Short(u64),
    /// What was measured is outside of what can be generated.
    #[error("cannot be generated: {0}")]
    Spec(#[from] SpecError),
    /// One of the programs that were tried failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// The spec of a guest or program named `name` that measures what `measured` does, as nearly as one
/// of a few programs does. `progress` is told how many of how many were tried.
///
/// # Errors
/// See [`FitError`].
pub fn fit(
    measured: &Measured,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Spec, FitError> {
    let all = PASSES.len() as u64 * SEEDS;
    let mut best: Option<(f64, Spec)> = None;
    for number in 0..all {
        progress(number, all);
        let passes = PASSES[(number / SEEDS) as usize];
        let spec = spec(measured, name, 1 + number % SEEDS, passes)?;
        let error = distance(&compare(measured, &measure_spec(&spec, &mut |_| ())?));
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, spec));
        }
    }
    best.map(|(_, spec)| spec).ok_or(FitError::Short(0))
}

/// The sum of the squares of all differences: points of shares, and a third of the relative ones of
/// averages.
fn distance(rows: &[Row]) -> f64 {
    let part = |row: &Row| match row.unit {
        Unit::Percent => row.difference * row.difference,
        Unit::Average => {
            (row.difference.abs().min(60.0) / 3.0) * (row.difference.abs().min(60.0) / 3.0)
        }
        // These do not depend on the program.
        Unit::PerMillion => 0.0,
    };
    rows.iter().map(part).sum()
}

fn spec(measured: &Measured, name: &str, seed: u64, passes: f64) -> Result<Spec, FitError> {
    let fitted = |ring: &Ring| ring.branches >= LEAST_BRANCHES;
    let (user, kernel) = (&measured.user, &measured.kernel);
    if !fitted(user) && !fitted(kernel) {
        return Err(FitError::Short(user.branches.max(kernel.branches)));
    }
    let both = fitted(user) && fitted(kernel);
    let rate = |count: u64| round(1e6 * ratio(count, measured.instructions));
    let threads = measured.threads.clamp(1, 64);
    let entries = measured.interrupts + measured.exceptions;
    let handler = 0.5 * measured.instructions as f64 / entries.max(1) as f64;
    let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let instructions = measured.instructions.min(MOST_INSTRUCTIONS);
    let share = ratio(kernel.instructions, measured.instructions);
    let mut spec = Spec {
        name: if name.is_empty() {
            "fitted".into()
        } else {
            name
        },
        seed,
        instructions: (instructions / u64::from(threads)).max(1000),
        threads,
        kernel_share: both.then(|| round(share)),
        events: Events {
            syscalls: if fitted(user) {
                rate(measured.syscalls)
            } else {
                0.0
            },
            interrupts: rate(measured.interrupts),
            exceptions: rate(measured.exceptions),
            handler: handler.clamp(60.0, 1000.0),
        },
        user: fitted(user).then(|| code(user, instructions as f64 * (1.0 - share) / passes)),
        kernel: fitted(kernel).then(|| code(kernel, instructions as f64 * share / passes)),
        lbr: None,
        exits: Vec::new(),
    };
    for (&(kind, in_kernel), &count) in &measured.exits {
        let known = encoding(kind).is_some();
        let there = if in_kernel { &spec.kernel } else { &spec.user };
        if known && there.is_some() && (in_kernel || runs_in_user_code(kind)) {
            let per_million = rate(count);
            spec.exits.push(exit(kind, per_million, in_kernel));
        }
    }
    spec.check()?;
    Ok(spec)
}

/// An entry of `exits`. What the recording does not say of registers and ports is made up: the
/// leaf 0, a port and an MSR that every guest uses.
fn exit(kind: ExitInstruction, per_million: f64, in_kernel: bool) -> ExitRate {
    use ExitInstruction as E;
    ExitRate {
        instruction: kind.name().to_ascii_lowercase(),
        per_million,
        ring: Some(if in_kernel { 0 } else { 3 }),
        leaf: (kind == E::Cpuid).then_some(0),
        port: matches!(kind, E::In | E::Ins | E::Out | E::Outs).then_some(0x3f8),
        msr: matches!(kind, E::Rdmsr | E::Wrmsr | E::Wrmsrns).then(|| "0xc0000080".into()),
        ..ExitRate::default()
    }
}

/// Six significant digits.
fn round(value: f64) -> f64 {
    let mut scale = 1.0;
    while value != 0.0 && (value * scale).abs() < 1e5 && scale < 1e12 {
        scale *= 10.0;
    }
    (value * scale).round() / scale
}

/// The code of a ring that runs `instructions` instructions in a pass.
fn code(ring: &Ring, instructions: f64) -> CodeSpec {
    let branches = branches(ring);
    let calls = calls(ring);
    let all_calls = instructions * ratio(ring.branches, ring.instructions) * branches.returns();
    let most = (all_calls / CALLS_EACH) as u64;
    let least = calls.depth.len() as u64 * 4;
    let functions = ring.functions.min(most).clamp(least, MAX_FUNCTIONS.into());
    CodeSpec {
        functions: functions as u32,
        block: round(ratio(ring.instructions, ring.branches)).clamp(1.5, 200.0),
        branches,
        conditional: Conditional { taken: taken(ring) },
        loops: Loops {
            share: round(ratio(ring.looping(), ring.conditional)),
            trips: trips(ring),
            nest: 2,
        },
        calls,
        indirect: Indirect {
            jump_targets: targets(ring, false),
            call_targets: targets(ring, true),
        },
    }
}

/// The shares. A return belongs to each call, so what a recording has more of the one than of the
/// other is spread over both.
fn branches(ring: &Ring) -> Branches {
    let share = |count: u64| ratio(count, ring.branches);
    let calls = share(ring.call + ring.indirect_call);
    let each = 0.5 * (calls + share(ring.returns));
    let scale = if calls > 0.0 { each / calls } else { 0.0 };
    let indirect_call = round(share(ring.indirect_call) * scale);
    let call = round((share(ring.call) * scale).clamp(0.001, 0.45));
    // The lower bound of calls is taken from the conditional branches.
    let others = 1.0 - 2.0 * (call + indirect_call);
    let counted = share(ring.conditional)
        + share(ring.jump)
        + share(ring.indirect_jump)
        + share(ring.zero_call);
    let rest = if counted > 0.0 { others / counted } else { 0.0 };
    Branches {
        conditional: round(share(ring.conditional) * rest),
        jump: round(share(ring.jump) * rest),
        indirect_jump: round(share(ring.indirect_jump) * rest),
        call,
        indirect_call,
        zero_call: round(share(ring.zero_call) * rest),
    }
}

/// Sums by class: executions and another amount.
#[derive(Clone, Copy, Default)]
struct Class {
    executions: u64,
    amount: u64,
}

/// The classes that were met, each with its value and share.
fn shares<T>(classes: &[Class], value: impl Fn(&Class) -> T, otherwise: T) -> Vec<Share<T>> {
    let all: u64 = classes.iter().map(|class| class.executions).sum();
    if all == 0 {
        return vec![(otherwise, 1.0)];
    }
    let met = classes.iter().filter(|class| class.executions > 0);
    met.map(|class| (value(class), round(ratio(class.executions, all))))
        .collect()
}

fn taken(ring: &Ring) -> Vec<Share<f64>> {
    let mut classes = [Class::default(); BIAS.len() + 1];
    for site in ring
        .sites
        .iter()
        .filter(|site| site.conditional && !site.backward)
    {
        let probability = ratio(site.taken, site.executions);
        let class = BIAS.partition_point(|&end| end <= probability);
        classes[class].executions += site.executions;
        classes[class].amount += site.taken;
    }
    shares(
        &classes,
        |class| round(ratio(class.amount, class.executions)),
        0.0,
    )
}

fn trips(ring: &Ring) -> Vec<Share<f64>> {
    let mut classes = [Class::default(); TRIPS.len() + 1];
    for site in ring
        .sites
        .iter()
        .filter(|site| site.conditional && site.backward)
    {
        // A loop that was never seen to end was entered once.
        let entered = (site.executions - site.taken).max(1);
        let class = TRIPS.partition_point(|&end| end * entered <= site.executions);
        classes[class].executions += site.executions;
        classes[class].amount += entered;
    }
    let trips = |class: &Class| round(ratio(class.executions, class.amount)).clamp(1.0, 1e6);
    shares(&classes, trips, 4.0)
}

fn targets(ring: &Ring, call: bool) -> Vec<Share<u32>> {
    let mut sites: Vec<&Site> = ring
        .sites
        .iter()
        .filter(|site| site.targets > 0 && site.call == call)
        .collect();
    sites.sort_unstable_by_key(|site| site.targets);
    // By number of targets up to 16, from there on by halves of a power of two.
    let mut classes = [Class::default(); 64];
    for site in sites {
        let count = site.targets.min(MAX_TARGETS);
        let class = match count {
            0..=16 => count as usize,
            _ => {
                let log = count.ilog2();
                16 + 2 * (log as usize - 4) + (count >> (log - 1) & 1) as usize
            }
        };
        let class = &mut classes[class.min(63)];
        class.executions += site.executions;
        class.amount += site.executions * u64::from(count);
    }
    let average = |class: &Class| (ratio(class.amount, class.executions).round() as u32).max(1);
    shares(&classes, average, 2)
}

fn calls(ring: &Ring) -> Calls {
    let all: u64 = ring.depths.iter().sum();
    let recursion = round(ratio(ring.recursive, ring.recursive + all).min(0.9));
    let recursion_depth = round(ring.recursion_depth().clamp(2.0, 10_000.0));
    let mut below = 0.0;
    let mut base = 0;
    let mut depth = Vec::new();
    for &calls in ring.depths.iter().skip(1) {
        let share = ratio(calls, all);
        if depth.is_empty() && base < 64 && below + share < BASE_PART {
            base += 1;
        } else if below < DEEP_PART && depth.len() < LEVELS {
            depth.push(share);
        }
        below += share;
    }
    if depth.is_empty() {
        depth.push(1.0);
    }
    let sum: f64 = depth.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    Calls {
        base,
        depth: depth
            .iter()
            .map(|share| round((share / sum).max(1e-5)))
            .collect(),
        recursion,
        recursion_depth,
    }
}
