//! A path as a scenario that `vlbr scenario run` takes.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use vlbr_host::CpuId;
use vlbr_host::kvm::Answer;
use vlbr_host::machine::{GuestMsrAccess, Output};
use vlbr_host::perf::EventState;
use vlbr_scenario::host_step::HostAct;

use crate::action::Action;
use crate::judge::waiting;
use crate::model::{SceneModel, State, Step};
use crate::{ContractError, ContractRule, Scene};

/// A path, done again, as steps of a scenario.
struct Replayed {
    lines: Vec<String>,
    last: Option<Step>,
    /// The names that events have in the scenario by now.
    events: BTreeMap<usize, String>,
}

fn replay(model: &SceneModel, path: &[usize]) -> Result<Replayed, ContractError> {
    let mut lines = Vec::new();
    let mut state = model.first();
    let mut opened: BTreeMap<usize, usize> = BTreeMap::new();
    let mut last: Option<Step> = None;
    let mut events = BTreeMap::new();
    for &n in path {
        let action = &model.start.actions[n];
        let Some(step) = model.step(&state, n)? else {
            // The path was taken before: it can be taken again.
            break;
        };
        let mut text = action.text.clone();
        if let Some(place) = action.event {
            let count = opened.entry(place).or_default();
            *count += usize::from(matches!(action.act, HostAct::Open(..)));
            let event = match *count {
                0 | 1 => model.start.events[place].clone(),
                more => format!("{}-{more}", model.start.events[place]),
            };
            text = renamed(&text, &event);
            events.insert(place, event);
        }
        lines.push(with_outcome(text, action, &step));
        state = step.state.clone();
        last = Some(step);
    }
    Ok(Replayed {
        lines,
        last,
        events,
    })
}

/// The step with another name for its event, which is its second word.
fn renamed(text: &str, event: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if let Some(word) = words.get_mut(1) {
        *word = event;
    }
    words.join(" ")
}

/// The step with what it led to.
fn with_outcome(text: String, action: &Action, step: &Step) -> String {
    match (&action.act, &step.output) {
        (HostAct::Guest(..), Some(Output::Guest(GuestMsrAccess { result, exited }))) => {
            let given = match result {
                Ok(value) if action.reads() => format!(" = {:#x}", value.value),
                Ok(_) => String::new(),
                Err(_) => " => #GP".to_owned(),
            };
            let way = if *exited { "exits" } else { "passes" };
            format!("{text}{given} {way}")
        }
        (HostAct::User(..), Some(Output::User(answer))) => match answer {
            Answer::Value(value) if action.reads() => format!("{text} = {:#x}", value.value),
            Answer::Value(_) | Answer::Done => text,
            _ => format!("{text} => error"),
        },
        (HostAct::Branch(..) | HostAct::Retire(..), Some(Output::Pmi { .. })) => {
            let mut words: Vec<&str> = text.split_whitespace().collect();
            words.insert(2.min(words.len()), "pmi");
            words.join(" ")
        }
        _ => text,
    }
}

/// Goes on from where the guest of a vCPU does not get the LBR any more until it asks, so that the
/// scenario shows a refusal.
pub(crate) fn complete(
    model: &SceneModel,
    path: &[usize],
    vcpu: u8,
) -> Result<Vec<usize>, ContractError> {
    let mut path = path.to_vec();
    let mut state = model.first();
    for &n in &path {
        match model.step(&state, n)? {
            Some(step) => state = step.state,
            None => return Ok(path),
        }
    }
    // Any guest gets there with a switch, KVM_RUN and an entry; the switch may need another first.
    for _ in 0..6 {
        let enabled = model.enabled(&state);
        let rank = |n: &usize| rank(model, &state, &model.start.actions[*n], vcpu);
        let next = enabled
            .into_iter()
            .filter_map(|n| rank(&n).map(|rank| (rank, n)));
        let Some((found, n)) = next.min() else {
            break;
        };
        let Some(step) = model.step(&state, n)? else {
            break;
        };
        path.push(n);
        state = step.state;
        if found == 0 {
            break;
        }
    }
    Ok(path)
}

/// How much an action helps the guest of a vCPU to ask, the most first.
fn rank(model: &SceneModel, state: &State, action: &Action, vcpu: u8) -> Option<u8> {
    let names = &model.start.names;
    let this = |name: &str| names.vcpu(name).is_ok_and(|id| id.0 as u8 == vcpu);
    let thread = |name: &str| names.task(&state.machine, name).ok();
    let own = state.machine.host().vcpus()[usize::from(vcpu)].thread;
    match &action.act {
        _ if action.asked(names).is_some_and(|id| id.0 as u8 == vcpu) => Some(0),
        HostAct::Enter(name, _) if this(name) => Some(1),
        HostAct::Run(name) if this(name) => Some(2),
        HostAct::Switch(_, Some(name)) if thread(name) == Some(own) => Some(3),
        _ => None,
    }
}

/// A path whose last action breaks a rule: its steps, and the scenario.
pub(crate) fn scenario(
    model: &SceneModel,
    scene: &Scene,
    rule: ContractRule,
    way: &str,
    path: &[usize],
) -> Result<(Vec<String>, String), ContractError> {
    let start = &model.start;
    let replayed = replay(model, path)?;
    let (last, before) = match replayed.lines.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut text = format!(
        "scenario 1\ntitle: {} breaks rule {rule} in the scene {}\narea: contract\nrule: contract/{}\n\
         source: docs/contract.md\nevidence: deduced\nprofiles: {}\npolicies: {}\n",
        start.policy,
        scene.name(),
        rule.number(),
        start.part,
        start.policy,
    );
    if start.cpus != 1 {
        // Writing to a String does not fail.
        let _ = writeln!(text, "cpus: {}", start.cpus);
    }
    let _ = write!(text, "description:\n  {way}.\n\ngiven\n");
    for line in start.lines.iter().chain(before) {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(text, "when\n  {last}\nthen\n");
    let rotated = path.last().and_then(|n| match model.start.actions[*n].act {
        HostAct::Rotate(cpu) => Some(CpuId(cpu)),
        _ => None,
    });
    let comparisons = shown(rule, &replayed, rotated);
    if comparisons.is_empty() {
        return Err(ContractError::Unshown {
            scene: scene.name().to_owned(),
            policy: start.policy.clone(),
            rule,
        });
    }
    text.push_str(&comparisons);
    Ok((replayed.lines, text))
}

/// The comparison that shows the rule broken.
fn shown(rule: ContractRule, replayed: &Replayed, rotated: Option<CpuId>) -> String {
    let Some(step) = &replayed.last else {
        return String::new();
    };
    let evidence = step.evidence.get(&rule).into_iter().flatten();
    let evidence = || evidence.clone().map(|line| format!("  {line}\n")).collect();
    if let Some(finding) = rule.finding() {
        return match step.findings.count(finding) {
            0 => evidence(),
            times => format!("  finding \"{finding}\" = {times}\n"),
        };
    }
    match rule {
        ContractRule::HostComesBack => {
            let state = &step.state;
            let open: Vec<_> = state.events.iter().flatten().copied().collect();
            let waiting = rotated.map(|cpu| waiting(&state.machine, &open, cpu));
            let waiting = waiting.unwrap_or_default();
            let lines = replayed.events.iter().filter_map(|(place, name)| {
                let id = state.events[*place].filter(|id| waiting.contains(id))?;
                let event = state.machine.host().perf().event(id)?;
                let state = match event.state() {
                    EventState::Error => "error",
                    _ => "inactive",
                };
                Some(format!("  state {name} is {state}\n"))
            });
            lines.collect()
        }
        ContractRule::HostRecords => {
            let Some(Output::Pmi { samples, .. } | Output::Samples(samples)) = &step.output else {
                return String::new();
            };
            let stale = samples.iter().filter(|sample| sample.stale);
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for sample in stale {
                let place = step
                    .state
                    .events
                    .iter()
                    .position(|of| *of == Some(sample.event));
                if let Some(name) = place.and_then(|place| replayed.events.get(&place)) {
                    *counts.entry(name).or_default() += 1;
                }
            }
            let lines = counts.iter();
            lines
                .map(|(name, count)| format!("  stale {name} = {count}\n"))
                .collect()
        }
        _ => evidence(),
    }
}
