//! A scene as a model that is checked.

use core::hash::{Hash, Hasher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stateright::{Model, Property};
use vlbr_arch::Msr;
use vlbr_host::kvm::{ExitLevel, Note, Place};
use vlbr_host::machine::{Findings, HostError, Input, Machine, Output, Rule};
use vlbr_host::perf::{EventId, EventState};
use vlbr_host::{CpuId, TaskId, VcpuId};
use vlbr_scenario::host_step::HostAct;

use crate::action::Here;
use crate::graph::{Edge, Graph, Key, Ways};
use crate::judge::{
    access, evidence, is_served, may_be_on, passable, running, waiting, way, with_branch_stacks,
};
use crate::start::Start;
use crate::{ContractError, ContractRule};

/// What is remembered of a vCPU beside the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// Its guest, or user space for it, accessed an LBR register since the vCPU was made or reset.
    touched: bool,
    /// User space did, from whichever thread: what perf does for it is not that vCPU's alone.
    by_user: bool,
    /// An access exited and was served, and the vCPU was not put since.
    served: bool,
    /// It exited into the fast path, where interrupts are off: nothing comes before the entry from there.
    fast: bool,
}

/// A state that was reached.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) machine: Arc<Machine>,
    /// The events that actions open, while they are open.
    pub(crate) events: Box<[Option<EventId>]>,
    /// How often actions may still happen that may not always.
    pub(crate) left: Box<[u8]>,
    pub(crate) seen: Box<[Seen]>,
    pub(crate) key: Key,
}

impl State {
    fn new(
        machine: Machine,
        events: Box<[Option<EventId>]>,
        left: Box<[u8]>,
        seen: Box<[Seen]>,
    ) -> Self {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let key = hasher.hash_one((machine.canonical(&events), &left, &seen));
        Self {
            machine: Arc::new(machine),
            events,
            left,
            seen,
            key,
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// What an action leads to.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) state: State,
    pub(crate) output: Option<Output>,
    pub(crate) findings: Findings,
    /// Rules that it breaks, and by which way.
    pub(crate) broken: BTreeSet<(ContractRule, String)>,
    pub(crate) served: Option<VcpuId>,
    pub(crate) rivals: bool,
    /// What shows a rule broken that is no finding of the host's, as comparisons of a scenario.
    pub(crate) evidence: BTreeMap<ContractRule, Vec<String>>,
}

/// A scene, with the graph that exploring it leaves.
#[derive(Debug)]
pub(crate) struct SceneModel {
    pub(crate) start: Start,
    pub(crate) graph: Mutex<Graph>,
    pub(crate) ways: Mutex<Ways>,
    pub(crate) failure: Mutex<Option<ContractError>>,
    pub(crate) expanded: AtomicUsize,
    /// The most accesses to registers that a hypervisor can let pass, by what made them.
    pub(crate) most_accesses: Mutex<BTreeMap<&'static str, u64>>,
    most: usize,
    /// `most` is the scene's own bound, and the only one.
    pub(crate) bounded: bool,
}

impl SceneModel {
    pub(crate) fn new(start: Start, most: usize, bounded: bool) -> Self {
        let first = first(&start);
        Self {
            graph: Mutex::new(Graph::new(first.key)),
            ways: Mutex::default(),
            failure: Mutex::new(None),
            expanded: AtomicUsize::new(0),
            most_accesses: Mutex::default(),
            start,
            most,
            bounded,
        }
    }

    pub(crate) fn first(&self) -> State {
        first(&self.start)
    }

    /// Places of the actions that are worth trying.
    pub(crate) fn enabled(&self, state: &State) -> Vec<usize> {
        let here = Here {
            machine: &state.machine,
            names: &self.start.names,
            events: &state.events,
        };
        let actions = self.start.actions.iter().enumerate();
        let fast = state.seen.iter().position(|seen| seen.fast);
        let enabled = actions.filter_map(|(n, action)| {
            let left = action.most.is_none() || state.left[n] != 0;
            let entered = match &action.act {
                HostAct::Enter(vcpu, true) => {
                    let vcpu = self.start.names.vcpu(vcpu).ok();
                    vcpu.map(VcpuId::index)
                }
                _ => None,
            };
            (left && entered == fast && action.may(&here)).then_some(n)
        });
        enabled.collect()
    }

    fn input(&self, from: &State, n: usize) -> Result<Input, String> {
        let action = &self.start.actions[n];
        let event = action.event.and_then(|event| from.events[event]);
        Ok(match (&action.act, event) {
            (HostAct::Close(_), Some(event)) => Input::Close(event),
            (HostAct::Enable(_), Some(event)) => Input::Enable(event),
            (HostAct::Disable(_), Some(event)) => Input::Disable(event),
            (HostAct::PebsRecord(_), Some(event)) => Input::PebsRecord(event),
            (act, _) => {
                let input = self.start.names.input(&from.machine, act);
                input.map_err(|mismatch| mismatch.to_string())?
            }
        })
    }

    /// One action from a state; `None`: the host cannot take it there.
    pub(crate) fn step(&self, from: &State, n: usize) -> Result<Option<Step>, ContractError> {
        let action = &self.start.actions[n];
        let input = self.input(from, n).map_err(|reason| ContractError::Setup {
            scene: self.start.scene.clone(),
            step: action.text.clone(),
            reason,
        })?;
        let mut machine = (*from.machine).clone();
        let output = match machine.apply(&input) {
            Ok(output) => Some(output),
            // perf refuses: the path goes on.
            Err(HostError::Errno(_)) => None,
            Err(
                HostError::Place { .. }
                | HostError::NotRunning(_)
                | HostError::Runs { .. }
                | HostError::NotNested(_)
                | HostError::NoPebsRecord(_),
            ) => return Ok(None),
            Err(error) => {
                return Err(ContractError::Action {
                    scene: self.start.scene.clone(),
                    policy: self.start.policy.clone(),
                    action: action.text.clone(),
                    error: Box::new(error),
                });
            }
        };
        let mut events = from.events.clone();
        let mut left = from.left.clone();
        if action.most.is_some() {
            left[n] -= 1;
        }
        if let Some(place) = action.event {
            match (&action.act, &output) {
                (HostAct::Open(..), Some(Output::Event(event))) => events[place] = Some(*event),
                (HostAct::Close(_), Some(_)) => events[place] = None,
                _ => {}
            }
        }
        let rival = |(event, asks): (&Option<EventId>, &bool)| event.filter(|_| *asks);
        let rivals: Vec<_> = events
            .iter()
            .zip(&self.start.rivals)
            .filter_map(rival)
            .collect();
        let before = from.events.iter().zip(&self.start.rivals).filter_map(rival);
        let before: Vec<_> = before.collect();
        // What has gone is looked for where the last event goes that could have brought it.
        if with_branch_stacks(&from.machine) {
            machine.finish();
        }
        let mut broken = self.costs(from, n, &machine, output.as_ref());
        let seen = self.look(from, n, &machine, output.as_ref(), &mut broken);
        let mut rules: BTreeSet<_> = broken.iter().map(|(rule, _)| *rule).collect();
        if machine.findings().count(Rule::References) != 0 {
            rules.insert(ContractRule::ReferencesReturn);
        }
        let asked = action.asked(&self.start.names);
        let served = asked.filter(|vcpu| is_served(&machine, *vcpu, output.as_ref()));
        if asked != served {
            // What a path that ends in a refusal shows.
            rules.insert(ContractRule::Recoverable);
        }
        // It has to come back at the latest when perf's timer rotates there.
        if let HostAct::Rotate(cpu) = action.act
            && !waiting(&machine, &rivals, CpuId(cpu)).is_empty()
        {
            let what = "a host event waits for an LBR that nobody uses".to_owned();
            broken.insert((ContractRule::HostComesBack, what));
        }
        let evidence = rules
            .iter()
            .map(|rule| (*rule, evidence(*rule, &machine, &self.start)));
        let evidence = evidence.collect();
        let findings = machine.take_results();
        for violation in findings.violations() {
            let beside = [(&*from.machine, &before), (&machine, &rivals)];
            let beside = beside
                .into_iter()
                .any(|(machine, rivals)| may_be_on(machine, rivals, violation.cpu));
            let rule = ContractRule::of(violation, beside);
            broken.insert((rule, way(&violation.particulars())));
        }
        Ok(Some(Step {
            state: State::new(machine, events, left, seen),
            output,
            findings,
            broken,
            served,
            rivals: !rivals.is_empty(),
            evidence,
        }))
    }

    /// Rules about what an action costs.
    fn costs(
        &self,
        from: &State,
        n: usize,
        machine: &Machine,
        output: Option<&Output>,
    ) -> BTreeSet<(ContractRule, String)> {
        let mut broken = BTreeSet::new();
        let act = &self.start.actions[n].act;
        let journal = machine.host().journal();
        if journal.total(Note::Warned) != 0 {
            let what = "VM entry warns that the guest's LBR does not work".to_owned();
            broken.insert((ContractRule::NoWarningEachEntry, what));
        }
        if let Some(Output::Pmi { samples, .. } | Output::Samples(samples)) = output
            && samples.iter().any(|sample| sample.stale)
        {
            let what = "a sample of an ACTIVE host event holds a stack of before".to_owned();
            broken.insert((ContractRule::HostRecords, what));
        }
        let moves = match act {
            HostAct::Run(_) => "KVM_RUN",
            HostAct::Enter(..) => "VM entry",
            HostAct::Exit(..) => "a VM exit",
            HostAct::Leave(_) => "leaving KVM_RUN",
            HostAct::Switch(..) => "a switch",
            _ => return broken,
        };
        let rows = machine.ledger().rows();
        let lbr = rows.filter(|(_, row, _)| access(machine, *row).is_some());
        let accesses: u64 = lbr.map(|(.., count)| count).sum();
        if accesses != 0 {
            let mut most = held(&self.most_accesses);
            let most = most.entry(moves).or_default();
            *most = accesses.max(*most);
        }
        if self.is_unused(from, act) && accesses != 0 && from.events.iter().all(Option::is_none) {
            let what = format!("{moves} accesses LBR MSRs for a guest that has touched none");
            broken.insert((ContractRule::UnusedCostsNothing, what));
        }
        broken
    }

    /// Whether what an action of a vCPU or a switch does is done for guests that have not touched their
    /// LBR, and no other guest runs that could be interrupted for it.
    fn is_unused(&self, from: &State, act: &HostAct) -> bool {
        let host = from.machine.host();
        let names = &self.start.names;
        let of = |task: TaskId| host.vcpus().iter().find(|vcpu| vcpu.thread == task);
        let concerned: Vec<VcpuId> = match act {
            HostAct::Run(vcpu)
            | HostAct::Enter(vcpu, _)
            | HostAct::Exit(vcpu, ..)
            | HostAct::Leave(vcpu) => names.vcpu(vcpu).into_iter().collect(),
            HostAct::Switch(cpu, next) => {
                let next = next
                    .as_ref()
                    .and_then(|task| names.task(&from.machine, task).ok());
                let threads = [host.current(CpuId(*cpu)), next];
                let threads = threads.into_iter().flatten();
                threads.filter_map(of).map(|vcpu| vcpu.id).collect()
            }
            _ => return false,
        };
        if from.seen.iter().any(|seen| seen.by_user) {
            return false;
        }
        host.vcpus().iter().all(|vcpu| {
            let touched = from
                .seen
                .get(vcpu.id.index())
                .is_none_or(|seen| seen.touched);
            !touched || (!concerned.contains(&vcpu.id) && vcpu.place != Place::Guest)
        })
    }

    /// What is remembered afterwards, and the rule about exits.
    fn look(
        &self,
        from: &State,
        n: usize,
        machine: &Machine,
        output: Option<&Output>,
        broken: &mut BTreeSet<(ContractRule, String)>,
    ) -> Box<[Seen]> {
        let mut seen = from.seen.clone();
        let act = &self.start.actions[n].act;
        let names = &self.start.names;
        match act {
            HostAct::Guest(vcpu, _) => {
                if let (Ok(vcpu), Some(Output::Guest(access))) = (names.vcpu(vcpu), output)
                    && let Some(seen) = seen.get_mut(vcpu.index())
                    && let Ok(Some(msr)) = self.accessed(from, n)
                {
                    let register = machine.host().lbr_msrs().register(msr);
                    if register.is_some() || msr == Msr::DEBUGCTL {
                        seen.touched = true;
                    }
                    let passes =
                        self.start.offered && passable(machine, msr) && access.result.is_ok();
                    let denied = machine.findings().count(Rule::Denial) != 0;
                    if passes && access.exited && !denied {
                        if seen.served {
                            let what = "an access exits in a slice in which one was served before";
                            broken.insert((ContractRule::OneExitASlice, what.to_owned()));
                        }
                        seen.served = true;
                    }
                }
            }
            // What user space asks for is not free either.
            HostAct::User(_, vcpu, _) => {
                if let Ok(vcpu) = names.vcpu(vcpu)
                    && let Some(seen) = seen.get_mut(vcpu.index())
                {
                    (seen.touched, seen.by_user) = (true, true);
                }
            }
            HostAct::Exit(vcpu, _, level) => {
                if let Ok(vcpu) = names.vcpu(vcpu)
                    && let Some(seen) = seen.get_mut(vcpu.index())
                {
                    seen.fast = *level == ExitLevel::FastPath;
                }
            }
            HostAct::Enter(vcpu, _) => {
                if let Ok(vcpu) = names.vcpu(vcpu)
                    && let Some(seen) = seen.get_mut(vcpu.index())
                {
                    seen.fast = false;
                }
            }
            HostAct::Reset(vcpu) => {
                if let Ok(vcpu) = names.vcpu(vcpu)
                    && let Some(seen) = seen.get_mut(vcpu.index())
                {
                    *seen = Seen::default();
                }
            }
            _ => {}
        }
        for (n, seen) in seen.iter_mut().enumerate() {
            let vcpu = machine.host().vcpu(VcpuId(n as u16));
            let event = vcpu
                .lbr
                .event
                .and_then(|event| machine.host().perf().event(event));
            let on = running(machine, vcpu.thread) && vcpu.place != Place::UserSpace;
            // Where no event stands for it, its stack is in memory when somebody else has the LBR.
            let lost = event.is_some_and(|event| event.state() != EventState::Active)
                || machine.host().perf().guest_lbr(vcpu.id).is_some();
            if !on || lost {
                seen.served = false;
            }
        }
        seen
    }

    fn accessed(&self, from: &State, n: usize) -> Result<Option<Msr>, String> {
        Ok(match self.input(from, n)? {
            Input::GuestRead(_, msr, _) | Input::GuestWrite(_, msr, ..) => Some(msr),
            _ => None,
        })
    }
}

fn first(start: &Start) -> State {
    let left = start.actions.iter().map(|action| action.most.unwrap_or(0));
    let vcpus = start.machine.host().vcpus().len();
    State::new(
        start.machine.clone(),
        vec![None; start.events.len()].into(),
        left.collect(),
        vec![Seen::default(); vcpus].into(),
    )
}

/// A scene for the checker, which keeps what it is given.
pub(crate) struct Explorer(pub(crate) Arc<SceneModel>);

impl Model for Explorer {
    type State = State;
    type Action = usize;

    fn init_states(&self) -> Vec<State> {
        vec![self.0.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<usize>) {
        // One thread explores a scene, the nearest states first: where the bound cuts is always the
        // same place.
        if self.0.expanded.load(Ordering::Relaxed) >= self.0.most || held(&self.0.failure).is_some()
        {
            return;
        }
        self.0.expanded.fetch_add(1, Ordering::Relaxed);
        held(&self.0.graph).expand(state.key);
        actions.extend(self.0.enabled(state));
    }

    fn next_state(&self, from: &State, n: usize) -> Option<State> {
        match self.0.step(from, n) {
            Ok(Some(step)) => {
                let ways = step.broken.into_iter();
                let mut known = held(&self.0.ways);
                let edge = Edge {
                    action: n as u8,
                    to: step.state.key,
                    rivals: step.rivals,
                    served: step.served.map(|vcpu| vcpu.0 as u8),
                    broken: ways.map(|way| known.number(way)).collect(),
                };
                held(&self.0.graph).add(from.key, edge);
                Some(step.state)
            }
            Ok(None) => None,
            Err(error) => {
                held(&self.0.failure).get_or_insert(error);
                None
            }
        }
    }

    /// One that always holds: rules are broken by actions, not by states, and are read off the
    /// graph; the checker goes on to the end.
    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("explored", |_, _| true)]
    }
}

/// What a lock guards, whatever became of the thread that had it before.
pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
