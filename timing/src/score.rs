//! How well predictions agree with measurements.

/// Agreement of predictions with measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Rows compared.
    pub rows: usize,
    /// Mean of the relative errors.
    pub mape: f64,
    /// Median of the relative errors.
    pub median: f64,
    /// Kendall's tau-b; `None`: every pair of rows is tied.
    pub tau: Option<f64>,
    /// Median of the signed relative errors.
    pub signed: f64,
}

/// Compares predicted with measured cycles; rows measured as 0 do not count.
#[must_use]
pub fn score(rows: &[(f64, f64)]) -> Score {
    let rows: Vec<(f64, f64)> = rows.iter().copied().filter(|r| r.1 > 0.0).collect();
    let mut signed: Vec<f64> = rows.iter().map(|(p, m)| (p - m) / m).collect();
    let mut errors: Vec<f64> = signed.iter().map(|e| e.abs()).collect();
    let mape = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    Score {
        rows: rows.len(),
        mape,
        median: median(&mut errors),
        tau: tau(&rows),
        signed: median(&mut signed),
    }
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Kendall's tau-b in n log n steps: pairs in order less pairs out of order over the geometric
/// mean of the pairs not tied in either. `None`: all are tied in one.
#[must_use]
pub fn tau(rows: &[(f64, f64)]) -> Option<f64> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let pairs = |n: u64| n * n.saturating_sub(1) / 2;
    let ties = |same: &dyn Fn(usize, usize) -> bool, len: usize| {
        let mut sum = 0;
        let mut run = 1;
        for at in 1..=len {
            if at < len && same(at - 1, at) {
                run += 1;
            } else {
                sum += pairs(run);
                run = 1;
            }
        }
        sum
    };
    let len = rows.len();
    let total = pairs(len as u64);
    let tied_first = ties(&|a, b| rows[a].0 == rows[b].0, len);
    let tied_both = ties(&|a, b| rows[a] == rows[b], len);
    let mut second: Vec<f64> = rows.iter().map(|r| r.1).collect();
    let swaps = sort_counting(&mut second);
    let tied_second = ties(&|a, b| second[a] == second[b], len);
    let apart = (total - tied_first) as f64 * (total - tied_second) as f64;
    if apart == 0.0 {
        return None;
    }
    let agreeing = total as f64 - tied_first as f64 - tied_second as f64 + tied_both as f64
        - 2.0 * swaps as f64;
    Some(agreeing / apart.sqrt())
}

/// Sorts and counts the pairs that were out of order.
fn sort_counting(values: &mut Vec<f64>) -> u64 {
    let mut swaps = 0;
    let mut other = values.clone();
    let mut width = 1;
    while width < values.len() {
        for from in (0..values.len()).step_by(2 * width) {
            let middle = (from + width).min(values.len());
            let end = (from + 2 * width).min(values.len());
            let (mut left, mut right) = (from, middle);
            for slot in &mut other[from..end] {
                if right == end || (left < middle && values[left] <= values[right]) {
                    *slot = values[left];
                    left += 1;
                } else {
                    *slot = values[right];
                    swaps += (middle - left) as u64;
                    right += 1;
                }
            }
        }
        std::mem::swap(values, &mut other);
        width *= 2;
    }
    swaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tau_counts_pairs_and_ties() {
        let rows =
            |p: &[f64], m: &[f64]| p.iter().copied().zip(m.iter().copied()).collect::<Vec<_>>();
        assert_eq!(tau(&rows(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0])), Some(1.0));
        assert_eq!(tau(&rows(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0])), Some(-1.0));
        // Five agree, one disagrees.
        let t = tau(&rows(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0])).unwrap();
        assert!((t - 4.0 / 6.0).abs() < 1e-12, "{t}");
        // One pair is tied in the first, one in the second, four agree.
        let t = tau(&rows(&[1.0, 1.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 3.0])).unwrap();
        assert!((t - 4.0 / 5.0).abs() < 1e-12, "{t}");
        // Nothing is in order or out of it.
        for rows in [&[][..], &[(1.0, 2.0)], &[(1.0, 2.0), (1.0, 3.0)]] {
            assert_eq!(tau(rows), None);
        }
    }

    #[test]
    fn errors_are_relative_to_the_measurement() {
        let score = score(&[(1.1, 1.0), (1.8, 2.0), (4.0, 4.0), (1.0, 0.0)]);
        assert_eq!(score.rows, 3);
        assert!((score.mape - 0.2 / 3.0).abs() < 1e-9);
        assert!((score.median - 0.1).abs() < 1e-9);
    }
}
