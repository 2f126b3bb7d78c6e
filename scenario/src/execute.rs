//! Running scenarios.

use std::path::Path;

use vlbr_lbr::Profile;

use crate::compare::{Mismatch, eval, mismatch};
use crate::expr::Scope;
use crate::machine::Machine;
use crate::{
    DeviceKind, DiscoverError, Failure, FileReport, Report, Scenario, Step, discover, load,
};

/// Most often that a step may be repeated.
const MAX_REPEAT: u64 = 0x2_0000;

/// Runs every file that `paths` name (see [`discover()`]) on every profile it names, on both
/// devices. A file that is no scenario is a failure of that file.
///
/// # Errors
/// A path that does not exist or holds no scenario.
pub fn run<P: AsRef<Path>>(paths: &[P]) -> Result<Report, DiscoverError> {
    let files = discover(paths)?
        .into_iter()
        .map(|path| match load(&path) {
            Ok(scenario) => {
                let (steps, failures) = run_scenario(&scenario);
                FileReport {
                    file: path,
                    title: scenario.title,
                    profiles: scenario.profiles.names().to_vec(),
                    steps,
                    failures,
                }
            }
            Err(error) => FileReport {
                file: path,
                title: String::new(),
                profiles: Vec::new(),
                steps: 0,
                failures: vec![Failure {
                    line: error.line,
                    profile: String::new(),
                    device: None,
                    step: "the file is no scenario".to_owned(),
                    expected: "the form of scenarios/README.md".to_owned(),
                    found: error.reason.to_string(),
                }],
            },
        })
        .collect();
    Ok(Report { files })
}

/// Runs one scenario on every profile it names, on both devices: the number of steps run, and
/// what failed.
#[must_use]
pub fn run_scenario(scenario: &Scenario) -> (u64, Vec<Failure>) {
    let mut steps = 0;
    let mut failures = Vec::new();
    let names = scenario.profiles.names();
    let affected = Profile::all()
        .iter()
        .filter(|profile| names.iter().any(|name| name == profile.name()));
    for profile in affected {
        for device in DeviceKind::ALL {
            let (count, failure) = run_one(scenario, profile, device);
            steps += count;
            failures.extend(failure);
        }
    }
    (steps, failures)
}

/// One profile and device; it ends at the first failure.
fn run_one(scenario: &Scenario, profile: &Profile, device: DeviceKind) -> (u64, Option<Failure>) {
    let mut machine = match Machine::new(device, profile, &scenario.processor_options(profile)) {
        Ok(machine) => machine,
        Err(error) => {
            let failure = Failure {
                line: 1,
                profile: profile.name().to_owned(),
                device: Some(device),
                step: "power-up".to_owned(),
                expected: "a processor".to_owned(),
                found: error.to_string(),
            };
            return (0, Some(failure));
        }
    };
    let mut count = 0;
    for step in &scenario.steps {
        count += 1;
        if let Err((line, expected, found)) = run_step(&mut machine, step) {
            let failure = Failure {
                line: step.line,
                profile: profile.name().to_owned(),
                device: Some(device),
                step: line,
                expected,
                found,
            };
            return (count, Some(failure));
        }
    }
    (count, None)
}

/// How often a step is done.
pub(crate) fn times(machine: &mut Machine<'_>, step: &Step) -> Result<u64, Mismatch> {
    let Some(repeat) = &step.repeat else {
        return Ok(1);
    };
    let scope = Scope {
        depth: machine.depth(step.cpu),
        n: 0,
    };
    let times = eval(repeat, scope)?;
    if times > MAX_REPEAT {
        return Err(mismatch(
            format!("a count up to {MAX_REPEAT}"),
            times.to_string(),
        ));
    }
    Ok(times)
}

/// A step as often as it says; on failure its text, what was expected and what was found.
fn run_step(machine: &mut Machine<'_>, step: &Step) -> Result<(), (String, String, String)> {
    let once = |machine: &mut Machine<'_>, n| {
        let depth = machine.depth(step.cpu);
        machine.step(step.cpu, &step.what, Scope { depth, n })
    };
    if step.repeat.is_none() {
        return once(machine, 0).map_err(|m| (step.text.clone(), m.expected, m.found));
    }
    let times = times(machine, step).map_err(|m| (step.text.clone(), m.expected, m.found))?;
    for n in 0..times {
        once(machine, n).map_err(|m| (format!("{} [n = {n}]", step.text), m.expected, m.found))?;
    }
    Ok(())
}
