//! Rows that differ in a count: the cost of one more, and of the first.

use std::collections::BTreeMap;

use crate::cycles::Range;

/// Round trips by the number of entries or fields.
pub(crate) type Points = BTreeMap<u32, Range>;

/// A straight line through the counts from `from` on, for each quartile: least squares.
pub(crate) struct Line {
    low: Straight,
    mid: Straight,
    high: Straight,
}

struct Straight {
    slope: i128,
    at_zero: i128,
}

impl Line {
    /// `None` with less than two counts.
    pub(crate) fn through(points: &Points, from: u32) -> Option<Self> {
        let of = |part: fn(&Range) -> u128| {
            let values: Vec<_> = points
                .range(from..)
                .map(|(count, range)| (i128::from(*count), signed(part(range))))
                .collect();
            Straight::through(&values)
        };
        Some(Self {
            low: of(|range| range.low)?,
            mid: of(|range| range.mid)?,
            high: of(|range| range.high)?,
        })
    }

    /// What one more costs: slope of the medians, with the slopes of the quartiles around it. `None`
    /// if it is negative.
    pub(crate) fn each(&self) -> Option<Range> {
        let mid = u128::try_from(self.mid.slope).ok()?;
        Some(around(mid, [self.low.slope, self.high.slope]))
    }

    /// What the line has at 0 beyond `without`, what a count of 0 takes; not below 0.
    pub(crate) fn fixed(&self, without: &Range) -> Range {
        let beyond = |line: &Straight, base: u128| line.at_zero - signed(base);
        let mid = beyond(&self.mid, without.mid).max(0).unsigned_abs();
        around(
            mid,
            [
                beyond(&self.low, without.low),
                beyond(&self.high, without.high),
            ],
        )
    }
}

impl Straight {
    fn through(values: &[(i128, i128)]) -> Option<Self> {
        let n = i128::try_from(values.len()).ok()?;
        let sum = |f: fn(&(i128, i128)) -> i128| values.iter().map(f).sum::<i128>();
        let (x, y) = (sum(|v| v.0), sum(|v| v.1));
        let (xx, xy) = (sum(|v| v.0 * v.0), sum(|v| v.0 * v.1));
        let (rise, run) = (n * xy - x * y, n * xx - x * x);
        (run > 0).then(|| Self {
            slope: rounded(rise, run),
            at_zero: rounded(y * run - rise * x, n * run),
        })
    }
}

fn rounded(number: i128, by: i128) -> i128 {
    (number + by / 2).div_euclid(by)
}

fn signed(value: u128) -> i128 {
    i128::try_from(value).unwrap_or(i128::MAX)
}

fn around(mid: u128, others: [i128; 2]) -> Range {
    let others = others.map(|value| value.max(0).unsigned_abs());
    Range {
        low: others.into_iter().fold(mid, u128::min),
        mid,
        high: others.into_iter().fold(mid, u128::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(u32, u128)]) -> Points {
        let range = |mid| Range {
            low: mid - 10,
            mid,
            high: mid + 20,
        };
        values.iter().map(|(n, mid)| (*n, range(*mid))).collect()
    }

    #[test]
    fn a_straight_line_gives_its_slope_and_what_the_first_entry_adds() {
        let points = points(&[(0, 900), (1, 1060), (8, 1760), (32, 4160), (64, 7360)]);
        let line = Line::through(&points, 1).unwrap();
        assert_eq!(line.each().unwrap().mid, 100);
        assert_eq!(line.fixed(&points[&0]).mid, 60);
    }

    #[test]
    fn one_count_is_no_line_and_a_falling_one_has_no_cost() {
        assert!(Line::through(&points(&[(0, 900), (8, 1000)]), 1).is_none());
        let falling = Line::through(&points(&[(1, 900), (8, 800)]), 1).unwrap();
        assert!(falling.each().is_none());
    }

    #[test]
    fn what_the_first_entry_adds_is_not_below_zero() {
        let points = points(&[(0, 900), (1, 950), (2, 1050)]);
        let line = Line::through(&points, 1).unwrap();
        assert_eq!(line.fixed(&points[&0]).mid, 0);
    }
}
