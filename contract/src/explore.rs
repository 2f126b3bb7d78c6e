//! Exploring a scene.

use core::num::NonZeroUsize;
use std::collections::BTreeMap;
use std::sync::Arc;

use stateright::{Checker as _, Model as _};
use vlbr_host::machine::Rule;

use crate::graph::Graph;
use crate::model::{Explorer, SceneModel, held};
use crate::{Action, ContractError, Scene, trace};

/// How far a scene is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Threads. What is found of a scene that is exhausted is the same with any number.
    pub threads: usize,
    /// Transitions after which it ends; which were seen by then depends on the threads.
    pub transitions: Option<NonZeroUsize>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            threads: 1,
            transitions: NonZeroUsize::new(10_000_000),
        }
    }
}

/// A scene as it was explored.
#[derive(Debug)]
pub struct Explored {
    scene: Scene,
    model: Arc<SceneModel>,
    graph: Graph,
    exhausted: bool,
    states: usize,
    violations: BTreeMap<(Rule, String), Vec<Action>>,
    stuck: (usize, Option<Vec<Action>>),
}

/// Explores every interleaving of a scene.
///
/// # Errors
/// The scene cannot be set up, or an action fails that should not.
pub fn explore(scene: &Scene, bounds: &Bounds) -> Result<Explored, ContractError> {
    if bounds.threads == 0 {
        return Err(ContractError::Threads);
    }
    let model = Arc::new(SceneModel::new(scene)?);
    let mut builder = Explorer(Arc::clone(&model))
        .checker()
        .threads(bounds.threads);
    if let Some(transitions) = bounds.transitions {
        builder = builder.target_state_count(transitions.get());
    }
    let checker = builder.spawn_bfs().join();
    let states = checker.unique_state_count();
    let transitions = checker.state_count();
    drop(checker);
    if let Some(failure) = held(&model.failure).take() {
        return Err(failure);
    }
    let mut graph = held(&model.graph).clone();
    graph.sort();
    Ok(Explored {
        scene: scene.clone(),
        exhausted: bounds
            .transitions
            .is_none_or(|most| transitions < most.get()),
        states,
        violations: graph.violations(),
        stuck: graph.stuck(),
        model,
        graph,
    })
}

impl Explored {
    /// Whether every state was left by every action that it offers.
    #[must_use]
    pub const fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// States that were seen.
    #[must_use]
    pub const fn states(&self) -> usize {
        self.states
    }

    /// Actions that were taken from them.
    #[must_use]
    pub fn transitions(&self) -> usize {
        self.graph.transitions()
    }

    /// Actions to the state that needs most.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.graph.depth()
    }

    /// Each way in which a rule is broken, with the first of its shortest paths.
    #[must_use]
    pub const fn violations(&self) -> &BTreeMap<(Rule, String), Vec<Action>> {
        &self.violations
    }

    /// States without a rival from which the guest does not get the LBR short of a reset: how many,
    /// and the first of the shortest paths to one.
    #[must_use]
    pub fn stuck(&self) -> (usize, Option<&[Action]>) {
        (self.stuck.0, self.stuck.1.as_deref())
    }

    /// Each violation as a scenario that shows it, shortest path first among those of a rule.
    ///
    /// # Errors
    /// A path cannot be done again.
    pub fn scenarios(&self) -> Result<Vec<String>, ContractError> {
        let found = self.violations.iter();
        let mut texts: Vec<_> = found
            .map(|((rule, way), path)| trace::violation(&self.scene, &self.model, *rule, way, path))
            .collect::<Result<_, _>>()?;
        if let Some(path) = &self.stuck.1 {
            texts.push(trace::stuck(&self.scene, &self.model, path)?);
        }
        Ok(texts)
    }
}
