//! Damaged readings: refused, or a cost model that no one may call measured.

mod support;

use support::{IMAGE, MODULE};
use vlbr_calibrate::{Options, Provenance, calibrate, parse};
use vlbr_cpu::ledger::{Class, CostModel};
use vlbr_fuzz::{Form, throw};

#[test]
fn fuzz_calibrate() {
    let seeds = [MODULE.as_bytes().to_vec(), IMAGE.as_bytes().to_vec()];
    let options = Options {
        base: CostModel::published(),
        allow_virtual: true,
        processors: &["skylake-server"],
    };
    let tally = throw("readings", 5000, Form::Text, &seeds, |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(runs) = text.and_then(|text| parse(text).ok()) else {
            return false;
        };
        let Ok(calibration) = calibrate(&runs, &options) else {
            return false;
        };
        let model = CostModel::from_toml(&calibration.to_toml()).unwrap();
        assert_eq!(&model, calibration.model());
        if bytes.starts_with(b"SYNTHETIC") {
            for figure in calibration.figures() {
                assert!(figure.provenance == Provenance::Base || figure.cost.class == Class::E);
            }
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
