//! The graph of what was explored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vlbr_host::machine::Rule;

use crate::Action;

/// What names a state: its hash.
pub(crate) type Key = u64;

/// An action from a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What happened.
    pub action: Action,
    pub(crate) to: Key,
    /// Afterwards the host's event is open.
    pub(crate) rivals: bool,
    /// The guest asked for the LBR and was served.
    pub(crate) served: bool,
    /// What it broke: the rule, and by which way.
    pub violations: Vec<(Rule, String)>,
}

/// States by what leads from one to another.
#[derive(Clone, Debug)]
pub struct Graph {
    first: Key,
    edges: BTreeMap<Key, Vec<Edge>>,
}

/// How a state was reached first: from which, by which of its edges.
type Origins = BTreeMap<Key, Option<(Key, usize)>>;

impl Graph {
    pub(crate) const fn new(first: Key) -> Self {
        Self {
            first,
            edges: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, from: Key, edge: Edge) {
        self.edges.entry(from).or_default().push(edge);
    }

    /// Edges in the order of their actions, whichever thread came first.
    pub(crate) fn sort(&mut self) {
        for edges in self.edges.values_mut() {
            edges.sort_by_key(|edge| edge.action);
        }
    }

    /// How many states were left by at least one action.
    #[must_use]
    pub fn states(&self) -> usize {
        self.edges.len()
    }

    /// How many actions from states.
    #[must_use]
    pub fn transitions(&self) -> usize {
        self.edges.values().map(Vec::len).sum()
    }

    fn from(&self, key: Key) -> &[Edge] {
        self.edges.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Every state that can be reached, the nearest first, and how.
    fn reached(&self) -> (Vec<Key>, Origins) {
        let mut origins = Origins::from([(self.first, None)]);
        let mut order = Vec::new();
        let mut waiting = VecDeque::from([self.first]);
        while let Some(key) = waiting.pop_front() {
            order.push(key);
            for (n, edge) in self.from(key).iter().enumerate() {
                if let Entry::Vacant(vacant) = origins.entry(edge.to) {
                    vacant.insert(Some((key, n)));
                    waiting.push_back(edge.to);
                }
            }
        }
        (order, origins)
    }

    fn path(&self, origins: &Origins, to: Key) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut at = to;
        while let Some(Some((from, n))) = origins.get(&at) {
            actions.push(self.from(*from)[*n].action);
            at = *from;
        }
        actions.reverse();
        actions
    }

    /// The most actions that a state needs to be reached.
    pub(crate) fn depth(&self) -> usize {
        let (order, origins) = self.reached();
        let last = order.last().copied();
        last.map_or(0, |last| self.path(&origins, last).len())
    }

    /// For each way to break a rule the first of the shortest paths that take it.
    pub(crate) fn violations(&self) -> BTreeMap<(Rule, String), Vec<Action>> {
        let (order, origins) = self.reached();
        let mut found = BTreeMap::new();
        for key in order {
            for edge in self.from(key) {
                for violation in &edge.violations {
                    found.entry(violation.clone()).or_insert_with(|| {
                        let mut path = self.path(&origins, key);
                        path.push(edge.action);
                        path
                    });
                }
            }
        }
        found
    }

    /// States without a rival from which no path without a reset and without a new rival leads to
    /// where the guest asks for the LBR and is served, nor to a state that was not explored: how
    /// many, and the first of the shortest paths to one.
    pub(crate) fn stuck(&self) -> (usize, Option<Vec<Action>>) {
        let mut back: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        let mut free: BTreeSet<Key> = BTreeSet::from([self.first]);
        let mut served = BTreeSet::new();
        for (from, edges) in &self.edges {
            for edge in edges {
                if !edge.rivals {
                    free.insert(edge.to);
                }
                if !matches!(edge.action, Action::Reset | Action::Open) {
                    back.entry(edge.to).or_default().push(*from);
                }
                if edge.served {
                    served.insert(*from);
                }
                // Nobody knows what lies behind a state that the bound left unexplored.
                if !self.edges.contains_key(&edge.to) {
                    served.insert(edge.to);
                }
            }
        }
        let mut waiting: Vec<Key> = served.iter().copied().collect();
        while let Some(key) = waiting.pop() {
            for from in back.get(&key).into_iter().flatten() {
                if served.insert(*from) {
                    waiting.push(*from);
                }
            }
        }
        let (order, origins) = self.reached();
        let mut stuck = order
            .into_iter()
            .filter(|key| free.contains(key) && !served.contains(key));
        let first = stuck.next();
        let count = usize::from(first.is_some()) + stuck.count();
        (count, first.map(|key| self.path(&origins, key)))
    }
}
