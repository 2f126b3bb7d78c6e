//! The hash as docs/scenario-export.md describes it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::json;

pub(crate) fn of(case: &Value) -> String {
    let mut hash = Sha256::new();
    for last in case["final"].as_array().expect("a list") {
        let masks = json::masks(last);
        for register in last["msrs"].as_array().expect("a list") {
            let msr = json::number(&register[0]);
            let mask = !masks.get(&msr).copied().unwrap_or(0);
            let value = match &register[1] {
                Value::Null if mask != 0 => "gp".to_owned(),
                Value::Null => "0x0".to_owned(),
                value => format!("{:#x}", json::number(value) & mask),
            };
            hash.update(format!("{} {msr:#x} {value} {mask:#x}\n", last["cpu"]));
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
