//! Recorded cycle fields of a Skylake-SP against the scoreboard: samples with odd numbers, none of which the delays
//! were fitted to (`judge-lbr --fit`). Which predictor stands in for branches of which nothing is recorded was
//! chosen by the even samples too.

use std::fs;
use std::path::Path;

use vlbr_timing::microarchitectures;
use vlbr_timing::predict::predictors;
use vlbr_timing::windows::{
    CodeImage, Comparison, Medians, Mispredictions, Unrecorded, Windows, read_stacks,
};

/// Blocks with a division of integers.
const DIVIDING: [(u64, u64); 4] = [
    (0x8d0, 0x8e3),
    (0x8d0, 0x8f4),
    (0x9da, 0xa26),
    (0xa12, 0xa26),
];
/// The hottest others.
const PLAIN: [(u64, u64); 7] = [
    (0x957, 0x967),
    (0x96c, 0x982),
    (0xa65, 0xa6e),
    (0xa60, 0xa60),
    (0x9da, 0x9de),
    (0x8f9, 0x905),
    (0x901, 0x905),
];

fn compared() -> Option<Comparison> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let read = |path: &str| fs::read(data.join(path)).ok();
    let entries = read("lbr-cycles/skx_propeller_sample1_lbr_entries.csv");
    let image = read("lbr/propeller_sample_1.bin");
    let Some((entries, image)) = entries.zip(image) else {
        eprintln!("skipped: no recorded stacks beside the project");
        return None;
    };
    let stacks = read_stacks(&String::from_utf8(entries).unwrap()).unwrap();
    let image = CodeImage {
        address: 0,
        bytes: &image,
    };
    let core = microarchitectures().named("skylake").unwrap();
    let predictor = Unrecorded::new(predictors().named("ice-lake").unwrap());
    let mut mispredictions = Mispredictions::Unrecorded(Box::new(predictor));
    let mut comparison = Comparison::default();
    let odd = stacks.iter().skip(1).step_by(2);
    let mut windows = Windows::new(core, image);
    comparison.add(&mut windows, odd, 0xa6e, &mut mispredictions);
    Some(comparison)
}

fn within(name: &str, medians: &Medians, share: f64) {
    let (recorded, computed) = medians.medians();
    let error = (computed as f64 / recorded as f64 - 1.0).abs();
    assert!(
        error <= share,
        "{name}: recorded {recorded}, computed {computed}"
    );
}

#[test]
fn cycle_fields_are_those_recorded_on_skylake() {
    let Some(comparison) = compared() else {
        return;
    };
    println!("{comparison}");
    assert!(comparison.entries > 29_000);
    assert!(comparison.left_out <= 5, "{}", comparison.left_out);
    for block in PLAIN {
        let (recorded, computed) = comparison.blocks[&block].medians();
        assert!(
            recorded.abs_diff(computed) <= 1,
            "{block:x?}: recorded {recorded}, computed {computed}"
        );
    }
    for block in DIVIDING {
        within(&format!("{block:x?}"), &comparison.blocks[&block], 0.25);
    }
    let judged = comparison.judged();
    let difference = (judged.ones_recorded - judged.ones_computed).abs();
    assert!(difference <= 0.05, "{judged:?}");
    for records in [7, 8] {
        let name = format!("iteration of {records} records");
        within(&name, &comparison.iterations[&records], 0.15);
    }
}
