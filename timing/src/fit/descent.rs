//! Coordinate descent over forms, and cross-validation by sequence.

use std::collections::BTreeMap;

use crate::bound::{BlockModel, Repetition};
use crate::environment::Environment;
use crate::fit::candidates::candidates;
use crate::fit::measured::MeasuredBlock;
use crate::forms::{Form, FormId};
use crate::microarchitecture::Microarchitecture;

/// How far a fit may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// What is known when a block begins.
    pub environment: Environment,
    /// Passes over all forms.
    pub passes: u32,
    /// A change must lower the sum of relative errors by so much.
    pub gain: f64,
    /// And by this share of the error of the blocks it touches.
    pub share: f64,
    /// Forms that occur in more blocks stay as they are.
    pub most: usize,
    /// Threads of a cross-validation; 0 takes all cores. The result does not depend on it.
    pub threads: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            environment: Environment::Bhive,
            passes: 2,
            gain: 0.6,
            share: 0.04,
            most: 4000,
            threads: 0,
        }
    }
}

/// A core after fitting.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The core with its corrected forms.
    pub core: Microarchitecture,
    /// The forms that changed.
    pub changed: Vec<FormId>,
}

/// Predictions of one part of the blocks by a fit to the others.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Positions of the blocks.
    pub rows: Vec<usize>,
    /// Cycles predicted for them.
    pub cycles: Vec<f64>,
    /// Fitted bias.
    pub bias: f64,
    /// Number of forms that changed.
    pub changed: usize,
    /// Mean relative error on the blocks it was fitted to.
    pub inside: f64,
}

/// Cycles that `core` predicts for each of `rows`; blocks that cannot be lowered take none.
fn predict(
    core: &Microarchitecture,
    environment: Environment,
    rows: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Vec<f64> {
    let mut model = BlockModel::new(core, environment);
    rows.map(|bytes| cycles(&mut model, bytes.as_ref()))
        .collect()
}

fn cycles(model: &mut BlockModel<'_>, bytes: &[u8]) -> f64 {
    model
        .bound(bytes, Repetition::Unrolled)
        .map_or(0.0, |bound| f64::from(bound.cycles()))
}

fn error(predicted: f64, bias: f64, measured: f64) -> f64 {
    if measured <= 0.0 {
        return 0.0;
    }
    ((predicted + bias).max(0.01) - measured).abs() / measured
}

/// The offset with the least sum of relative errors: -0.1 to 0.05 cycles in steps of 0.005.
fn best_bias(predicted: &[f64], blocks: &[MeasuredBlock], rows: &[usize]) -> f64 {
    let sum = |bias: f64| -> f64 {
        rows.iter()
            .zip(predicted)
            .map(|(&row, &p)| error(p, bias, blocks[row].cycles))
            .sum()
    };
    (-20..=10)
        .map(|step| f64::from(step) * 0.005)
        .min_by(|a, b| sum(*a).total_cmp(&sum(*b)))
        .unwrap_or(0.0)
}

/// Fits the forms and the bias of `core` to the blocks at `rows`.
#[must_use]
pub fn fit(
    core: &Microarchitecture,
    blocks: &[MeasuredBlock],
    rows: &[usize],
    options: &FitOptions,
) -> Fit {
    let before = core;
    let mut core = core.clone();
    let mut predicted = predict(
        &core,
        options.environment,
        rows.iter().map(|&row| &blocks[row].bytes),
    );
    let mut bias = best_bias(&predicted, blocks, rows);
    let groups = groups(&core, blocks, rows, options);
    let mut changed = Vec::new();
    for _ in 0..options.passes {
        let mut improved = false;
        for (forms, touched) in &groups {
            if descend(
                &mut core,
                before.forms.get(forms[0]),
                blocks,
                rows,
                &mut predicted,
                bias,
                forms,
                touched,
                options,
            ) {
                improved = true;
                changed.extend_from_slice(forms);
            }
        }
        bias = best_bias(&predicted, blocks, rows);
        if !improved {
            break;
        }
    }
    core.parameters.bias = bias as f32;
    changed.sort_unstable();
    changed.dedup();
    changed.retain(|&form| core.forms.get(form) != before.forms.get(form));
    Fit { core, changed }
}

/// Forms that change together, with the positions in `rows` of the blocks that have one.
type Group = (Vec<FormId>, Vec<usize>);

/// Forms of one mnemonic that cost the same, first; then each form alone.
fn groups(
    core: &Microarchitecture,
    blocks: &[MeasuredBlock],
    rows: &[usize],
    options: &FitOptions,
) -> Vec<Group> {
    let mut by_form: BTreeMap<FormId, Vec<usize>> = BTreeMap::new();
    for (at, &row) in rows.iter().enumerate() {
        for &form in &blocks[row].forms {
            by_form.entry(form).or_default().push(at);
        }
    }
    let mut together: BTreeMap<(u32, bool, String), Vec<FormId>> = BTreeMap::new();
    for &form in by_form.keys() {
        let key = (
            form.code().mnemonic() as u32,
            form.memory(),
            core.forms.get(form).to_string(),
        );
        together.entry(key).or_default().push(form);
    }
    let merge = |forms: &[FormId]| {
        let mut at: Vec<usize> = forms.iter().flat_map(|f| by_form[f].clone()).collect();
        at.sort_unstable();
        at.dedup();
        at
    };
    let mut groups: Vec<Group> = together
        .into_values()
        .filter(|forms| forms.len() > 1)
        .map(|forms| {
            let at = merge(&forms);
            (forms, at)
        })
        .collect();
    groups.extend(by_form.iter().map(|(form, at)| (vec![*form], at.clone())));
    groups.retain(|(_, at)| at.len() <= options.most);
    // Those with most blocks first; ties by form, so that the order is always the same.
    groups.sort_by_key(|(forms, at)| (std::cmp::Reverse(at.len()), forms.clone()));
    groups
}

/// Tries the variants of a group and keeps the best; whether there was a better one.
#[expect(clippy::too_many_arguments, reason = "the state of one descent")]
fn descend(
    core: &mut Microarchitecture,
    table: &Form,
    blocks: &[MeasuredBlock],
    rows: &[usize],
    predicted: &mut [f64],
    bias: f64,
    forms: &[FormId],
    touched: &[usize],
    options: &FitOptions,
) -> bool {
    let sum = |values: &mut dyn Iterator<Item = f64>| -> f64 {
        values
            .zip(touched)
            .map(|(p, &at)| error(p, bias, blocks[rows[at]].cycles))
            .sum()
    };
    let now = sum(&mut touched.iter().map(|&at| predicted[at]));
    let enough = options.gain.max(options.share * now);
    if now < enough {
        return false;
    }
    let before: Form = core.forms.get(forms[0]).clone();
    let mut best: Option<(f64, Form, Vec<f64>)> = None;
    for variant in candidates(&before, table, forms[0].code(), core.ports.any) {
        for &form in forms {
            core.forms.set(form, variant.clone());
        }
        let tried = predict(
            core,
            options.environment,
            touched.iter().map(|&at| &blocks[rows[at]].bytes),
        );
        let then = sum(&mut tried.iter().copied());
        let least = best.as_ref().map_or(now - enough, |b| b.0);
        if then < least {
            best = Some((then, variant, tried));
        }
    }
    let chosen = best.as_ref().map_or(&before, |b| &b.1);
    for &form in forms {
        core.forms.set(form, chosen.clone());
    }
    let Some((_, _, tried)) = best else {
        return false;
    };
    for (&at, cycles) in touched.iter().zip(tried) {
        predicted[at] = cycles;
    }
    true
}

/// Fits to all folds but one and predicts that one, for each. The fold of a block follows from its
/// sequence, so that no sequence is in two.
#[must_use]
pub fn cross_validate(
    core: &Microarchitecture,
    blocks: &[MeasuredBlock],
    folds: usize,
    options: &FitOptions,
) -> Vec<Fold> {
    let folds = folds.max(2);
    let fold_of = |block: &MeasuredBlock| ((block.sequence >> 20) % folds as u64) as usize;
    let one = |held_out: usize| {
        let (rows, others): (Vec<usize>, Vec<usize>) =
            (0..blocks.len()).partition(|&row| fold_of(&blocks[row]) == held_out);
        let fit = fit(core, blocks, &others, options);
        let bias = f64::from(fit.core.parameters.bias);
        let at = |rows: &[usize]| {
            predict(
                &fit.core,
                options.environment,
                rows.iter().map(|&row| &blocks[row].bytes),
            )
        };
        let inside: f64 = at(&others)
            .iter()
            .zip(&others)
            .map(|(&p, &row)| error(p, bias, blocks[row].cycles))
            .sum();
        Fold {
            cycles: at(&rows).iter().map(|p| (p + bias).max(0.01)).collect(),
            rows,
            bias,
            changed: fit.changed.len(),
            inside: inside / others.len().max(1) as f64,
        }
    };
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut found = Vec::new();
    for first in (0..folds).step_by(threads) {
        let numbers = first..(first + threads).min(folds);
        std::thread::scope(|scope| {
            let one = &one;
            let running: Vec<_> = numbers.map(|n| scope.spawn(move || one(n))).collect();
            for thread in running {
                match thread.join() {
                    Ok(fold) => found.push(fold),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::read_measured;
    use crate::microarchitectures;

    /// Blocks of a core on which IMUL takes five cycles: a chain of it with NOPs of some number and an
    /// addition of another register, so that no two are of one sequence.
    fn synthetic() -> Vec<MeasuredBlock> {
        let mut text = String::from("hex,cycles\n");
        for nops in 0..24 {
            let nops = "90".repeat(nops);
            text += &format!("480fafc3{nops},5\n4801d8{nops}480fafc3,6\n");
        }
        read_measured(&text).expect("blocks")
    }

    #[test]
    fn a_fit_finds_what_the_blocks_were_made_with_and_finds_it_again() {
        let core = microarchitectures().named("skylake").expect("built in");
        let core = core.without_fit();
        let blocks = synthetic();
        let rows: Vec<usize> = (0..blocks.len()).collect();
        let options = FitOptions::default();
        let text = |fit: &Fit| -> String {
            let forms = fit.changed.iter();
            forms
                .map(|form| format!("{form} {}\n", fit.core.forms.get(*form)))
                .collect()
        };
        let first = fit(&core, &blocks, &rows, &options);
        assert_eq!(text(&first), "Imul_r64_rm64 r 1 5\n");
        let second = fit(&core, &blocks, &rows, &options);
        assert_eq!(text(&first), text(&second));
        assert_eq!(
            first.core.parameters.bias.to_bits(),
            second.core.parameters.bias.to_bits()
        );
    }

    #[test]
    fn cross_validation_does_not_depend_on_the_number_of_threads() {
        let core = microarchitectures().named("skylake").expect("built in");
        let core = core.without_fit();
        let blocks = synthetic();
        let with = |threads| {
            let options = FitOptions {
                threads,
                ..FitOptions::default()
            };
            let folds = cross_validate(&core, &blocks, 3, &options);
            let bits = |f: &Fold| {
                let cycles: Vec<u64> = f.cycles.iter().map(|c| c.to_bits()).collect();
                (f.rows.clone(), cycles, f.bias.to_bits(), f.changed)
            };
            folds.iter().map(bits).collect::<Vec<_>>()
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(7));
        let rows: usize = one.iter().map(|fold| fold.0.len()).sum();
        assert_eq!(rows, blocks.len());
    }
}
