//! The export of the golden scenarios: it is all that another emulator needs, and nothing in it can be
//! changed unnoticed.

mod counters;
mod hash;
mod interpreter;
mod json;
mod outcome;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use vlbr_lbr::Profile;
use vlbr_scenario::{EXPORT_VERSION, ExportError, discover, export, load};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

/// The whole suite.
static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(&[]));

fn bytes(cpus: &[&Profile]) -> Vec<u8> {
    let mut out = Vec::new();
    export(&[folder()], cpus, &mut out).unwrap_or_else(|error| panic!("{error}"));
    out
}

/// Machines by name, and cases.
struct Suite {
    machines: BTreeMap<String, Value>,
    cases: Vec<Value>,
}

impl Suite {
    fn read(bytes: &[u8]) -> Self {
        let mut machines = BTreeMap::new();
        let mut cases = Vec::new();
        let text = core::str::from_utf8(bytes).expect("JSON is UTF-8");
        for (n, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line).expect("a line of JSON");
            match json::text(&value, "kind") {
                "header" => {
                    assert_eq!(n, 0);
                    assert_eq!(value["version"], serde_json::json!(EXPORT_VERSION));
                }
                "machine" => {
                    let id = json::text(&value, "id").to_owned();
                    assert!(machines.insert(id, value).is_none(), "line {n}");
                }
                "case" => {
                    assert!(machines.contains_key(json::text(&value, "machine")));
                    cases.push(value);
                }
                other => panic!("line {n}: {other}"),
            }
        }
        Self { machines, cases }
    }

    fn verify(&self, case: &Value) -> Result<(), String> {
        let machine = &self.machines[json::text(case, "machine")];
        interpreter::verify(machine, case)
    }
}

fn one(names: &[&str]) -> Suite {
    let profiles: Vec<&Profile> = names
        .iter()
        .map(|name| Profile::named(name).expect("known"))
        .collect();
    Suite::read(&bytes(&profiles))
}

#[test]
fn the_steps_alone_lead_the_fast_device_to_the_final_registers_of_the_reference() {
    let suite = Suite::read(&ALL);
    let runs: usize = discover(&[folder()])
        .unwrap()
        .iter()
        .map(|file| load(file).unwrap())
        .filter(|scenario| scenario.host.is_none())
        .map(|scenario| scenario.profiles.names().len())
        .sum();
    assert_eq!(suite.cases.len(), runs);
    for case in &suite.cases {
        if let Err(error) = suite.verify(case) {
            panic!("{}: {error}", json::text(case, "id"));
        }
    }
}

#[test]
fn every_final_value_and_the_hash_count() {
    let suite = one(&["nehalem", "skylake", "tremont", "sapphire-rapids"]);
    let mut changed = 0;
    for (n, case) in suite.cases.iter().enumerate() {
        let id = json::text(case, "id");
        let mut other = case.clone();
        let hash = json::text(case, "hash");
        let digit = if hash.starts_with('0') { "1" } else { "0" };
        other["hash"] = serde_json::json!(format!("{digit}{}", &hash[1..]));
        assert!(suite.verify(&other).is_err(), "{id}: hash");
        for cpu in 0..2 {
            let masks = json::masks(&case["final"][cpu]);
            let registers = case["final"][cpu]["msrs"].as_array().expect("registers");
            // Some registers of every case, every register of some case.
            for at in (n % 23..registers.len()).step_by(23) {
                let msr = json::number(&registers[at][0]);
                let defined = !masks.get(&msr).copied().unwrap_or(0);
                if defined == 0 {
                    continue;
                }
                let value = match &registers[at][1] {
                    Value::Null => serde_json::json!("0x0"),
                    value => {
                        let bit = 1 << defined.trailing_zeros();
                        serde_json::json!(format!("{:#x}", json::number(value) ^ bit))
                    }
                };
                let mut other = case.clone();
                other["final"][cpu]["msrs"][at][1] = value;
                // Whoever changes a value can make the hash fit; the registers still differ.
                other["hash"] = serde_json::json!(hash::of(&other));
                assert!(suite.verify(&other).is_err(), "{id}: cpu {cpu} {msr:#x}");
                changed += 1;
            }
        }
    }
    assert!(changed > 1000, "{changed}");
}

#[test]
fn undefined_bits_do_not_count() {
    let suite = one(&["skylake"]);
    let mut changed = 0;
    for case in &suite.cases {
        let masks = json::masks(&case["final"][0]);
        let mut other = case.clone();
        for register in other["final"][0]["msrs"].as_array_mut().expect("registers") {
            let undefined = masks.get(&json::number(&register[0])).copied().unwrap_or(0);
            if undefined != 0 && !register[1].is_null() {
                register[1] =
                    serde_json::json!(format!("{:#x}", json::number(&register[1]) ^ undefined));
                changed += 1;
            }
        }
        if let Err(error) = suite.verify(&other) {
            panic!("{}: {error}", json::text(case, "id"));
        }
    }
    assert!(changed > 100, "{changed}");
}

#[test]
fn a_step_that_is_left_out_or_changed_is_noticed() {
    let suite = one(&["haswell"]);
    let mut unnoticed = Vec::new();
    for case in &suite.cases {
        let steps = case["steps"].as_array().expect("steps");
        let noticed = (0..steps.len()).any(|n| {
            let mut other = case.clone();
            other["steps"].as_array_mut().expect("steps").remove(n);
            suite.verify(&other).is_err()
        });
        if !noticed {
            unnoticed.push(json::text(case, "id").to_owned());
        }
        for (n, step) in steps.iter().enumerate() {
            if let Some(value) = step["expect"].get("value") {
                let mask = json::number(&step["expect"]["mask"]);
                if mask == 0 || step["expect"].get("differs").is_some() {
                    continue;
                }
                let bit = 1 << mask.trailing_zeros();
                let mut other = case.clone();
                other["steps"][n]["expect"]["value"] =
                    serde_json::json!(format!("{:#x}", json::number(value) ^ bit));
                assert!(suite.verify(&other).is_err(), "{} step {n}", case["id"]);
            }
        }
    }
    // Cases of things that are not recorded: without them the same is seen.
    assert!(unnoticed.len() * 10 < suite.cases.len(), "{unnoticed:#?}");
}

#[test]
fn equal_scenarios_give_equal_bytes() {
    let profile = Profile::named("goldmont").expect("known");
    assert!(bytes(&[profile]) == bytes(&[profile]));
}

#[test]
fn a_processor_that_no_scenario_names_is_an_error() {
    let file = folder().join("arch/500-cpuid-depths.scn");
    let profile = Profile::named("nehalem").expect("known");
    let error = export(&[file], &[profile], &mut Vec::new()).expect_err("arch only");
    assert!(matches!(error, ExportError::Nothing), "{error}");
}

#[test]
fn a_scenario_that_fails_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("101-wrong.scn");
    let text = "scenario 1\ntitle: t\narea: insertion\nrule: r\nsource: s\nprofiles: skylake\n\
                description:\n  d\n\nwhen\n  wrmsr IA32_DEBUGCTL 0\nthen\n  rdmsr IA32_DEBUGCTL = 1\n";
    std::fs::write(&file, text).unwrap();
    let error = export(&[&file], &[], &mut Vec::new()).expect_err("a wrong expectation");
    let text = error.to_string();
    assert!(matches!(error, ExportError::Failed { .. }), "{text}");
    assert!(
        text.contains("101-wrong.scn:13: skylake: expected 0x1"),
        "{text}"
    );
}

/// The example for readers in another language; it shares nothing with this crate.
#[test]
fn the_example_in_python_finds_every_hash_and_every_change() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("export-example/check.py");
    let check = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Command::new("python3")
            .arg(&script)
            .arg(file.path())
            .output()
    };
    let output = match check(&ALL) {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: python3: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let cases = Suite::read(&ALL).cases.len();
    assert!(said.contains(&format!("{cases} cases")), "{said}");

    let text = core::str::from_utf8(&ALL).unwrap();
    let head: Vec<&str> = text.lines().take(3).collect();
    for (from, to) in [
        ("],\"hash\":\"", "],\"hash\":\"0"),
        ("\"sha256\"", "\"sha512\""),
        ("\"do\":\"wrmsr\"", "\"do\":\"wrmsrs\""),
        ("\"version\":1", "\"version\":2"),
        ("\"machine\":\"", "\"machine\":\"x"),
        ("\"steps\":[", "\"stops\":["),
    ] {
        let wrong = head.join("\n").replacen(from, to, 1);
        assert_ne!(wrong, head.join("\n"), "{from}");
        let output = check(wrong.as_bytes()).unwrap();
        assert!(!output.status.success(), "{from}");
    }
    let output = check(head.join("\n").as_bytes()).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Every key of every object, and every word that a reader must tell apart.
fn words(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| self::words(item, words)),
        Value::Object(object) => {
            for (key, value) in object {
                words.insert(key.clone());
                let told = match key.as_str() {
                    "kind" | "do" | "is" | "class" | "effect" | "what" => true,
                    "source" => object.contains_key("do"),
                    _ => false,
                };
                match value.as_str() {
                    Some(word) if told => {
                        words.insert(word.to_owned());
                    }
                    _ if key == "options" || key == "pmu_options" => {}
                    _ => self::words(value, words),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_explains_every_key_and_every_word() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/scenario-export.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut all = BTreeSet::new();
    for line in core::str::from_utf8(&ALL).unwrap().lines() {
        words(&serde_json::from_str(line).unwrap(), &mut all);
    }
    let missing = all
        .iter()
        .filter(|word| !page.contains(&format!("`{word}`")));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "{missing:?}");
}
