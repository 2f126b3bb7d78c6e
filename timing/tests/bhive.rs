//! The tables alone against measured blocks.

use std::path::Path;

use vlbr_timing::bound::{BlockModel, Repetition};
use vlbr_timing::fit::read_measured;
use vlbr_timing::score::{Score, score};
use vlbr_timing::{Environment, microarchitectures};

/// The score of the tables over a file of measured blocks, every one of which has an answer.
fn tables_only(core: &str, file: &str) -> Option<Score> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/bhive")
        .join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no {}", path.display());
        return None;
    };
    let blocks = read_measured(&text).expect("measured blocks");
    let core = microarchitectures()
        .named(core)
        .expect("built in")
        .without_fit();
    let mut model = BlockModel::new(&core, Environment::Bhive);
    let rows: Vec<(f64, f64)> = blocks
        .iter()
        .map(|block| {
            let bound = model
                .bound(&block.bytes, Repetition::Unrolled)
                .expect("a block");
            let cycles = (bound.cycles() + core.parameters.bias).max(0.01);
            (f64::from(cycles), block.cycles)
        })
        .collect();
    Some(score(&rows))
}

#[test]
fn skylake_is_within_four_and_a_half_percent() {
    if let Some(score) = tables_only("skylake", "skl.csv") {
        assert!(
            score.mape < 0.045 && score.tau.unwrap() > 0.945,
            "{score:?}"
        );
    }
}

#[test]
fn ivy_bridge_is_within_five_percent() {
    if let Some(score) = tables_only("ivy-bridge", "ivb.csv") {
        assert!(score.mape < 0.05 && score.tau.unwrap() > 0.935, "{score:?}");
    }
}

#[test]
fn haswell_is_within_four_percent() {
    if let Some(score) = tables_only("haswell", "hsw.csv") {
        assert!(score.mape < 0.04 && score.tau.unwrap() > 0.947, "{score:?}");
    }
}
