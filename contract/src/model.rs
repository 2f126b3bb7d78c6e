//! A scene as a model that is checked.

use core::hash::{Hash, Hasher};
use std::collections::hash_map::DefaultHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stateright::{Model, Property};
use vlbr_host::machine::{HostError, Machine, Output, Rule};
use vlbr_host::perf::EventId;

use crate::graph::{Edge, Graph, Key};
use crate::scene::{Scene, Start};
use crate::{Action, ContractError};

/// A state that was reached.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) machine: Arc<Machine>,
    /// The host's event, while it is open.
    pub(crate) rival: Option<EventId>,
    /// Branches that the guest and the host have left, and how often the host's event may still be
    /// opened or enabled.
    pub(crate) budget: [u8; 3],
    pub(crate) key: Key,
}

impl State {
    pub(crate) fn new(machine: Machine, rival: Option<EventId>, budget: [u8; 3]) -> Self {
        let mut hasher = DefaultHasher::new();
        machine.canonical().hash(&mut hasher);
        budget.hash(&mut hasher);
        Self {
            machine: Arc::new(machine),
            rival,
            budget,
            key: hasher.finish(),
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
    pub(crate) edge: Edge,
    pub(crate) output: Option<Output>,
    pub(crate) text: String,
}

/// A scene, with the graph that exploring it leaves.
#[derive(Debug)]
pub(crate) struct SceneModel {
    pub(crate) start: Start,
    budget: [u8; 3],
    pub(crate) graph: Mutex<Graph>,
    pub(crate) failure: Mutex<Option<ContractError>>,
}

impl SceneModel {
    pub(crate) fn new(scene: &Scene) -> Result<Self, ContractError> {
        let start = scene.start()?;
        let budget = [scene.guest_branches, scene.host_branches, scene.openings];
        let first = State::new(start.machine.clone(), None, budget);
        Ok(Self {
            start,
            budget,
            graph: Mutex::new(Graph::new(first.key)),
            failure: Mutex::new(None),
        })
    }

    pub(crate) fn first(&self) -> State {
        State::new(self.start.machine.clone(), None, self.budget)
    }

    /// One action from a state.
    pub(crate) fn step(
        &self,
        from: &State,
        action: Action,
        opened: u32,
    ) -> Result<Step, ContractError> {
        let mut machine = (*from.machine).clone();
        let (input, text) = action.input(&self.start, &machine, from.rival, opened);
        let in_guest = matches!(
            machine.host().hardware().cpu(Scene::CPU).running(),
            vlbr_host::hardware::Running::Guest(_)
        );
        let output = match machine.apply(&input) {
            Ok(output) => Some(output),
            // perf refuses: the path goes on.
            Err(HostError::Errno(_)) => None,
            Err(error) => {
                let action = text;
                return Err(ContractError::Action { action, error });
            }
        };
        let found = machine.take_results();
        let (mut rival, mut budget) = (from.rival, from.budget);
        match (action, &output) {
            (Action::Open, Some(Output::Event(event))) => rival = Some(*event),
            (Action::Close, Some(_)) => rival = None,
            (Action::Branch, _) => budget[usize::from(!in_guest)] -= 1,
            _ => {}
        }
        if matches!(action, Action::Open | Action::Enable) {
            budget[2] -= 1;
        }
        let state = State::new(machine, rival, budget);
        let mut violations: Vec<_> = found.violations().iter().collect();
        violations.sort_by_key(|violation| (violation.rule, violation.particulars()));
        let violations = violations.into_iter();
        let edge = Edge {
            action,
            to: state.key,
            rivals: rival.is_some(),
            served: action.asks_for_lbr() && found.count(Rule::Denial) == 0,
            violations: violations.map(|v| (v.rule, v.particulars())).collect(),
        };
        Ok(Step {
            state,
            edge,
            output,
            text,
        })
    }
}

/// A scene for the checker, which keeps what it is given.
pub(crate) struct Explorer(pub(crate) Arc<SceneModel>);

impl Model for Explorer {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.0.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        Action::enabled(&state.machine, state.rival, state.budget, actions);
    }

    fn next_state(&self, from: &State, action: Action) -> Option<State> {
        match self.0.step(from, action, 0) {
            Ok(step) => {
                held(&self.0.graph).add(from.key, step.edge);
                Some(step.state)
            }
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
