//! What may happen in a scene.

use vlbr_host::hardware::Running;
use vlbr_host::kvm::Place;
use vlbr_host::machine::Machine;
use vlbr_host::perf::{EventId, EventState};
use vlbr_host::{CpuId, TaskId, VcpuId};
use vlbr_scenario::HostNames;
use vlbr_scenario::host_step::{EventName, HostAct, MsrWant};

use crate::ContractError;
use crate::scene::Scene;

/// What stands for registers that parts name differently: the word, with the legacy LBR, and with the
/// architectural LBR.
const WORDS: [(&str, &str, &str); 5] = [
    (
        "$on",
        "IA32_DEBUGCTL LBR",
        "IA32_LBR_CTL LBR_EN|USR|OS|ALL_TYPES",
    ),
    (
        "$frozen-on",
        "IA32_DEBUGCTL LBR|FREEZE_LBRS_ON_PMI",
        "IA32_LBR_CTL LBR_EN|USR|OS|ALL_TYPES",
    ),
    ("$off", "IA32_DEBUGCTL 0", "IA32_LBR_CTL 0"),
    ("$filter", "MSR_LBR_SELECT", "IA32_LBR_CTL"),
    ("$first", "FROM[1]", "FROM[0]"),
];

/// Who has to run for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum During {
    Anyone,
    Guest,
    Host,
}

/// Something that may happen.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// The step of a scenario, up to what it leads to.
    pub(crate) text: String,
    pub(crate) act: HostAct,
    /// How often on a path.
    pub(crate) most: Option<u8>,
    during: During,
    /// The guest asks for the LBR by this.
    pub(crate) asks: Option<String>,
    /// Its event among those of the scene.
    pub(crate) event: Option<usize>,
}

/// Where a path is.
pub(crate) struct Here<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) names: &'a HostNames,
    pub(crate) events: &'a [Option<EventId>],
}

/// A step with the words that stand for registers replaced.
pub(crate) fn for_part(text: &str, arch: bool) -> String {
    WORDS
        .iter()
        .fold(text.to_owned(), |text, (word, legacy, new)| {
            text.replace(word, if arch { new } else { legacy })
        })
}

impl Action {
    /// Those of a scene, and the names of its events in the order of the actions that open them.
    pub(crate) fn parse_all(
        scene: &Scene,
        arch: bool,
    ) -> Result<(Vec<Self>, Vec<String>), ContractError> {
        let mut actions = Vec::new();
        let mut events = Vec::new();
        for (line, text) in &scene.actions {
            let action = Self::parse(scene, *line, &for_part(text, arch))?;
            if let HostAct::Open(name, ..) = &action.act {
                if events.contains(name) {
                    let reason = format!("a second event {name:?}");
                    return Err(ContractError::line(&scene.name, *line, reason));
                }
                events.push(name.clone());
            }
            actions.push((*line, action));
        }
        let mut placed = Vec::new();
        for (line, mut action) in actions {
            let name = match &action.act {
                HostAct::Open(name, ..)
                | HostAct::Close(EventName::Opened(name))
                | HostAct::Enable(EventName::Opened(name))
                | HostAct::Disable(EventName::Opened(name))
                | HostAct::PebsRecord(EventName::Opened(name)) => Some(name),
                _ => None,
            };
            if let Some(name) = name {
                let place = events.iter().position(|event| event == name);
                let unknown = || {
                    let reason = format!("no action opens an event {name:?}");
                    ContractError::line(&scene.name, line, reason)
                };
                action.event = Some(place.ok_or_else(unknown)?);
            }
            placed.push(action);
        }
        Ok((placed, events))
    }

    fn parse(scene: &Scene, line: usize, text: &str) -> Result<Self, ContractError> {
        let bad = |reason: String| ContractError::line(&scene.name, line, reason);
        let (mut rest, mut most, mut during, mut asks) = (text, None, During::Anyone, None);
        while let Some((before, after)) = rest.split_once(": ") {
            let words: Vec<_> = before.split_whitespace().collect();
            match words[..] {
                ["at", "most", count] => {
                    let count = count.parse().ok().filter(|count| *count > 0);
                    let count = count.ok_or_else(|| bad(format!("{before:?}: 1 to 255 times")))?;
                    most = Some(count);
                }
                ["guest"] => during = During::Guest,
                ["host"] => during = During::Host,
                [vcpu, "asks"] if asks.is_none() => asks = Some(vcpu.to_owned()),
                _ => {
                    let known =
                        "\"at most N\", \"guest\", \"host\" and \"VCPU asks\" stand before a step";
                    return Err(bad(format!("{before:?}: {known}")));
                }
            }
            rest = after;
        }
        // What a read gives is seen, not expected.
        let reads = rest.contains(" rdmsr ");
        let step = if reads {
            format!("{rest} = 0")
        } else {
            rest.to_owned()
        };
        let act = HostAct::parse(&step)
            .map_err(|reason| ContractError::reason(&scene.name, line, &reason))?;
        match &act {
            HostAct::Task(..)
            | HostAct::Vcpu(..)
            | HostAct::Set(..)
            | HostAct::Code(..)
            | HostAct::SetMsrs(..)
            | HostAct::GetMsrs(..)
            | HostAct::Fork(..)
            | HostAct::Capability(..) => {
                return Err(bad(format!(
                    "{rest:?} is no action: it belongs under given"
                )));
            }
            HostAct::Open(.., Some(_)) => {
                return Err(bad(format!(
                    "{rest:?}: what it leads to is seen, not expected"
                )));
            }
            HostAct::Open(..) if most.is_none() => {
                // perf's numbers of an endless row of events have no end either.
                return Err(bad(format!("{rest:?} needs \"at most N: \" before it")));
            }
            HostAct::Branch(..) | HostAct::Retire(..) if most.is_none() => {
                return Err(bad(format!("{rest:?} needs \"at most N: \" before it")));
            }
            _ => {}
        }
        Ok(Self {
            text: rest.to_owned(),
            act,
            most,
            during,
            asks,
            event: None,
        })
    }

    /// Whether it reads an MSR.
    pub(crate) fn reads(&self) -> bool {
        match &self.act {
            HostAct::Guest(_, step) | HostAct::User(.., step) => {
                matches!(step.want, MsrWant::Value(_))
            }
            _ => false,
        }
    }

    /// Whether the event that it opens asks for the LBR.
    pub(crate) fn opens_rival(&self) -> bool {
        matches!(&self.act, HostAct::Open(_, text, _) if text.branch.is_some())
    }

    /// Whether it may be worth trying here; the host has the last word.
    pub(crate) fn may(&self, here: &Here<'_>) -> bool {
        let host = here.machine.host();
        let place = |vcpu: &str| here.names.vcpu(vcpu).map(|vcpu| host.vcpu(vcpu).place).ok();
        let event = self
            .event
            .and_then(|event| here.events.get(event).copied().flatten());
        let state = event
            .and_then(|event| host.perf().event(event))
            .map(vlbr_host::perf::Event::state);
        match &self.act {
            HostAct::Run(vcpu) | HostAct::Migrate(vcpu, _) => place(vcpu) == Some(Place::UserSpace),
            HostAct::Enter(vcpu, _) | HostAct::Leave(vcpu) => place(vcpu) == Some(Place::Kernel),
            HostAct::Exit(vcpu, ..) | HostAct::Guest(vcpu, _) => place(vcpu) == Some(Place::Guest),
            HostAct::Reset(vcpu) => place(vcpu) != Some(Place::Guest),
            HostAct::Open(..) => event.is_none(),
            HostAct::Close(_) | HostAct::PebsRecord(_) => event.is_some(),
            // What user space may do at ERROR too.
            HostAct::Enable(_) => {
                matches!(state, Some(EventState::Off | EventState::Error))
            }
            HostAct::Disable(_) => state.is_some_and(|state| state != EventState::Off),
            HostAct::Branch(cpu, ..) | HostAct::Retire(cpu, ..) => {
                let cpu = CpuId(*cpu);
                let guest = match host.hardware().cpu(cpu).running() {
                    Running::Guest(_) => During::Guest,
                    Running::Host(_) => During::Host,
                };
                (self.during == During::Anyone || self.during == guest)
                    && !here.machine.is_quiet(cpu)
            }
            HostAct::Switch(cpu, next) => {
                let now = host.current(CpuId(*cpu));
                match next {
                    None => now.is_some(),
                    Some(task) => {
                        let task: Option<TaskId> = here.names.task(here.machine, task).ok();
                        task.is_some_and(|task| now != Some(task))
                    }
                }
            }
            // A thread inside KVM_RUN makes no ioctl.
            HostAct::User(task, ..) => {
                let task = here.names.task(here.machine, task).ok();
                let mut vcpus = host.vcpus().iter();
                vcpus.all(|vcpu| Some(vcpu.thread) != task || vcpu.place == Place::UserSpace)
            }
            HostAct::DeepCState(cpu) => host.current(CpuId(*cpu)).is_none(),
            _ => true,
        }
    }

    /// The vCPU whose guest asks for the LBR by this.
    pub(crate) fn asked(&self, names: &HostNames) -> Option<VcpuId> {
        self.asks.as_deref().and_then(|vcpu| names.vcpu(vcpu).ok())
    }
}
