//! Dependences of a block that repeats: what each value waits for, and the slowest cycle.

/// A value that instructions read and write: a register, a group of flags, a store.
pub(crate) type Value = u16;

/// An input that never delays anything.
pub(crate) const NO_VALUE: Value = 0;

/// An input or output of a node with its latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) value: Value,
    pub(crate) latency: f32,
}

/// Every output waits for every input.
#[derive(Clone, Copy, Debug)]
struct Node {
    inputs: u32,
    outputs: u32,
    end: u32,
}

/// The dependences of a block in program order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dependences {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    values: usize,
}

/// Sources that one pass follows.
const LANES: usize = 8;
const NEVER: f32 = -1e9;

impl Dependences {
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.edges.clear();
        self.values = 1;
    }

    /// Number of values, unused ones included.
    pub(crate) fn values(&self) -> usize {
        self.values
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a node. Its inputs are added first, then its outputs.
    pub(crate) fn begin(&mut self) {
        let at = self.edges.len() as u32;
        self.nodes.push(Node {
            inputs: at,
            outputs: at,
            end: at,
        });
    }

    /// Adds an edge to the inputs of the last node and returns its position.
    pub(crate) fn input(&mut self, value: Value, latency: f32) -> usize {
        let at = self.edges.len();
        self.edges.push(Edge { value, latency });
        if let Some(node) = self.nodes.last_mut() {
            node.outputs = at as u32 + 1;
            node.end = node.outputs;
        }
        self.values = self.values.max(usize::from(value) + 1);
        at
    }

    /// Adds an edge to the outputs of the last node and returns its position.
    pub(crate) fn output(&mut self, value: Value, latency: f32) -> usize {
        self.edges.push(Edge { value, latency });
        if let Some(node) = self.nodes.last_mut() {
            node.end = self.edges.len() as u32;
        }
        self.values = self.values.max(usize::from(value) + 1);
        self.edges.len() - 1
    }

    /// Inputs and outputs of the first node; none if there is no node.
    pub(crate) fn first(&self) -> (&[Edge], &[Edge]) {
        self.nodes().next().unwrap_or_default()
    }

    /// Replaces an edge.
    pub(crate) fn patch(&mut self, at: usize, value: Value, latency: f32) {
        if let Some(edge) = self.edges.get_mut(at) {
            *edge = Edge { value, latency };
        }
        self.values = self.values.max(usize::from(value) + 1);
    }

    /// Inputs and outputs of each node.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&[Edge], &[Edge])> {
        self.nodes.iter().map(|node| {
            (
                &self.edges[node.inputs as usize..node.outputs as usize],
                &self.edges[node.outputs as usize..node.end as usize],
            )
        })
    }

    /// Cycles per iteration of the slowest cycle of dependences.
    pub(crate) fn bound(&self, work: &mut Work) -> f32 {
        work.find_carried(self);
        let count = work.carried.len();
        if count == 0 {
            return 0.0;
        }
        work.matrix.clear();
        work.matrix.resize(count * count, NEVER);
        for first in (0..count).step_by(LANES) {
            work.propagate(self, first);
        }
        maximum_cycle_mean(&mut work.matrix, count, &mut work.walks)
    }
}

/// Memory that is used again from block to block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    state: Vec<u8>,
    carried: Vec<Value>,
    ready: Vec<[f32; LANES]>,
    matrix: Vec<f32>,
    walks: Vec<f32>,
}

impl Work {
    /// Values that are read before they are written, and written.
    pub(crate) fn find_carried(&mut self, program: &Dependences) {
        const LIVE_IN: u8 = 1;
        const WRITTEN: u8 = 2;
        self.state.clear();
        self.state.resize(program.values, 0);
        for (inputs, outputs) in program.nodes() {
            for edge in inputs {
                let state = &mut self.state[usize::from(edge.value)];
                if *state == 0 {
                    *state = LIVE_IN;
                }
            }
            for edge in outputs {
                self.state[usize::from(edge.value)] |= WRITTEN;
            }
        }
        self.state[usize::from(NO_VALUE)] = 0;
        self.carried.clear();
        for (value, &state) in self.state.iter().enumerate() {
            if state == LIVE_IN | WRITTEN {
                self.carried.push(value as Value);
            }
        }
    }

    /// What [`Work::find_carried`] found.
    pub(crate) fn carried(&self) -> &[Value] {
        &self.carried
    }

    /// Fills the rows of the matrix from carried value `first` on.
    fn propagate(&mut self, program: &Dependences, first: usize) {
        let count = self.carried.len();
        let lanes = LANES.min(count - first);
        self.ready.clear();
        self.ready.resize(program.values, [NEVER; LANES]);
        for lane in 0..lanes {
            self.ready[usize::from(self.carried[first + lane])][lane] = 0.0;
        }
        for (inputs, outputs) in program.nodes() {
            let mut start = [NEVER; LANES];
            for edge in inputs {
                let ready = &self.ready[usize::from(edge.value)];
                for lane in 0..LANES {
                    start[lane] = start[lane].max(ready[lane] + edge.latency);
                }
            }
            for edge in outputs {
                let ready = &mut self.ready[usize::from(edge.value)];
                for lane in 0..LANES {
                    ready[lane] = start[lane] + edge.latency;
                }
            }
        }
        for (to, value) in self.carried.iter().enumerate() {
            let ready = &self.ready[usize::from(*value)];
            for (lane, &longest) in ready.iter().enumerate().take(lanes) {
                self.matrix[(first + lane) * count + to] = longest;
            }
        }
    }
}

/// The largest mean weight of a cycle; 0 without one. Karp's theorem, from all nodes at once,
/// over the nodes that can lie on a cycle.
fn maximum_cycle_mean(matrix: &mut [f32], count: usize, walks: &mut Vec<f32>) -> f32 {
    let count = trim(matrix, count);
    match count {
        0 => return 0.0,
        1 => return matrix[0].max(0.0),
        _ => {}
    }
    walks.clear();
    walks.resize((count + 1) * count, NEVER * 100.0);
    walks[..count].fill(0.0);
    for step in 1..=count {
        let (before, after) = walks.split_at_mut(step * count);
        let before = &before[(step - 1) * count..];
        for from in 0..count {
            let base = before[from];
            let row = &matrix[from * count..(from + 1) * count];
            for (to, weight) in row.iter().enumerate() {
                after[to] = after[to].max(base + weight);
            }
        }
    }
    let last = &walks[count * count..];
    let mut best = 0.0_f32;
    for (node, &end) in last.iter().enumerate() {
        if end < NEVER / 2.0 {
            continue;
        }
        let mut least = f32::INFINITY;
        for step in 0..count {
            let begin = walks[step * count + node];
            if begin > NEVER / 2.0 {
                least = least.min((end - begin) / (count - step) as f32);
            }
        }
        if least.is_finite() {
            best = best.max(least);
        }
    }
    best
}

/// Drops nodes without predecessor or successor until none is left; returns how many remain.
fn trim(matrix: &mut [f32], count: usize) -> usize {
    let mut keep: Vec<usize> = (0..count).collect();
    loop {
        let before = keep.len();
        let linked = |a: usize, b: usize| matrix[a * count + b] > NEVER / 2.0;
        let kept: Vec<usize> = keep
            .iter()
            .copied()
            .filter(|&n| keep.iter().any(|&m| linked(n, m)) && keep.iter().any(|&m| linked(m, n)))
            .collect();
        keep = kept;
        if keep.len() == before {
            break;
        }
    }
    for (i, &a) in keep.iter().enumerate() {
        for (j, &b) in keep.iter().enumerate() {
            matrix[i * keep.len() + j] = matrix[a * count + b];
        }
    }
    keep.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs and outputs of a node.
    type Links<'a> = (&'a [(Value, f32)], &'a [(Value, f32)]);

    fn bound(nodes: &[Links<'_>]) -> f32 {
        let mut program = Dependences::default();
        program.clear();
        for (inputs, outputs) in nodes {
            program.begin();
            for &(value, latency) in *inputs {
                program.input(value, latency);
            }
            for &(value, latency) in *outputs {
                program.output(value, latency);
            }
        }
        program.bound(&mut Work::default())
    }

    #[test]
    fn a_value_that_feeds_itself_is_a_cycle() {
        assert_eq!(bound(&[(&[(1, 3.0)], &[(1, 0.0)])]), 3.0);
    }

    #[test]
    fn a_value_written_before_it_is_read_carries_nothing() {
        assert_eq!(
            bound(&[(&[], &[(1, 0.0)]), (&[(1, 5.0)], &[(1, 0.0)])]),
            0.0
        );
    }

    #[test]
    fn a_cycle_over_two_iterations_counts_half() {
        // Each iteration: 2 <- 1 + 4, then 1 <- old 2 + 1, so a round takes two iterations.
        let swap: &[Links<'_>] = &[
            (&[(1, 4.0)], &[(3, 0.0)]),
            (&[(2, 1.0)], &[(1, 0.0)]),
            (&[(3, 0.0)], &[(2, 0.0)]),
        ];
        assert_eq!(bound(swap), 2.5);
    }

    #[test]
    fn the_slowest_of_many_cycles_counts_beyond_one_pass() {
        let nodes: Vec<_> = (1..=20)
            .map(|v| (vec![(v, f32::from(v))], vec![(v, 0.0)]))
            .collect();
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(i, o)| (i.as_slice(), o.as_slice()))
            .collect();
        assert_eq!(bound(&nodes), 20.0);
    }
}
