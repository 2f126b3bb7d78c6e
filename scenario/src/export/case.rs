//! A scenario on one processor.

use serde::Serialize;
use vlbr_arch::Msr;
use vlbr_cpu::processor::Options;
use vlbr_lbr::Profile;
use vlbr_pmu::Source;

use super::flatten::Flatten;
use super::hash::{State, hash};
use super::hex::Hex;
use super::layout::Layout;
use super::machine::id as machine_id;
use super::options::others;
use super::pmu_options;
use super::step::{Line, Step};
use super::undefined::{Masks, Undefined};
use crate::compare::{Mismatch, mismatch};
use crate::execute::times;
use crate::expr::Scope;
use crate::machine::Machine;
use crate::{Action, DeviceKind, Failure, PmuStep, Scenario};

/// Logical processors of every case.
const CPUS: usize = 2;

/// The registers of a logical processor at the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Final {
    cpu: usize,
    /// Address and value; null where RDMSR gives `#GP`.
    msrs: Vec<(Hex, Option<Hex>)>,
    undefined: Vec<Undefined>,
}

/// A line of the export.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Case {
    kind: &'static str,
    id: String,
    area: &'static str,
    title: String,
    description: String,
    rules: Vec<String>,
    source: String,
    /// Its processor after power-up.
    pub(super) machine: String,
    /// Options that are open, whose other values would make a step fail.
    assumes: Vec<&'static str>,
    steps: Vec<Line>,
    #[serde(rename = "final")]
    last: Vec<Final>,
    hash: String,
}

/// What a run gives.
struct Run {
    lines: Vec<Line>,
    states: Vec<State>,
    /// Known bits of each register of each state.
    known: Vec<Vec<u64>>,
    /// Whether every step went as it says.
    passed: bool,
}

fn states(
    machine: &mut Machine<'_>,
    scope: &[Msr],
) -> Result<(Vec<State>, Vec<Vec<u64>>), Mismatch> {
    let mut states = Vec::new();
    let mut known = Vec::new();
    for cpu in 0..CPUS {
        let read = |msr: &Msr| machine.reading(cpu, *msr);
        let readings: Vec<_> = scope.iter().map(read).collect::<Result<_, _>>()?;
        let values = readings.iter().map(|(value, _)| *value);
        states.push(scope.iter().copied().zip(values).collect());
        known.push(readings.iter().map(|(_, known)| *known).collect());
    }
    Ok((states, known))
}

impl Scenario {
    /// Whether a step tells how much time passes.
    fn tells_time(&self) -> bool {
        self.steps.iter().any(|step| match &step.what {
            Action::Wait(_) => true,
            Action::Pmu(PmuStep::Run { amounts, .. }) => amounts
                .iter()
                .any(|(_, source)| *source == Source::CoreCycles),
            Action::Branch(branch) => branch.after != 0,
            _ => false,
        })
    }
}

/// Runs a scenario. `told`: its steps are wanted, and the first that fails ends it.
fn run(
    scenario: &Scenario,
    machine: &mut Machine<'_>,
    scope: &[Msr],
    layout: Option<Layout>,
) -> Result<Run, (usize, Mismatch)> {
    let mut lines = Vec::new();
    let mut passed = true;
    for step in &scenario.steps {
        let at = |error| (step.line, error);
        for n in 0..times(machine, step).map_err(at)? {
            let depth = machine.depth(step.cpu);
            let scope = Scope { depth, n };
            if let Some(layout) = layout {
                let mut flatten = Flatten { machine, layout };
                let steps = flatten.steps(step.cpu, &step.what, scope).map_err(at)?;
                lines.extend(steps.into_iter().map(|flat: Step| Line {
                    line: step.line,
                    cpu: step.cpu,
                    step: flat,
                }));
            }
            match machine.step(step.cpu, &step.what, scope) {
                Ok(()) => {}
                Err(error) if layout.is_some() => return Err(at(error)),
                Err(_) => passed = false,
            }
        }
    }
    let (states, known) = states(machine, scope).map_err(|error| (0, error))?;
    Ok(Run {
        lines,
        states,
        known,
        passed,
    })
}

/// What failed on the reference, with the line.
pub(super) fn failure(
    scenario: &Scenario,
    profile: &Profile,
    (line, error): (usize, Mismatch),
) -> Box<Failure> {
    let step = scenario.steps.iter().find(|step| step.line == line);
    Box::new(Failure {
        line,
        profile: profile.name().to_owned(),
        policy: None,
        device: Some(DeviceKind::Reference),
        step: step.map_or_else(String::new, |step| step.text.clone()),
        expected: error.expected,
        found: error.found,
    })
}

/// Every option that is open, at every other value, with its name.
fn open_options(options: &Options, profile: &Profile) -> Vec<(&'static str, Options)> {
    let of_lbr = others(&options.lbr, profile).into_iter().map(|other| {
        let mut options = options.clone();
        options.pmu.seed = other.options.seed;
        options.lbr = other.options;
        (other.name, options)
    });
    let pmu = vlbr_pmu::Profile::named(profile.name());
    let of_pmu = pmu.map(|pmu| pmu_options::others(&options.pmu, pmu));
    let of_pmu = of_pmu.into_iter().flatten().map(|other| {
        let mut options = options.clone();
        options.pmu = other.options;
        (other.name, options)
    });
    of_lbr.chain(of_pmu).collect()
}

/// The case of a scenario on a processor.
///
/// # Errors
/// A step fails, or the two devices end in different states.
pub(super) fn build(scenario: &Scenario, profile: &Profile) -> Result<Case, Box<Failure>> {
    let options = scenario.processor_options(profile);
    let reference = DeviceKind::Reference;
    let of_reference = |error| failure(scenario, profile, error);
    let of_fast = |error| {
        let mut failure = failure(scenario, profile, error);
        failure.device = Some(DeviceKind::Fast);
        failure
    };
    let whole = |error| of_reference((0, error));
    let layout = Layout::of(profile, &options.lbr);
    let power_up = |error| (0, mismatch("a processor", error));
    let mut machine = Machine::new(reference, profile, &options)
        .map_err(power_up)
        .map_err(of_reference)?;
    let scope = machine.msrs(0).map_err(whole)?;
    let told = run(scenario, &mut machine, &scope, Some(layout)).map_err(of_reference)?;

    let again = |options: &Options| {
        let mut machine = Machine::new(DeviceKind::Fast, profile, options)
            .map_err(power_up)
            .map_err(of_fast)?;
        run(scenario, &mut machine, &scope, None).map_err(of_fast)
    };
    let fast = again(&options)?;
    if fast.states != told.states || !fast.passed {
        let differ = mismatch("the final registers of the reference", "others");
        return Err(of_fast((0, differ)));
    }
    let timed = scenario.tells_time();
    let mut masks: Vec<Masks> = told
        .states
        .iter()
        .zip(&told.known)
        .map(|(state, known)| Masks::of_layout(profile, &layout, timed, known, state))
        .collect();
    let mut assumes = Vec::new();
    for (name, options) in open_options(&options, profile) {
        let run = again(&options)?;
        if !run.passed && !assumes.contains(&name) {
            assumes.push(name);
        }
        let reason = match name {
            "seed" => "seed".to_owned(),
            name => format!("option {name}"),
        };
        for ((masks, state), other) in masks.iter_mut().zip(&told.states).zip(&run.states) {
            masks.add_differences(state, other, &reason);
        }
    }
    let hash = hash(&told.states, &masks);
    let last = told.states.iter().zip(&masks).enumerate();
    Ok(Case {
        kind: "case",
        id: format!("{}-{}/{}", scenario.number, scenario.name, profile.name()),
        area: scenario.area.name(),
        title: scenario.title.clone(),
        description: scenario.description.clone(),
        rules: scenario.rules.clone(),
        source: scenario.source.clone(),
        machine: machine_id(profile, &options),
        assumes,
        steps: told.lines,
        last: last
            .map(|(cpu, (state, masks))| Final {
                cpu,
                msrs: state
                    .iter()
                    .map(|(msr, value)| (msr.value().into(), value.map(Hex)))
                    .collect(),
                undefined: masks.list(state),
            })
            .collect(),
        hash,
    })
}
