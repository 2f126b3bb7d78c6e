//! The slowest cycle of dependences, step by step, for whoever explains a bound.

use crate::dependence::{Dependences, Edge, NO_VALUE, Value, Work};

/// From a value to one that waits for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// The node in between.
    pub(crate) node: usize,
    /// What the node waits for.
    pub(crate) input: Value,
    /// What the node makes.
    pub(crate) output: Value,
    /// Cycles from one to the other.
    pub(crate) latency: f32,
    /// The input is of the iteration before.
    pub(crate) carried: bool,
}

/// Longest ways from one carried value.
struct Ways {
    /// Steps with the number of the one before.
    steps: Vec<(Step, Option<usize>)>,
    /// The last step to each value, with the length of the way.
    ends: Vec<Option<(f64, Option<usize>)>>,
}

impl Ways {
    fn from(source: Value, program: &Dependences) -> Self {
        let mut ways = Self {
            steps: Vec::new(),
            ends: vec![None; program.values()],
        };
        ways.ends[usize::from(source)] = Some((0.0, None));
        for (node, (inputs, outputs)) in program.nodes().enumerate() {
            let mut best: Option<(f64, Edge, Option<usize>)> = None;
            for edge in inputs.iter().filter(|edge| edge.value != NO_VALUE) {
                if let Some((length, step)) = ways.ends[usize::from(edge.value)] {
                    let length = length + f64::from(edge.latency);
                    if best.is_none_or(|(longest, ..)| length > longest) {
                        best = Some((length, *edge, step));
                    }
                }
            }
            for output in outputs {
                ways.ends[usize::from(output.value)] = best.map(|(length, input, before)| {
                    ways.steps.push((
                        Step {
                            node,
                            input: input.value,
                            output: output.value,
                            latency: input.latency + output.latency,
                            carried: before.is_none(),
                        },
                        before,
                    ));
                    let last = Some(ways.steps.len() - 1);
                    (length + f64::from(output.latency), last)
                });
            }
        }
        ways
    }

    fn to(&self, value: Value) -> Option<f64> {
        // A value that nothing wrote has come to its end without a step.
        self.ends[usize::from(value)].and_then(|(length, step)| step.map(|_| length))
    }

    fn steps_to(&self, value: Value) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = self.ends[usize::from(value)].and_then(|(_, step)| step);
        while let Some(number) = at {
            let (step, before) = self.steps[number];
            steps.push(step);
            at = before;
        }
        steps.reverse();
        steps
    }
}

/// The steps of a cycle that takes `bound` cycles per iteration, the result of
/// [`Dependences::bound`]; none if that is 0.
pub(crate) fn slowest_cycle(program: &Dependences, bound: f32, work: &mut Work) -> Vec<Step> {
    if bound <= 0.0 {
        return Vec::new();
    }
    work.find_carried(program);
    let carried = work.carried();
    let ways: Vec<Ways> = carried.iter().map(|&v| Ways::from(v, program)).collect();
    // Less a little per iteration, the slowest cycle gains and no other kind does.
    let rate = f64::from(bound) * (1.0 - 1e-4) - 1e-6;
    let links: Vec<(usize, usize, f64)> = (0..carried.len())
        .flat_map(|from| {
            let ways = &ways[from];
            let to = move |(to, &value)| ways.to(value).map(|length| (from, to, length - rate));
            carried.iter().enumerate().filter_map(to)
        })
        .collect();
    let cycle = gaining_cycle(carried.len(), &links);
    let mut steps = Vec::new();
    for (at, &from) in cycle.iter().enumerate() {
        let to = cycle[(at + 1) % cycle.len()];
        steps.extend(ways[from].steps_to(carried[to]));
    }
    steps
}

/// Nodes of a cycle of positive weight, in order; none if there is none. Bellman and Ford's search.
fn gaining_cycle(count: usize, links: &[(usize, usize, f64)]) -> Vec<usize> {
    let mut distance = vec![0.0; count];
    let mut before = vec![usize::MAX; count];
    let mut last = None;
    for _ in 0..=count {
        last = None;
        for &(from, to, weight) in links {
            let length: f64 = distance[from] + weight;
            if length > distance[to] + 1e-9 {
                distance[to] = length;
                before[to] = from;
                last = Some(to);
            }
        }
        if last.is_none() {
            return Vec::new();
        }
    }
    let Some(mut at) = last else {
        return Vec::new();
    };
    // So many steps back lie on the cycle.
    for _ in 0..count {
        at = before[at];
    }
    let mut cycle = vec![at];
    let mut next = before[at];
    while next != at {
        cycle.push(next);
        next = before[next];
    }
    cycle.reverse();
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cycle_over_two_iterations_is_told_step_by_step() {
        // 3 <- 1 + 4; 1 <- 2 + 1; 2 <- 3; and 4 <- 4 + 2, which is faster.
        let mut program = Dependences::default();
        program.clear();
        for (input, latency, output) in [(1, 4.0, 3), (2, 1.0, 1), (3, 0.0, 2), (4, 2.0, 4)] {
            program.begin();
            program.input(input, latency);
            program.output(output, 0.0);
        }
        let mut work = Work::default();
        let bound = program.bound(&mut work);
        assert_eq!(bound, 2.5);
        let steps = slowest_cycle(&program, bound, &mut work);
        let nodes: Vec<usize> = steps.iter().map(|s| s.node).collect();
        assert!(nodes == [0, 2, 1] || nodes == [1, 0, 2], "{nodes:?}");
        let sum: f32 = steps.iter().map(|s| s.latency).sum();
        let iterations = steps.iter().filter(|s| s.carried).count();
        assert_eq!((sum, iterations), (5.0, 2));
    }

    #[test]
    fn without_a_bound_there_is_no_cycle() {
        let mut program = Dependences::default();
        program.clear();
        assert_eq!(slowest_cycle(&program, 0.0, &mut Work::default()), []);
    }
}
