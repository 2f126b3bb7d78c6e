//! A scene before its first action.

use std::sync::Arc;

use vlbr_arch::Msr;
use vlbr_host::kvm::Answer;
use vlbr_host::machine::{Input, Machine, Output};
use vlbr_host::policy::{Policy, Standing};
use vlbr_lbr::{Interface, Profile};
use vlbr_scenario::host_step::HostAct;
use vlbr_scenario::{HostKernel, HostMachine, HostNames, StageError};

use crate::ContractError;
use crate::action::{Action, for_part};
use crate::judge::passable;
use crate::scene::Scene;

/// Most vCPUs of a scene.
const MAX_VCPUS: usize = 8;

/// The machine, what the names stand for, and what may happen.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) scene: String,
    pub(crate) policy: String,
    pub(crate) part: String,
    pub(crate) cpus: usize,
    pub(crate) machine: Machine,
    pub(crate) names: HostNames,
    pub(crate) actions: Vec<Action>,
    /// Names of the events that actions open.
    pub(crate) events: Vec<String>,
    /// Which of them ask for the LBR.
    pub(crate) rivals: Vec<bool>,
    /// The setup as steps of a scenario.
    pub(crate) lines: Vec<String>,
    /// The tasks and the threads of vCPUs, by the names of the scene.
    pub(crate) tasks: Vec<String>,
    /// Whether the guests were told that they have LBR.
    pub(crate) offered: bool,
    /// Whether perf knows of a guest's claim to the registers.
    pub(crate) stands: bool,
}

impl Start {
    /// Sets a scene up under a policy, on the part with architectural LBR if the policy is about that.
    pub(crate) fn of(scene: &Scene, policy: &Arc<dyn Policy>) -> Result<Self, ContractError> {
        let part = Self::part(scene, policy)?;
        let profile = Profile::named(part).map_err(|_| StageError::Part(part.to_owned()))?;
        let arch = matches!(profile.interface(), Interface::Arch(_));
        let (actions, events) = Action::parse_all(scene, arch)?;
        let kernel = HostKernel::of(Arc::clone(policy));
        let mut stage = HostMachine::stage(&kernel, part, scene.cpus)?;
        // A processor of the guest's own needs no offer.
        let (mut lines, mut offered) = (Vec::new(), policy.is_yardstick());
        for (line, text) in &scene.given {
            let text = for_part(text, arch);
            let steps = match text.strip_prefix("offer ") {
                None => vec![text],
                Some(vcpu) => {
                    let (steps, taken) = offer(&stage, vcpu)
                        .map_err(|reason| ContractError::line(&scene.name, *line, reason))?;
                    offered |= taken;
                    steps
                }
            };
            for step in steps {
                let act = HostAct::parse(&step)
                    .map_err(|reason| ContractError::reason(&scene.name, *line, &reason))?;
                stage
                    .perform(&act)
                    .map_err(|mismatch| ContractError::Setup {
                        scene: scene.name.clone(),
                        step: step.clone(),
                        reason: mismatch.to_string(),
                    })?;
                lines.push(step);
            }
        }
        let (mut machine, names) = stage.into_parts();
        let _ = machine.take_results();
        check(scene, &actions, &machine, &names)?;
        let tasks = scene.given.iter().filter_map(|(_, text)| {
            let mut words = text.split_whitespace();
            let names = matches!(words.next(), Some("task" | "vcpu"));
            words.next().filter(|_| names).map(str::to_owned)
        });
        let rivals = events.iter().map(|name| {
            let opens =
                |action: &&Action| matches!(&action.act, HostAct::Open(of, ..) if of == name);
            actions.iter().find(opens).is_some_and(Action::opens_rival)
        });
        Ok(Self {
            scene: scene.name.clone(),
            policy: policy.name().to_owned(),
            part: part.to_owned(),
            cpus: scene.cpus,
            rivals: rivals.collect(),
            machine,
            names,
            actions,
            events,
            tasks: tasks.collect(),
            lines,
            offered,
            stands: policy.standing() != Standing::Nothing,
        })
    }

    pub(crate) fn part<'a>(
        scene: &'a Scene,
        policy: &Arc<dyn Policy>,
    ) -> Result<&'a str, ContractError> {
        if !policy.is_architectural() {
            return Ok(&scene.part);
        }
        scene
            .arch_part
            .as_deref()
            .ok_or_else(|| ContractError::Scene {
                scene: scene.name.clone(),
                reason: format!("{} needs arch-part:", policy.name()),
            })
    }
}

/// Refuses what no path could ever do, and what would make rules say something else.
fn check(
    scene: &Scene,
    actions: &[Action],
    machine: &Machine,
    names: &HostNames,
) -> Result<(), ContractError> {
    let of_scene = |reason: &str| ContractError::Scene {
        scene: scene.name.escape_debug().to_string(),
        reason: reason.to_owned(),
    };
    let host = machine.host();
    if host.vcpus().is_empty() || host.vcpus().len() > MAX_VCPUS {
        return Err(of_scene("a scene has 1 to 8 vCPUs"));
    }
    let mut events = host.perf().events();
    if events.any(|(_, event)| event.attr().branch_sample_type.is_some()) {
        let reason = "an event that asks for branches is opened by an action, not under given";
        return Err(of_scene(reason));
    }
    for (action, (line, _)) in actions.iter().zip(&scene.actions) {
        let bad = |reason: String| ContractError::line(&scene.name, *line, reason);
        let referring = action.event.is_some() && !matches!(action.act, HostAct::Open(..));
        if !referring {
            let input = names.input(machine, &action.act);
            input.map_err(|mismatch| bad(mismatch.to_string()))?;
        }
        if let Some(asks) = &action.asks {
            let own = matches!(&action.act, HostAct::Guest(vcpu, _) if vcpu == asks);
            if !own || action.most.is_some() {
                let reason = "a guest asks by an access of its own that may always happen";
                return Err(bad(reason.to_owned()));
            }
            let registers = names.input(machine, &action.act);
            let asked = match registers {
                Ok(Input::GuestRead(_, msr, _)) => Some(msr),
                _ => None,
            };
            if !asked.is_some_and(|msr| passable(machine, msr)) {
                let reason = "a guest asks by a read of a register that may pass: an entry, TOS or the \
                              filter";
                return Err(bad(reason.to_owned()));
            }
        }
    }
    Ok(())
}

/// The steps by which user space gives a vCPU its LBR under the policy, and whether it is taken.
fn offer(stage: &HostMachine, vcpu: &str) -> Result<(Vec<String>, bool), String> {
    // What it leads to is tried on a copy.
    let mut machine: Machine = stage.machine().clone();
    let names = stage.names();
    let id = names.vcpu(vcpu).map_err(|error| error.to_string())?;
    let thread = machine.host().vcpu(id).thread;
    let vm = machine.host().vcpu(id).vm;
    let mut steps = Vec::new();
    let capability = machine.policy().check_capability(machine.host()) != 0;
    if capability {
        let enabled = machine.apply(&Input::EnableCapability(vm, true, true));
        if let Ok(Output::Stack(s)) = enabled {
            let name = names.vm_name(vm).ok_or("the vCPU has no VM")?;
            steps.push(format!(
                "cap {name} on => {} {:#x} {:#x} {:#x} {:#x}",
                s.nr, s.tos, s.from, s.to, s.info
            ));
        }
    }
    let processor = machine.host().hardware().cpu(vlbr_host::CpuId(0));
    let format = processor.peek(Msr::PERF_CAPABILITIES).unwrap_or(0) & 0x3f;
    let told = Input::UserWrite(thread, id, Msr::PERF_CAPABILITIES, format);
    let taken = matches!(machine.apply(&told), Ok(Output::User(Answer::Done)));
    let refused = if taken { "" } else { " => error" };
    steps.push(format!(
        "user {vcpu} {vcpu} wrmsr IA32_PERF_CAPABILITIES {format:#x}{refused}"
    ));
    Ok((steps, taken || capability))
}
