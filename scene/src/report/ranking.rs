//! Which policy costs less, and whether the cost model can tell.

use serde::Serialize;

use super::{Cycles, Overhead, Point, PolicyRow};

/// How two policies compare when every cost may lie anywhere in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The first costs less.
    Less,
    /// They cost the same.
    Same,
    /// The first costs more.
    More,
    /// It depends on the costs.
    Undecided,
}

impl Order {
    const fn of(difference: Cycles) -> Self {
        match (difference.low, difference.high) {
            (0, 0) => Self::Same,
            (_, high) if high < 0 => Self::Less,
            (low, _) if low > 0 => Self::More,
            _ => Self::Undecided,
        }
    }
}

/// Where along a sweep the order of two policies changes, or is not decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Crossing {
    /// A policy.
    pub a: String,
    /// Another.
    pub b: String,
    /// Their order below `from`; `None` if it is undecided from the first value on.
    pub before: Option<Order>,
    /// Where it begins to be undecided, interpolated.
    pub from: f64,
    /// Where the default figures cross, interpolated.
    pub at: Option<f64>,
    /// Where it is decided again.
    pub to: f64,
    /// Their order above `to`; `None` if it is undecided up to the last value.
    pub after: Option<Order>,
}

fn difference(a: &PolicyRow, b: &PolicyRow) -> Cycles {
    a.over.less(&b.over).cycles()
}

impl Point {
    /// How two policies compare here.
    #[must_use]
    pub fn order(&self, a: &PolicyRow, b: &PolicyRow) -> Order {
        Order::of(difference(a, b))
    }

    /// Policies that run, cheapest first by the default figures.
    #[must_use]
    pub fn ranked(&self) -> Vec<&PolicyRow> {
        let mut rows: Vec<&PolicyRow> = self.rows.iter().filter(|r| r.failed.is_none()).collect();
        rows.sort_by_key(|row| row.overhead.default);
        rows
    }

    /// The ranking on one line: `<` decided, `~` not, `=` the same; `*` behind policies that refuse
    /// the guest accesses.
    #[must_use]
    pub fn ranking(&self) -> String {
        let rows = self.ranked();
        let mut text = String::new();
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                text.push_str(match self.order(rows[n - 1], row) {
                    Order::Less | Order::More => " < ",
                    Order::Same => " = ",
                    Order::Undecided => " ~ ",
                });
            }
            text.push_str(&row.policy);
            if row.letters.denied != 0 {
                text.push('*');
            }
        }
        text
    }
}

impl Overhead {
    /// The values of the swept key as numbers: their places if they are none.
    #[must_use]
    pub fn axis(&self) -> Vec<f64> {
        let values: Option<Vec<f64>> = self
            .points
            .iter()
            .map(|point| point.value.as_ref()?.parse().ok())
            .collect();
        values.unwrap_or_else(|| (0..self.points.len()).map(|n| n as f64).collect())
    }

    /// Names of policies that cost the same everywhere, each group once.
    #[must_use]
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let rows = self.points.first().map_or(0, |point| point.rows.len());
        for row in 0..rows {
            let same = |first: usize| {
                self.points.iter().all(|point| {
                    let (a, b) = (&point.rows[first], &point.rows[row]);
                    a.failed.is_none()
                        && b.failed.is_none()
                        && point.order(a, b) == Order::Same
                        && (a.letters.denied == 0) == (b.letters.denied == 0)
                })
            };
            match groups.iter_mut().find(|group| same(group[0])) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
        groups
    }

    /// Every pair of policies whose order changes or is undecided somewhere along the sweep; of
    /// policies that cost the same the first.
    #[must_use]
    pub fn crossings(&self) -> Vec<Crossing> {
        if self.points.len() < 2 {
            return Vec::new();
        }
        let firsts: Vec<usize> = self.groups().iter().map(|group| group[0]).collect();
        let mut crossings = Vec::new();
        for (n, &a) in firsts.iter().enumerate() {
            for &b in &firsts[n + 1..] {
                self.cross(a, b, &mut crossings);
            }
        }
        crossings
    }

    fn cross(&self, a: usize, b: usize, crossings: &mut Vec<Crossing>) {
        let rows = |n: usize| (&self.points[n].rows[a], &self.points[n].rows[b]);
        if (0..self.points.len()).any(|n| rows(n).0.failed.is_some() || rows(n).1.failed.is_some())
        {
            return;
        }
        let axis = self.axis();
        let differences: Vec<Cycles> = (0..self.points.len())
            .map(|n| difference(rows(n).0, rows(n).1))
            .collect();
        let orders: Vec<Order> = differences.iter().map(|d| Order::of(*d)).collect();
        let decided = |order: Order| matches!(order, Order::Less | Order::More);
        let mut start = 0;
        while start < orders.len() {
            let last = (start > 0)
                .then(|| orders[start - 1])
                .filter(|o| decided(*o));
            let jumps = decided(orders[start]) && last.is_some_and(|last| last != orders[start]);
            if decided(orders[start]) && !jumps {
                start += 1;
                continue;
            }
            // Points from `start` on are undecided; the next decided one is `end`.
            let end = (start..orders.len()).find(|n| decided(orders[*n]));
            let segment = |n: usize, of: fn(&Cycles) -> i64| {
                let (p, q) = (of(&differences[n - 1]) as f64, of(&differences[n]) as f64);
                let share = if p == q { 0.0 } else { p / (p - q) };
                axis[n - 1] + share.clamp(0.0, 1.0) * (axis[n] - axis[n - 1])
            };
            // Of an order that is decided the end of the range that is nearest to 0 decides.
            let near = |order: Order| -> fn(&Cycles) -> i64 {
                match order {
                    Order::Less => |d| d.high,
                    _ => |d| d.low,
                }
            };
            let from = match last {
                Some(order) => segment(start, near(order)),
                None => axis[start],
            };
            let to = match end.filter(|end| *end > 0) {
                Some(end) => segment(end, near(orders[end])),
                None => axis[orders.len() - 1],
            };
            let until = end.unwrap_or(orders.len() - 1);
            let sign = |n: usize| differences[n].default.signum();
            let turns = (start.max(1)..=until).find(|n| sign(n - 1) != sign(*n));
            let all_same = orders[start..=until].iter().all(|o| *o == Order::Same);
            if !(all_same && last.is_none() && end.is_none()) {
                crossings.push(Crossing {
                    a: rows(0).0.policy.clone(),
                    b: rows(0).1.policy.clone(),
                    before: last,
                    from,
                    at: turns.map(|n| segment(n, |d| d.default)),
                    to,
                    after: end.map(|end| orders[end]),
                });
            }
            start = end.map_or(orders.len(), |end| end + 1);
        }
    }
}

impl Crossing {
    /// On one line.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        let (a, b) = (&self.a, &self.b);
        let figure = super::table::place;
        let side = |order: Order| match order {
            Order::Less => format!("{a} costs less"),
            _ => format!("{b} costs less"),
        };
        let default = self.at.map_or_else(String::new, |at| {
            format!(" (default figures: {})", figure(at))
        });
        let (from, to) = (figure(self.from), figure(self.to));
        match (self.before, self.after) {
            (Some(before), Some(after)) if before != after => format!(
                "{a} and {b} cross between {key} = {from} and {to}{default}: below {}, above {}",
                side(before),
                side(after)
            ),
            (Some(before), Some(_)) => format!(
                "{a} and {b}: undecided between {key} = {from} and {to}{default}, else {}",
                side(before)
            ),
            (Some(before), None) => format!(
                "{a} and {b}: undecided from {key} = {from} on{default}, below {}",
                side(before)
            ),
            (None, Some(after)) => format!(
                "{a} and {b}: undecided up to {key} = {to}{default}, above {}",
                side(after)
            ),
            (None, None) => format!("{a} and {b}: undecided from {key} = {from} to {to}{default}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_decided_only_if_both_ends_agree() {
        let cycles = |low, high| Cycles {
            low,
            default: low,
            high,
        };
        assert_eq!(Order::of(cycles(0, 0)), Order::Same);
        assert_eq!(Order::of(cycles(-5, -1)), Order::Less);
        assert_eq!(Order::of(cycles(1, 5)), Order::More);
        for (low, high) in [(-1, 1), (0, 1), (-1, 0)] {
            assert_eq!(Order::of(cycles(low, high)), Order::Undecided);
        }
    }
}
