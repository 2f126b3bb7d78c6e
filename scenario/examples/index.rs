//! Prints `scenarios/INDEX.md`.

use std::error::Error;
use std::path::Path;

use vlbr_scenario::{discover, index, load, parse_rules};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let rules = parse_rules(&std::fs::read_to_string(root.join("rules.txt"))?)?;
    let mut scenarios = Vec::new();
    for file in discover(&[&root])? {
        scenarios.push(load(&file)?);
    }
    scenarios.sort_by_key(|scenario| scenario.number);
    print!("{}", index(&rules, &scenarios)?);
    Ok(())
}
