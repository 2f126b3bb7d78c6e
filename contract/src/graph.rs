//! The graph of what was explored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ContractRule;

/// What names a state: its hash.
pub(crate) type Key = u64;

/// Ways to break rules, numbered as they come.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    numbers: BTreeMap<(ContractRule, String), u16>,
    list: Vec<(ContractRule, String)>,
}

impl Ways {
    pub(crate) fn number(&mut self, way: (ContractRule, String)) -> u16 {
        if let Some(number) = self.numbers.get(&way) {
            return *number;
        }
        // Rules, registers and owners of a small scene are far fewer.
        let number = u16::try_from(self.list.len()).unwrap_or(u16::MAX);
        self.list.push(way.clone());
        self.numbers.insert(way, number);
        number
    }

    pub(crate) fn get(&self, number: u16) -> Option<&(ContractRule, String)> {
        self.list.get(usize::from(number))
    }
}

/// An action from a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The action's place in the scene.
    pub(crate) action: u8,
    pub(crate) to: Key,
    /// Afterwards a host event that asks for the LBR is open.
    pub(crate) rivals: bool,
    /// The vCPU whose guest asked for the LBR and was served.
    pub(crate) served: Option<u8>,
    /// Numbers of the ways in which it breaks rules.
    pub(crate) broken: Box<[u16]>,
}

/// States by what leads from one to another.
#[derive(Debug)]
pub(crate) struct Graph {
    first: Key,
    edges: BTreeMap<Key, Vec<Edge>>,
}

/// What is known of a graph that is explored no further.
pub(crate) struct Reached<'a> {
    graph: &'a Graph,
    /// The nearest first.
    order: Vec<Key>,
    /// How a state was reached first: from which, by which of its edges; and how many lie before.
    origins: BTreeMap<Key, (Option<(Key, usize)>, usize)>,
}

impl Graph {
    pub(crate) const fn new(first: Key) -> Self {
        Self {
            first,
            edges: BTreeMap::new(),
        }
    }

    pub(crate) fn expand(&mut self, key: Key) {
        self.edges.entry(key).or_default();
    }

    pub(crate) fn add(&mut self, from: Key, edge: Edge) {
        self.edges.entry(from).or_default().push(edge);
    }

    /// How many actions from states.
    pub(crate) fn transitions(&self) -> usize {
        self.edges.values().map(Vec::len).sum()
    }

    fn from(&self, key: Key) -> &[Edge] {
        self.edges.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Every state that can be reached, the nearest first, and how.
    pub(crate) fn reached(&self) -> Reached<'_> {
        let mut origins = BTreeMap::from([(self.first, (None, 0))]);
        let mut order = Vec::new();
        let mut waiting = VecDeque::from([(self.first, 0)]);
        while let Some((key, depth)) = waiting.pop_front() {
            order.push(key);
            for (n, edge) in self.from(key).iter().enumerate() {
                if let Entry::Vacant(vacant) = origins.entry(edge.to) {
                    vacant.insert((Some((key, n)), depth + 1));
                    waiting.push_back((edge.to, depth + 1));
                }
            }
        }
        Reached {
            graph: self,
            order,
            origins,
        }
    }
}

impl Reached<'_> {
    /// How many states.
    pub(crate) fn states(&self) -> usize {
        self.order.len()
    }

    /// Whether every state was left by every action that it offers.
    pub(crate) fn exhausted(&self) -> bool {
        let mut keys = self.order.iter();
        keys.all(|key| self.graph.edges.contains_key(key))
    }

    /// The most actions that a state needs to be reached.
    pub(crate) fn depth(&self) -> usize {
        let last = self.order.last();
        last.and_then(|last| self.origins.get(last))
            .map_or(0, |(_, depth)| *depth)
    }

    /// The most actions up to which every state was left by every action.
    pub(crate) fn whole(&self) -> usize {
        let open = self
            .order
            .iter()
            .find(|key| !self.graph.edges.contains_key(key));
        match open.and_then(|key| self.origins.get(key)) {
            Some((_, depth)) => *depth,
            None => self.depth(),
        }
    }

    fn path(&self, to: Key) -> Vec<usize> {
        let mut actions = Vec::new();
        let mut at = to;
        while let Some((Some((from, n)), _)) = self.origins.get(&at) {
            actions.push(usize::from(self.graph.from(*from)[*n].action));
            at = *from;
        }
        actions.reverse();
        actions
    }

    /// For each way to break a rule, by its number, the first of the shortest paths that take it.
    pub(crate) fn broken(&self) -> BTreeMap<u16, Vec<usize>> {
        let mut found = BTreeMap::new();
        for key in &self.order {
            for edge in self.graph.from(*key) {
                for way in &edge.broken {
                    found.entry(*way).or_insert_with(|| {
                        let mut path = self.path(*key);
                        path.push(usize::from(edge.action));
                        path
                    });
                }
            }
        }
        found
    }

    /// States without a rival from which no path, without an action of `barred` (those that reset the
    /// vCPU or open an event), leads to where its guest asks for the LBR and is served, nor to a state
    /// that was not explored: how many, and the first of the shortest paths to one.
    pub(crate) fn stuck(
        &self,
        vcpu: u8,
        barred: impl Fn(usize) -> bool,
    ) -> (usize, Option<Vec<usize>>) {
        let mut back: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        let mut free = BTreeSet::from([self.graph.first]);
        let mut served = BTreeSet::new();
        for (from, edges) in &self.graph.edges {
            for edge in edges {
                if !edge.rivals {
                    free.insert(edge.to);
                }
                if !barred(usize::from(edge.action)) {
                    back.entry(edge.to).or_default().push(*from);
                }
                if edge.served == Some(vcpu) {
                    served.insert(*from);
                }
                // Nobody knows what lies behind a state that the bound left unexplored.
                if !self.graph.edges.contains_key(&edge.to) {
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
        let order = self.order.iter();
        let mut stuck = order.filter(|key| free.contains(key) && !served.contains(key));
        let first = stuck.next();
        let count = usize::from(first.is_some()) + stuck.count();
        (count, first.map(|key| self.path(*key)))
    }
}
