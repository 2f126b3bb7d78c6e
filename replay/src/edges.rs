//! Edge profiles: how often control went from where to where.

use std::collections::BTreeMap;

use vlbr_cpu::{Code, StepId};
use vlbr_traces::perfdata::BranchEntry;

/// A taken transfer from one address to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// FROM.
    pub from: u64,
    /// TO.
    pub to: u64,
}

/// Straight-line execution from the target of one taken transfer to the source of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Address of the branch that ended it.
    pub end: u64,
    /// FROM of the transfer that led to it.
    pub origin: u64,
}

/// Counts of taken edges, of mispredictions among them, and of the ranges between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeProfile {
    /// Times taken, and times mispredicted.
    pub edges: BTreeMap<Edge, (u64, u64)>,
    /// Times run through.
    pub ranges: BTreeMap<Range, u64>,
}

impl EdgeProfile {
    /// Adds a branch stack, newest entry first: each entry is an edge, each two neighbours a range.
    pub fn add_stack(&mut self, entries: &[BranchEntry]) {
        for (index, entry) in entries.iter().enumerate() {
            let counts = self
                .edges
                .entry(Edge {
                    from: entry.from,
                    to: entry.to,
                })
                .or_default();
            counts.0 += 1;
            counts.1 += u64::from(entry.flags.mispred);
            if let Some(older) = entries.get(index + 1) {
                *self
                    .ranges
                    .entry(Range {
                        start: older.to,
                        end: entry.from,
                        origin: older.from,
                    })
                    .or_default() += 1;
            }
        }
    }

    /// Adds `count` executions of an edge.
    pub fn add_edge(&mut self, edge: Edge, count: u64, mispredicted: u64) {
        let counts = self.edges.entry(edge).or_default();
        counts.0 += count;
        counts.1 += mispredicted;
    }

    /// All edges that steps of `code` make, each as often as `counts` says the step ran.
    #[must_use]
    pub fn exact(code: &Code, counts: impl IntoIterator<Item = (StepId, u64)>) -> Self {
        let mut profile = Self::default();
        for (step, count) in counts {
            if let Some(transfer) = code.transfer(step) {
                let edge = Edge {
                    from: transfer.from,
                    to: transfer.to,
                };
                profile.add_edge(edge, count, if transfer.mispredicted { count } else { 0 });
            }
        }
        profile
    }

    /// Sum of all edge counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.edges.values().map(|(count, _)| count).sum()
    }

    /// Sum over all edges of the smaller of the two shares: 1 for profiles with the same shape,
    /// 0 for profiles with no common edge. Two empty profiles overlap by 1.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> f64 {
        let (mine, theirs) = (self.total(), other.total());
        if mine == 0 || theirs == 0 {
            return if mine == theirs { 1.0 } else { 0.0 };
        }
        self.edges
            .iter()
            .filter_map(|(edge, (count, _))| {
                let (other_count, _) = other.edges.get(edge)?;
                let share = *count as f64 / mine as f64;
                Some(share.min(*other_count as f64 / theirs as f64))
            })
            .sum()
    }

    /// Without the edges between user and kernel half and the ranges that touch them.
    #[must_use]
    pub fn within_one_level(mut self) -> Self {
        let crosses = |a: u64, b: u64| (a ^ b) >> 63 != 0;
        self.edges.retain(|edge, _| !crosses(edge.from, edge.to));
        self.ranges
            .retain(|range, _| !crosses(range.start, range.end));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(from: u64, to: u64) -> BranchEntry {
        BranchEntry {
            from,
            to,
            ..BranchEntry::default()
        }
    }

    #[test]
    fn a_stack_gives_edges_and_the_ranges_between() {
        let mut profile = EdgeProfile::default();
        profile.add_stack(&[entry(0x30, 0x10), entry(0x20, 0x28), entry(0x8, 0x18)]);
        assert_eq!(profile.total(), 3);
        let ranges: Vec<_> = profile.ranges.keys().copied().collect();
        assert_eq!(
            ranges,
            [
                Range {
                    start: 0x18,
                    end: 0x20,
                    origin: 0x8
                },
                Range {
                    start: 0x28,
                    end: 0x30,
                    origin: 0x20
                }
            ]
        );
    }

    #[test]
    fn overlap_is_the_sum_of_smaller_shares() {
        let (mut a, mut b) = (EdgeProfile::default(), EdgeProfile::default());
        a.add_edge(Edge { from: 1, to: 2 }, 3, 0);
        a.add_edge(Edge { from: 3, to: 4 }, 1, 0);
        b.add_edge(Edge { from: 1, to: 2 }, 50, 0);
        b.add_edge(Edge { from: 5, to: 6 }, 50, 0);
        assert!((a.overlap(&b) - 0.5).abs() < 1e-12);
        assert!((a.overlap(&a) - 1.0).abs() < 1e-12);
        assert!((a.overlap(&EdgeProfile::default())).abs() < 1e-12);
    }
}
