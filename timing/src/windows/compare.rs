//! Medians of cycle fields: recorded and computed.

use core::fmt;
use std::collections::BTreeMap;

use crate::windows::replay::{Mispredictions, Windows};
use crate::windows::stack::Stack;

/// Entries at the beginning of a stack that warm the model up.
const WARM_UP: usize = 16;

/// Cycle fields of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Medians {
    recorded: Vec<u64>,
    computed: Vec<u64>,
}

impl Medians {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.recorded.len()
    }

    /// Medians of the recorded and of the computed ones.
    #[must_use]
    pub fn medians(&self) -> (u64, u64) {
        (quantile(&self.recorded, 50), quantile(&self.computed, 50))
    }

    /// Percentiles of both.
    #[must_use]
    pub fn percentiles(&self, percent: usize) -> (u64, u64) {
        (
            quantile(&self.recorded, percent),
            quantile(&self.computed, percent),
        )
    }
}

fn quantile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Cycle fields of many stacks, sorted by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By the first address after the branch before, and the address of the branch.
    pub blocks: BTreeMap<(u64, u64), Medians>,
    /// From one record of the outer branch to the next, by number of records.
    pub iterations: BTreeMap<usize, Medians>,
    /// Entries compared, and those of them that are 1, recorded and computed.
    pub entries: usize,
    /// Recorded ones.
    pub ones_recorded: usize,
    /// Computed ones.
    pub ones_computed: usize,
    /// Stacks that cannot run again.
    pub left_out: usize,
}

/// A [`Comparison`] as shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Share of fields that are 1, recorded.
    pub ones_recorded: f64,
    /// The same, computed.
    pub ones_computed: f64,
}

impl Comparison {
    /// Runs `stacks`. An iteration is what lies between two records of a branch at `outer`.
    pub fn add<'s>(
        &mut self,
        windows: &mut Windows<'_>,
        stacks: impl IntoIterator<Item = &'s Stack>,
        outer: u64,
        mispredictions: &mut Mispredictions,
    ) {
        for stack in stacks {
            let Ok(computed) = windows.run(stack, mispredictions) else {
                self.left_out += 1;
                continue;
            };
            self.stack(stack, &computed, outer);
        }
    }

    fn stack(&mut self, stack: &Stack, computed: &[Option<u32>], outer: u64) {
        let mut iteration: Option<(usize, u64, u64)> = None;
        for (at, pair) in stack.entries.windows(2).enumerate().skip(WARM_UP - 1) {
            let (Some(recorded), Some(computed)) = (pair[1].cycles, computed[at]) else {
                iteration = None;
                continue;
            };
            let (recorded, computed) = (u64::from(recorded), u64::from(computed));
            self.entries += 1;
            self.ones_recorded += usize::from(recorded == 1);
            self.ones_computed += usize::from(computed == 1);
            let medians = self.blocks.entry((pair[0].to, pair[1].from)).or_default();
            medians.recorded.push(recorded);
            medians.computed.push(computed);
            if let Some((records, sum, model)) = &mut iteration {
                *records += 1;
                *sum += recorded;
                *model += computed;
            }
            if pair[1].from == outer {
                if let Some((records, sum, model)) = iteration {
                    let medians = self.iterations.entry(records).or_default();
                    medians.recorded.push(sum);
                    medians.computed.push(model);
                }
                iteration = Some((0, 0, 0));
            }
        }
    }

    /// Shares of ones.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let share = |count: usize| count as f64 / self.entries.max(1) as f64;
        Judged {
            ones_recorded: share(self.ones_recorded),
            ones_computed: share(self.ones_computed),
        }
    }

    /// How far computed fields lie from recorded ones: of each block and iteration that is frequent the difference
    /// of the medians over what is tolerated of it (a cycle where the median is 1, else a quarter of a block's and
    /// 15 % of an iteration's), of the share of ones over five points; the worst of them, and a little of the mean
    /// over five percentiles.
    #[must_use]
    pub fn cost(&self) -> f64 {
        let judged = self.judged();
        let mut worst = (judged.ones_recorded - judged.ones_computed).abs() / 0.05;
        let groups = self.frequent();
        let count = (groups.len() * PERCENTS.len()).max(1) as f64;
        let mut sum = 0.0;
        for (name, medians) in groups {
            let share = if name.starts_with("iteration") {
                0.15
            } else {
                0.25
            };
            let tolerated = (medians.medians().0 as f64 * share).max(1.0);
            for percent in PERCENTS {
                let (recorded, computed) = medians.percentiles(percent);
                let error = recorded.abs_diff(computed) as f64 / tolerated;
                sum += error;
                if percent == 50 {
                    worst = worst.max(error);
                }
            }
        }
        worst + 0.1 * sum / count
    }

    /// What has a hundred fields or more, with its name.
    fn frequent(&self) -> Vec<(String, &Medians)> {
        let iterations = self.iterations.iter();
        let iterations = iterations.map(|(n, medians)| (format!("iteration of {n}"), medians));
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|((to, from), medians)| (format!("{to:x}-{from:x}"), medians));
        let all = iterations.chain(blocks);
        all.filter(|(_, medians)| medians.count() >= 100).collect()
    }
}

const PERCENTS: [usize; 5] = [10, 25, 50, 75, 90];
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judged = self.judged();
        writeln!(
            f,
            "  {} entries, {} stacks left out; recorded and computed:",
            self.entries, self.left_out
        )?;
        let (recorded, computed) = (judged.ones_recorded, judged.ones_computed);
        write!(
            f,
            "  ones {:.1} % {:.1} %",
            recorded * 100.0,
            computed * 100.0
        )?;
        for (name, medians) in self.frequent() {
            write!(f, "\n  {name:16} {:5}", medians.count())?;
            for percent in PERCENTS {
                let (recorded, computed) = medians.percentiles(percent);
                write!(f, "  p{percent} {recorded:2} {computed:2}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::stack::Entry;

    #[test]
    fn an_iteration_is_a_sum_of_any_fields() {
        let entry = Entry {
            from: 0x10,
            to: 0x20,
            mispredicted: false,
            cycles: Some(u32::MAX),
        };
        let stack = Stack {
            sample: 0,
            entries: vec![entry; WARM_UP + 4],
        };
        let mut comparison = Comparison::default();
        let computed = vec![Some(u32::MAX); WARM_UP + 3];
        comparison.stack(&stack, &computed, 0);
        comparison.stack(&stack, &computed, 0x10);
        let most = u64::from(u32::MAX);
        assert_eq!(comparison.iterations[&1].medians(), (most, most));
        // Two records of the outer branch with another one between them.
        let mut stack = stack;
        stack.entries[WARM_UP + 1].from = 0x11;
        comparison.stack(&stack, &computed, 0x10);
        assert_eq!(comparison.iterations[&2].medians(), (2 * most, 2 * most));
    }
}
