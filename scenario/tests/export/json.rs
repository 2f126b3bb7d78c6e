//! Reading the JSON.

use std::collections::BTreeMap;

use serde_json::Value;

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = value[key].as_str();
    found.unwrap_or_else(|| panic!("{key} is no text: {value}"))
}

/// `0x1d9`.
pub(crate) fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(|| panic!("no number: {value}"))
}

pub(crate) fn small(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

pub(crate) fn flag(value: &Value) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| panic!("no flag: {value}"))
}

/// Undefined bits by register.
pub(crate) fn masks(last: &Value) -> BTreeMap<u64, u64> {
    let mut masks = BTreeMap::new();
    for run in last["undefined"].as_array().expect("a list") {
        assert!(!text(run, "reason").is_empty());
        for msr in number(&run["first"])..=number(&run["last"]) {
            *masks.entry(msr).or_default() |= number(&run["mask"]);
        }
    }
    masks
}

/// Two digits a byte.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|n| u8::from_str_radix(&text[n..n + 2], 16).expect("two digits"))
        .collect()
}
