//! A path as a scenario that `vlbr scenario run` takes.

use core::fmt::Write as _;

use vlbr_host::machine::{GuestMsrAccess, Output, Rule};

use crate::model::{SceneModel, Step};
use crate::scene::Scene;
use crate::{Action, ContractError};

/// A path, done again, as steps of a scenario; the last violates the rules of `rule` so often.
struct Replayed {
    lines: Vec<String>,
    last: Option<Step>,
}

fn replay(model: &SceneModel, path: &[Action]) -> Result<Replayed, ContractError> {
    let mut lines = model.start.lines.clone();
    let (mut state, mut opened) = (model.first(), 0);
    let mut last: Option<Step> = None;
    for action in path {
        let step = model.step(&state, *action, opened)?;
        opened += u32::from(*action == Action::Open);
        lines.push(step_text(&step));
        state = step.state.clone();
        last = Some(step);
    }
    Ok(Replayed { lines, last })
}

/// The step with what it led to.
fn step_text(step: &Step) -> String {
    let text = &step.text;
    let Some(Output::Guest(GuestMsrAccess { result, exited })) = &step.output else {
        return text.clone();
    };
    let read = matches!(step.edge.action, Action::ReadSelect | Action::ReadYoungest);
    let given = match result {
        Ok(value) if read => format!(" = {:#x}", value.value),
        Ok(_) => String::new(),
        Err(_) => " => #GP".to_owned(),
    };
    let way = if *exited { "exits" } else { "passes" };
    format!("{text}{given} {way}")
}

fn head(scene: &Scene, title: &str, description: &str) -> String {
    format!(
        "scenario 1\ntitle: {title}\narea: host\nrule: 8/40\nsource: kernel/events/core.c; \
         arch/x86/kvm/vmx\nevidence: deduced\nprofiles: {}\npolicies: {}\ndescription:\n  \
         {description}\n\n",
        scene.part,
        scene.policy.name()
    )
}

/// A path whose last action breaks a rule.
pub(crate) fn violation(
    scene: &Scene,
    model: &SceneModel,
    rule: Rule,
    way: &str,
    path: &[Action],
) -> Result<String, ContractError> {
    let replayed = replay(model, path)?;
    let mut text = head(
        scene,
        &format!("The shortest way to break the rule of {rule}"),
        way,
    );
    let times = replayed.last.as_ref().map_or(0, |step| {
        let violations = step.edge.violations.iter();
        violations.filter(|(of, _)| *of == rule).count()
    });
    let (last, before) = replayed
        .lines
        .split_last()
        .map_or(("", &[][..]), |(l, b)| (l, b));
    text.push_str("given\n");
    for line in before {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(
        text,
        "when\n  {last}\nthen\n  finding \"{rule}\" = {times}\n"
    );
    Ok(text)
}

/// A path to a state from which the guest gets no LBR any more.
pub(crate) fn stuck(
    scene: &Scene,
    model: &SceneModel,
    path: &[Action],
) -> Result<String, ContractError> {
    let mut path = path.to_vec();
    complete(model, &mut path)?;
    violation(
        scene,
        model,
        Rule::Denial,
        "No rival is left, and no path short of a reset gives the guest its LBR back.",
        &path,
    )
}

/// Goes on until the guest asks for the LBR, and asks.
fn complete(model: &SceneModel, path: &mut Vec<Action>) -> Result<(), ContractError> {
    let ask = Action::GuestWrite(crate::Write::Select);
    // Any guest gets there with a switch, KVM_RUN and an entry.
    for _ in 0..4 {
        let mut state = model.first();
        for action in path.iter() {
            state = model.step(&state, *action, 0)?.state;
        }
        let mut enabled = Vec::new();
        Action::enabled(&state.machine, state.rival, state.budget, &mut enabled);
        let towards = [ask, Action::Enter, Action::Run, Action::SwitchIn];
        let Some(next) = towards.into_iter().find(|next| enabled.contains(next)) else {
            break;
        };
        path.push(next);
        if next == ask {
            break;
        }
    }
    Ok(())
}
