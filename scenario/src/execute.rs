//! Running scenarios.

use std::path::Path;

use vlbr_host::policy::Catalog;
use vlbr_lbr::Profile;

use crate::compare::{Mismatch, eval, mismatch};
use crate::expr::Scope;
use crate::host::HostMachine;
use crate::machine::Machine;
use crate::{
    Action, DeviceKind, DiscoverError, Failure, FileReport, HostHeader, HostKernel, Phase, Report,
    Scenario, Step, discover, load_with,
};

/// Most often that a step may be repeated.
const MAX_REPEAT: u64 = 0x2_0000;

/// The same of a step of a host, which costs more.
const MAX_HOST_REPEAT: u64 = 0x400;

/// Runs every file that `paths` name (see [`discover()`]) on every profile it names, on both
/// devices. A file that is no scenario is a failure of that file.
///
/// # Errors
/// A path that does not exist or holds no scenario.
pub fn run<P: AsRef<Path>>(paths: &[P]) -> Result<Report, DiscoverError> {
    run_with(paths, &Catalog::builtin())
}

/// The same, with the policies of a catalog.
///
/// # Errors
/// As [`run`].
pub fn run_with<P: AsRef<Path>>(paths: &[P], catalog: &Catalog) -> Result<Report, DiscoverError> {
    let files = discover(paths)?
        .into_iter()
        .map(|path| match load_with(&path, catalog) {
            Ok(scenario) => {
                let (steps, failures) = run_scenario(&scenario);
                FileReport {
                    file: path,
                    policies: scenario.policy_names(),
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
                policies: Vec::new(),
                steps: 0,
                failures: vec![Failure {
                    line: error.line,
                    profile: String::new(),
                    device: None,
                    policy: None,
                    step: "the file is no scenario".to_owned(),
                    expected: "the form of scenarios/README.md".to_owned(),
                    found: error.reason.to_string(),
                }],
            },
        })
        .collect();
    Ok(Report { files })
}

/// Runs one scenario on every profile it names, on both devices, or under every policy it names: the
/// number of steps run, and what failed.
#[must_use]
pub fn run_scenario(scenario: &Scenario) -> (u64, Vec<Failure>) {
    let mut steps = 0;
    let mut failures = Vec::new();
    let names = scenario.profiles.names();
    let affected = Profile::all()
        .iter()
        .filter(|profile| names.iter().any(|name| name == profile.name()));
    for profile in affected {
        if let Some(host) = &scenario.host {
            for kernel in &host.policies {
                let (count, failure) = run_host(scenario, (host, kernel), profile);
                steps += count;
                failures.extend(failure);
            }
            continue;
        }
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
                policy: None,
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
                policy: None,
                step: line,
                expected,
                found,
            };
            return (count, Some(failure));
        }
    }
    (count, None)
}

/// One profile and policy; it ends at the first failure.
fn run_host(
    scenario: &Scenario,
    (host, kernel): (&HostHeader, &HostKernel),
    profile: &'static Profile,
) -> (u64, Option<Failure>) {
    let failure = |line, (step, expected, found)| Failure {
        line,
        profile: profile.name().to_owned(),
        device: None,
        policy: Some(kernel.name().to_owned()),
        step,
        expected,
        found,
    };
    let options = scenario.processor_options(profile);
    let mut machine = match HostMachine::new(kernel, profile, options, host.setup) {
        Ok(machine) => machine,
        Err(error) => {
            let told = ("boot".to_owned(), "a host".to_owned(), error.to_string());
            return (0, Some(failure(1, told)));
        }
    };
    let mut before = Phase::Given;
    let mut count = 0;
    for step in &scenario.steps {
        if step.phase == Phase::When && before != Phase::When {
            machine.begin_when();
        }
        before = step.phase;
        count += 1;
        if let Err(told) = run_host_step(&mut machine, step) {
            return (count, Some(failure(step.line, told)));
        }
    }
    (count, None)
}

fn run_host_step(machine: &mut HostMachine, step: &Step) -> Result<(), (String, String, String)> {
    let Action::Host(what) = &step.what else {
        let expected = "a step of a host".to_owned();
        return Err((step.text.clone(), expected, "another".to_owned()));
    };
    let told = |text: String, m: Mismatch| (text, m.expected, m.found);
    let depth = machine.depth();
    let times = match &step.repeat {
        None => 1,
        Some(repeat) => {
            let times = eval(repeat, Scope { depth, n: 0 });
            times.map_err(|m| told(step.text.clone(), m))?
        }
    };
    if times > MAX_HOST_REPEAT {
        let expected = format!("a count up to {MAX_HOST_REPEAT}");
        return Err((step.text.clone(), expected, times.to_string()));
    }
    for n in 0..times {
        let done = machine.step(what, Scope { depth, n });
        done.map_err(|m| match step.repeat {
            None => told(step.text.clone(), m),
            Some(_) => told(format!("{} [n = {n}]", step.text), m),
        })?;
    }
    Ok(())
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
