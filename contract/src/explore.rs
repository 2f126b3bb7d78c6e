//! Exploring a scene.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::{Checker as _, Model as _};
use vlbr_host::policy::Policy;
use vlbr_scenario::host_step::HostAct;

use crate::model::{Explorer, SceneModel, held};
use crate::start::Start;
use crate::{ContractError, ContractRule, Scene, trace};

/// How far a scene is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Most actions of a path.
    pub depth: Option<NonZeroUsize>,
    /// States after which nothing more is explored; the nearest come first. A scene may say less.
    pub states: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            depth: None,
            states: 1_000_000,
        }
    }
}

/// A rule that a policy breaks in a scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The rule.
    pub rule: ContractRule,
    /// Each way in which it is broken, with the actions of the shortest path, the shortest first.
    pub ways: Vec<(String, usize)>,
    /// The actions of the first of the shortest paths, as steps of a scenario.
    pub path: Vec<String>,
    /// The same as a scenario that shows it.
    pub scenario: String,
}

/// A scene as it was explored under a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explored {
    /// The policy.
    pub policy: String,
    /// The scene.
    pub scene: String,
    /// Whether guests were offered an LBR; else most rules say nothing.
    pub offered: bool,
    /// Whether perf knows of a guest's claim to the registers; else nobody can say where they may pass.
    pub stands: bool,
    /// Whether every state was left by every action that it offers.
    pub exhausted: bool,
    /// Whether nothing but the scene's own bound ended it.
    pub bounded: bool,
    /// States that were reached.
    pub states: usize,
    /// Actions that were taken from them.
    pub transitions: usize,
    /// Actions to the state that needs most.
    pub depth: usize,
    /// Up to how many actions every interleaving was tried.
    pub whole: usize,
    /// States from which a guest does not get the LBR back though no rival is left.
    pub stuck: usize,
    /// The most accesses to entries, TOS and filter by one switch, VM entry, VM exit, beginning or end of
    /// `KVM_RUN`; an XSAVES or XRSTORS is one, and what makes none is not named.
    pub most_accesses: BTreeMap<String, u64>,
    /// Rules that are broken, in order.
    pub broken: Vec<Broken>,
}

/// Explores every interleaving of a scene under a policy, in one thread; `progress` is told now and
/// then how many states were seen.
///
/// # Errors
/// The scene cannot be set up, or an action fails that should not.
pub fn explore(
    scene: &Scene,
    policy: &Arc<dyn Policy>,
    bounds: &Bounds,
    progress: &dyn Fn(usize),
) -> Result<Explored, ContractError> {
    let start = Start::of(scene, policy)?;
    let most = scene
        .states
        .map_or(bounds.states, |states| states.min(bounds.states));
    let own = scene.states.is_some_and(|states| states <= bounds.states);
    let model = Arc::new(SceneModel::new(start, most, own && bounds.depth.is_none()));
    let mut builder = Explorer(Arc::clone(&model)).checker().threads(1);
    if let Some(depth) = bounds.depth {
        // The checker counts states of a path.
        builder = builder.target_max_depth(depth.get().saturating_add(1));
    }
    let checker = builder.spawn_bfs();
    while !checker.is_done() {
        sleep(Duration::from_millis(20));
        progress(model.expanded.load(Ordering::Relaxed));
    }
    drop(checker.join());
    if let Some(failure) = held(&model.failure).take() {
        return Err(failure);
    }
    read(&model, scene)
}

/// What the graph says.
fn read(model: &SceneModel, scene: &Scene) -> Result<Explored, ContractError> {
    let (graph, ways) = (held(&model.graph), held(&model.ways));
    let reached = graph.reached();
    let mut rules: BTreeMap<ContractRule, Vec<(String, Vec<usize>)>> = BTreeMap::new();
    for (number, path) in reached.broken() {
        if let Some((rule, way)) = ways.get(number) {
            rules.entry(*rule).or_default().push((way.clone(), path));
        }
    }
    let barred = |n: usize| {
        let act = &model.start.actions[n].act;
        matches!(act, HostAct::Reset(_) | HostAct::Open(..))
    };
    let mut stuck = 0;
    if model.start.offered {
        for vcpu in 0..model.start.machine.host().vcpus().len() as u8 {
            let asks = model.start.actions.iter();
            let mut asks = asks.filter_map(|action| action.asked(&model.start.names));
            if !asks.any(|asked| asked.0 as u8 == vcpu) {
                continue;
            }
            let (count, path) = reached.stuck(vcpu, barred);
            stuck += count;
            if let Some(path) = path {
                let way = format!("vcpu{vcpu} does not get the LBR back short of a reset");
                let found = rules.entry(ContractRule::Recoverable).or_default();
                found.push((way, trace::complete(model, &path, vcpu)?));
            }
        }
    }
    let mut broken = Vec::new();
    for (rule, mut found) in rules {
        found.sort_by(|(a, x), (b, y)| (x.len(), x, a).cmp(&(y.len(), y, b)));
        let Some((way, path)) = found.first() else {
            continue;
        };
        let (path, scenario) = trace::scenario(model, scene, rule, way, path)?;
        let ways = found.iter().map(|(way, path)| (way.clone(), path.len()));
        broken.push(Broken {
            rule,
            ways: ways.collect(),
            path,
            scenario,
        });
    }
    let most_accesses = held(&model.most_accesses);
    let most_accesses = most_accesses
        .iter()
        .map(|(by, most)| ((*by).to_owned(), *most));
    Ok(Explored {
        policy: model.start.policy.clone(),
        scene: model.start.scene.clone(),
        offered: model.start.offered,
        stands: model.start.stands,
        exhausted: reached.exhausted(),
        bounded: model.bounded,
        states: reached.states(),
        transitions: graph.transitions(),
        depth: reached.depth(),
        whole: reached.whole(),
        stuck,
        most_accesses: most_accesses.collect(),
        broken,
    })
}
