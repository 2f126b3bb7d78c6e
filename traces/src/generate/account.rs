//! What a ring's code still needs of each class of branch, as its functions are written.

use super::spec::Share;
use crate::synthetic::Rng;

/// Something wanted and had, in expected executions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) want: f64,
    pub(super) done: f64,
}

impl Account {
    pub(super) const fn of(want: f64) -> Self {
        Self { want, done: 0.0 }
    }

    /// What is missing at this progress, from 0 to 1, of all the code.
    pub(super) fn missing(&self, progress: f64) -> f64 {
        self.want * progress - self.done
    }
}

/// Values, each with an account.
#[derive(Clone, Debug)]
pub(super) struct Choice<T> {
    entries: Vec<(T, Account)>,
}

impl<T: Copy> Choice<T> {
    /// Of `total` executions each value's share.
    pub(super) fn new(shares: &[Share<T>], total: f64) -> Self {
        let sum: f64 = shares.iter().map(|share| share.1).sum();
        let entries = shares.iter().map(|&(value, share)| {
            let part = if sum > 0.0 { share / sum } else { 0.0 };
            (value, Account::of(total * part))
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// The value that is missed most among those of which `cost(value)` is not too much; among all if
    /// there is none. `None` only if there are no values.
    pub(super) fn pick(&self, progress: f64, cost: impl Fn(T) -> f64) -> Option<usize> {
        let best = |fits: &dyn Fn(T, f64) -> bool| {
            let mut best: Option<(usize, f64)> = None;
            for (index, &(value, account)) in self.entries.iter().enumerate() {
                let missing = account.missing(progress);
                if fits(value, missing) && best.is_none_or(|(_, most)| missing > most) {
                    best = Some((index, missing));
                }
            }
            best.map(|(index, _)| index)
        };
        best(&|value, missing| cost(value) <= 1.5 * missing).or_else(|| best(&|_, _| true))
    }

    pub(super) fn value(&self, index: usize) -> T {
        self.entries[index].0
    }

    pub(super) fn missing(&self, index: usize, progress: f64) -> f64 {
        self.entries[index].1.missing(progress)
    }

    pub(super) fn add(&mut self, index: usize, executions: f64) {
        self.entries[index].1.done += executions;
    }
}

impl Choice<f64> {
    /// Counts executions at the value nearest to `value`.
    pub(super) fn add_near(&mut self, value: f64, executions: f64) {
        let distance = |entry: &(f64, Account)| {
            // A value nobody asked for takes nothing.
            let missing = if entry.1.want > 0.0 { 0.0 } else { 2.0 };
            (entry.0 - value).abs() + missing
        };
        let nearest = self
            .entries
            .iter_mut()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        if let Some(entry) = nearest {
            entry.1.done += executions;
        }
    }
}

/// One of `weights` at random, in proportion; `None` if all are 0.
pub(super) fn weighted(rng: &mut Rng, weights: &[f64]) -> Option<usize> {
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return None;
    }
    let mut left = super::draw::unit(rng) * sum;
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return Some(index);
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0)
}
