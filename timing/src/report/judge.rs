//! Predictions of many blocks beside their measurements.

use serde::Serialize;

use super::block::rounded;
use super::rows::Row;
use crate::bound::{BlockModel, Part, Repetition};
use crate::environment::Environment;
use crate::lower::LowerError;
use crate::score::{Score, score};

/// One block's prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedRow {
    /// Cycles per iteration as predicted.
    pub cycles: f64,
    /// The part that binds.
    pub part: Part,
}

/// Predictions of many blocks, and their agreement with the measurements if there are some.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// One for each row, in order.
    pub rows: Vec<JudgedRow>,
    /// Agreement with the measured cycles.
    pub score: Option<Score>,
}

/// Why a row has no prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{line}: {reason}")]
pub struct NoBlock {
    /// Line of the row.
    pub line: usize,
    /// What is wrong with it.
    #[serde(skip)]
    pub reason: LowerError,
}

/// Predicts every row. In [`Environment::Bhive`] unrolled code is predicted as the profiler's counter
/// reads it: with the core's bias.
///
/// # Errors
/// The first row that is no block.
pub fn judge(
    model: &mut BlockModel<'_>,
    rows: &[Row],
    repetition: Repetition,
) -> Result<Judged, NoBlock> {
    let counter = model.environment() == Environment::Bhive && repetition == Repetition::Unrolled;
    let bias = if counter {
        model.core().parameters.bias
    } else {
        0.0
    };
    let judged = rows
        .iter()
        .map(|row| {
            let bound = model.bound(&row.bytes, repetition);
            let bound = bound.map_err(|reason| NoBlock {
                line: row.line,
                reason,
            })?;
            let (part, cycles) = bound.binding();
            Ok(JudgedRow {
                cycles: rounded(f64::from((cycles + bias).max(0.01))),
                part,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let measured: Option<Vec<(f64, f64)>> = judged
        .iter()
        .zip(rows)
        .map(|(judged, row)| Some((judged.cycles, row.cycles?)))
        .collect();
    Ok(Judged {
        score: measured.map(|pairs| score(&pairs)),
        rows: judged,
    })
}

impl Judged {
    /// Positions of the rows with the largest relative errors, at most `count`; ties by position.
    #[must_use]
    pub fn worst(&self, rows: &[Row], count: usize) -> Vec<usize> {
        let error = |at: usize| {
            let measured = rows[at].cycles.filter(|cycles| *cycles > 0.0)?;
            Some((self.rows[at].cycles - measured).abs() / measured)
        };
        let mut found: Vec<(f64, usize)> = (0..self.rows.len().min(rows.len()))
            .filter_map(|at| error(at).map(|error| (error, at)))
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.truncate(count);
        found.into_iter().map(|(_, at)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microarchitectures;
    use crate::report::read_rows;

    #[test]
    fn rows_are_scored_and_the_worst_come_first() {
        let core = microarchitectures().named("skylake").expect("built in");
        let mut model = BlockModel::new(core, Environment::Unknown);
        // imul rax, rbx three times: 3 cycles each.
        let rows = read_rows("480fafc3,3\n480fafc3,4\n480fafc3,6\n").expect("rows");
        let judged = judge(&mut model, &rows, Repetition::Unrolled).expect("blocks");
        assert!(judged.rows.iter().all(|r| r.cycles == 3.0));
        assert_eq!(judged.worst(&rows, 2), [2, 1]);
        let score = judged.score.expect("measured");
        assert!((score.mape - (0.25 + 0.5) / 3.0).abs() < 1e-9);
        // BHive's counter reads a little less.
        let mut model = BlockModel::new(core, Environment::Bhive);
        let judged = judge(&mut model, &rows, Repetition::Unrolled).expect("blocks");
        assert_eq!(judged.rows[0].cycles, 2.98);
    }

    #[test]
    fn a_row_that_is_no_block_is_named() {
        let core = microarchitectures().named("skylake").expect("built in");
        let mut model = BlockModel::new(core, Environment::Unknown);
        let rows = read_rows("90\n06\n").expect("rows");
        let error = judge(&mut model, &rows, Repetition::Unrolled).expect_err("no instruction");
        assert_eq!(error.to_string(), "2: no instruction at offset 0");
    }
}
