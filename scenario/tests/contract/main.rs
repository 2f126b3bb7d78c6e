//! `docs/contract.md` and `scenarios/contract`: no rule without a test, no test without a rule.

mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vlbr_scenario::{Area, Evidence, Scenario, discover, load};

/// Rules of the contract.
const RULES: u32 = 15;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the folder, by its name, but those that an exploration wrote: from 51 on.
fn files() -> BTreeMap<String, Scenario> {
    let written = |(_, scenario): &(String, Scenario)| scenario.number % 100 <= 50;
    all().into_iter().filter(written).collect()
}

/// Every file of the folder, by its name.
fn all() -> BTreeMap<String, Scenario> {
    let found = discover(&[project().join("scenarios/contract")]).unwrap();
    let named = found.into_iter().map(|path| match load(&path) {
        Ok(scenario) => (file_name(&path), scenario),
        Err(error) => panic!("{error}"),
    });
    named.collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The rules that a file names.
fn rules_of(scenario: &Scenario) -> Vec<u32> {
    let numbers = scenario.rules.iter().map(|rule| {
        let number = rule.strip_prefix("contract/");
        number.and_then(|number| number.parse().ok()).unwrap()
    });
    numbers.collect()
}

/// Names of files that a part of the document links to.
fn linked(text: &str) -> BTreeSet<String> {
    let links = text.split("](../scenarios/contract/").skip(1);
    let names = links.map(|link| link.split_once(')').unwrap().0.to_owned());
    names.collect()
}

/// `### Rule N: name`, by number, each with its text up to the next heading; numbers as they come.
fn rules_of_the_document() -> Vec<(u32, String, String)> {
    let document = fs::read_to_string(project().join("docs/contract.md")).unwrap();
    let parts = document.split("\n### Rule ").skip(1);
    let rules = parts.map(|part| {
        let end = part.find("\n## ").unwrap_or(part.len());
        let (heading, text) = part[..end].split_once('\n').unwrap();
        let (number, name) = heading.split_once(": ").unwrap();
        (number.parse().unwrap(), name.to_owned(), text.to_owned())
    });
    rules.collect()
}

#[test]
fn the_rules_are_numbered_without_a_gap_and_named_as_in_the_index() {
    let rules = fs::read_to_string(project().join("scenarios/rules.txt")).unwrap();
    let stated: Vec<_> = rules_of_the_document()
        .into_iter()
        .map(|(number, name, _)| format!("contract/{number}: {name}: "))
        .collect();
    assert_eq!(stated.len(), RULES as usize);
    for (n, head) in (1..).zip(&stated) {
        assert!(head.starts_with(&format!("contract/{n}: ")), "{head}");
        assert!(rules.contains(&format!("\n{head}")), "{head}");
    }
}

#[test]
fn every_rule_names_the_files_that_carry_its_number_and_no_others() {
    let files = files();
    for (number, name, text) in rules_of_the_document() {
        let carry = files
            .iter()
            .filter(|(_, scenario)| rules_of(scenario).contains(&number));
        let carry: BTreeSet<String> = carry.map(|(name, _)| name.clone()).collect();
        assert!(!carry.is_empty(), "rule {number}, {name}, has no file");
        assert_eq!(linked(&text), carry, "rule {number}, {name}");
    }
}

#[test]
fn a_file_has_the_number_of_a_rule_that_it_names() {
    for (file, scenario) in all() {
        assert_eq!(scenario.area, Area::Contract, "{file}");
        let rule = (scenario.number - 3000) / 100;
        assert!((1..=RULES).contains(&rule), "{file}");
        assert_eq!(rules_of(&scenario)[0], rule, "{file}");
    }
}

#[test]
fn every_rule_is_kept_somewhere() {
    let files = files();
    for rule in 1..=RULES {
        let kept = 3000 + 100 * rule + 1..3000 + 100 * rule + 11;
        let shown = files.values().any(|file| kept.contains(&file.number));
        assert!(shown, "no file keeps rule {rule}");
    }
}

/// "Violations found", up to the next heading of its level.
fn violations() -> String {
    let document = fs::read_to_string(project().join("docs/contract.md")).unwrap();
    let (_, violations) = document.split_once("\n## Violations found\n").unwrap();
    violations.split("\n## ").next().unwrap().to_owned()
}

#[test]
fn what_is_only_deduced_says_so() {
    let files = files();
    let violations = violations();
    for link in violations.split("](../scenarios/contract/").skip(1) {
        let (name, behind) = link.split_once(')').unwrap();
        let evidence = files[name].host.as_ref().unwrap().evidence;
        let says = behind.starts_with(" (deduced)");
        assert_eq!(says, evidence == Evidence::Deduced, "{name}");
    }
}

#[test]
fn violations_and_the_rest_of_the_document_name_files_that_exist() {
    let document = fs::read_to_string(project().join("docs/contract.md")).unwrap();
    let files = files();
    for name in linked(&document) {
        assert!(files.contains_key(&name), "{name}");
    }
    let violations = violations();
    let entries: Vec<&str> = violations.split("\n### ").skip(1).collect();
    assert!(entries.len() >= 14, "{} violations", entries.len());
    let mut shown = BTreeSet::new();
    for entry in entries {
        let title = entry.lines().next().unwrap_or_default();
        assert!(!linked(entry).is_empty(), "{title}: no scenario shows it");
        shown.extend(linked(entry));
    }
    // From 11 on a file shows how the rule is broken.
    let broken = files.iter().filter(|(_, file)| file.number % 100 > 10);
    for (name, _) in broken {
        assert!(shown.contains(name), "{name} is under no violation");
    }
}
