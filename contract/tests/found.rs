//! What `vlbr contract` found is kept in `contract/found`, the shortest way of each policy to break each
//! rule: every file shows it, the table of `docs/contract.md` links to every file, and a search up to a
//! smaller bound finds nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vlbr_contract::{Bounds, Plan, Scene};
use vlbr_host::policy::Catalog;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn kept() -> BTreeMap<String, String> {
    let files = fs::read_dir(project().join("contract/found")).unwrap();
    let files = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    files.collect()
}

#[test]
fn every_file_shows_what_it_says() {
    let kept = kept();
    assert!(kept.len() > 50, "{}", kept.len());
    for (name, text) in kept {
        let scenario = vlbr_scenario::parse(Path::new(&name), &text);
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
        let (_, failures) = vlbr_scenario::run_scenario(&scenario);
        assert!(failures.is_empty(), "{name}: {failures:?}");
    }
}

#[test]
fn the_table_links_to_every_file_and_has_a_row_for_every_policy() {
    let document = fs::read_to_string(project().join("docs/contract.md")).unwrap();
    let (_, table) = document.split_once("<!-- table -->").unwrap();
    let (table, _) = table.split_once("<!-- end -->").unwrap();
    let links = table.split("](../contract/found/").skip(1);
    let links: BTreeSet<_> = links.map(|link| link.split_once(')').unwrap().0).collect();
    let kept = kept();
    assert_eq!(links, kept.keys().map(String::as_str).collect());
    let catalog = Catalog::builtin();
    let policies: Vec<_> = catalog.all().iter().map(|policy| policy.name()).collect();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<_> = rows.map(|row| row.split_once('`').unwrap().0).collect();
    assert_eq!(rows, policies);
}

/// What a line of a scenario's headers says.
fn header<'a>(text: &'a str, key: &str) -> &'a str {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_default()
}

#[test]
fn what_a_file_by_hand_breaks_is_broken_in_the_table_or_said_below_it() {
    let document = fs::read_to_string(project().join("docs/contract.md")).unwrap();
    let between = |first: &str| {
        let (_, rest) = document.split_once(first).unwrap();
        rest.split_once("<!-- end -->").unwrap().0
    };
    let rows = between("<!-- table -->").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let policy = cells.next()?.trim_end_matches('`');
        Some((policy, cells.collect::<Vec<_>>()))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    let mut beyond = BTreeSet::new();
    for file in fs::read_dir(project().join("scenarios/contract")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let number: usize = name[..4].parse().unwrap();
        if !(11..=50).contains(&(number % 100)) {
            continue;
        }
        let rule = number / 100 - 30;
        let text = fs::read_to_string(&path).unwrap();
        for policy in header(&text, "policies").split(", ") {
            let Some(cells) = rows.get(policy) else {
                continue;
            };
            if !cells[rule - 1].starts_with('[') {
                beyond.insert(format!(
                    "  - rule {rule}, `{policy}`: [{number}](../scenarios/contract/{name})"
                ));
            }
        }
    }
    let said: BTreeSet<_> = between("<!-- beyond -->")
        .trim_matches('\n')
        .lines()
        .collect();
    assert_eq!(said, beyond.iter().map(String::as_str).collect());
}

/// `in the scene NAME` of a title.
fn scene_of(text: &str) -> &str {
    let title = text
        .lines()
        .find(|line| line.starts_with("title:"))
        .unwrap();
    title.rsplit_once(' ').unwrap().1
}

#[test]
fn a_search_up_to_a_smaller_bound_finds_nothing_else() {
    let plan = Plan {
        policies: Catalog::builtin().all().to_vec(),
        scenes: Scene::all().unwrap(),
        bounds: Bounds {
            depth: None,
            states: 300,
        },
        kept: None,
        build: String::new(),
        threads: 2,
    };
    let table = plan.run(&|_, _, _| {}).unwrap();
    let (kept, mut same) = (kept(), 0);
    for (name, text) in table.scenarios() {
        let known = kept
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is new:\n{text}"));
        // Another scene may show it on a shorter path and need more states.
        if scene_of(known) == scene_of(&text) {
            assert_eq!(*known, text, "{name}");
            same += 1;
        }
    }
    assert!(same > 50, "{same}");
}
