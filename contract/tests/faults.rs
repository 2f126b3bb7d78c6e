//! For every rule something that breaks it, and is found: a policy or version that is known to, and a
//! fault that is put into the policy that keeps them all. `docs/contract.md` has the latter as a table;
//! to draw it again: `VLBR_BLESS=1`.

mod seeded;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use seeded::{Faulty, HOOKS, Hooks, SEEDS};
use vlbr_contract::{Bounds, ContractRule, Explored, Scene, explore};
use vlbr_host::policy::{Catalog, Policy};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contract.md");

fn found(scene: &str, policy: &Arc<dyn Policy>, states: usize) -> Explored {
    let scene = Scene::builtin(scene).expect("built in");
    let bounds = Bounds {
        states,
        ..Bounds::default()
    };
    explore(&scene, policy, &bounds, &|_| {}).expect("the scene can be explored")
}

fn named(policy: &str) -> Arc<dyn Policy> {
    Catalog::builtin().named(policy).expect("a policy")
}

fn breaks(found: &Explored, rule: ContractRule) -> Option<usize> {
    let broken = found.broken.iter().find(|broken| broken.rule == rule);
    broken.map(|broken| broken.path.len())
}

#[test]
fn each_rule_is_broken_by_a_policy_that_is_known_to_break_it() {
    use ContractRule as Rule;
    for (rule, policy, scene, states, length) in [
        (
            Rule::GuestReadsOwn,
            "upstream@6.16",
            "registers-pinned-cpu",
            2000,
            4,
        ),
        (Rule::HostReadsOwn, "v8", "records-pinned-cpu", 2000, 5),
        (
            Rule::RecordsKept,
            "upstream@6.16",
            "records-pinned-cpu",
            2000,
            5,
        ),
        (Rule::OwnProcessor, "v8", "records-pinned-cpu", 2000, 4),
        (Rule::ServedAlone, "v8", "records-pinned-cpu", 2000, 6),
        (Rule::ServedBeside, "v8", "records-pinned-cpu", 2000, 4),
        (
            Rule::PassThroughWhereActive,
            "upstream@6.16",
            "user-access",
            2000,
            3,
        ),
        (
            Rule::ReferencesReturn,
            "upstream@6.16",
            "registers-pinned-cpu",
            10_000,
            7,
        ),
        (Rule::HostRecords, "upstream@6.16", "pmi-lbr", 6500, 6),
        (Rule::Recoverable, "v8", "records-pinned-cpu", 25_000, 6),
        (
            Rule::OneExitASlice,
            "v8-as-posted",
            "records-pinned-cpu",
            2000,
            4,
        ),
        (
            Rule::UnusedCostsNothing,
            "naive",
            "records-pinned-cpu",
            2000,
            2,
        ),
        (
            Rule::NoWarningEachEntry,
            "upstream@6.16",
            "user-access",
            2000,
            4,
        ),
    ] {
        let found = found(scene, &named(policy), states);
        assert_eq!(breaks(&found, rule), Some(length), "{rule} by {policy}");
        let kept = self::found(scene, &named("ideal"), states);
        assert!(
            kept.exhausted && kept.broken.is_empty(),
            "{scene} under ideal"
        );
    }
}

#[test]
fn a_host_that_reads_records_while_the_guest_has_the_lbr_is_found() {
    let (scene, rule) = ("records-pinned-cpu", ContractRule::HostKeepsOff);
    for base in ["upstream@6.16", "v8"] {
        assert_eq!(breaks(&found(scene, &named(base), 3000), rule), None);
        let hooks = Hooks {
            after_exit: seeded::reads_an_entry,
            ..HOOKS
        };
        let faulty: Arc<dyn Policy> = Arc::new(Faulty::new(named(base), hooks));
        let found = found(scene, &faulty, 3000);
        assert_eq!(breaks(&found, rule), Some(4), "over {base}");
    }
}

#[test]
fn each_rule_is_broken_by_a_fault_put_into_the_policy_that_keeps_them_all() {
    let clean = named("mediated-lazy");
    let scenes: BTreeSet<_> = SEEDS.iter().map(|seed| seed.scene).collect();
    for scene in scenes {
        let found = found(scene, &clean, seeded::STATES);
        assert!(
            found.exhausted && found.offered,
            "{scene}: {}",
            found.states
        );
        assert!(found.broken.is_empty(), "{scene}: {:?}", found.broken);
    }
    let mut wrong = Vec::new();
    for seed in SEEDS {
        let faulty: Arc<dyn Policy> = Arc::new(Faulty::new(Arc::clone(&clean), seed.hooks));
        let found = found(seed.scene, &faulty, seeded::STATES);
        let broken = breaks(&found, seed.rule);
        if broken != Some(seed.actions) {
            wrong.push(format!("{}: {broken:?}: {}", seed.rule, seed.fault));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_wrapper_without_a_fault_changes_nothing() {
    for base in ["mediated-lazy", "upstream@6.16", "v8"] {
        let plain = found("records-pinned-cpu", &named(base), 1000);
        let wrapped: Arc<dyn Policy> = Arc::new(Faulty::new(named(base), HOOKS));
        let wrapped = found("records-pinned-cpu", &wrapped, 1000);
        assert_eq!(
            (wrapped.states, wrapped.transitions, wrapped.stuck),
            (plain.states, plain.transitions, plain.stuck),
            "{base}"
        );
        let ways = |found: &Explored| {
            let broken = found.broken.iter();
            let ways = broken.map(|broken| (broken.rule, broken.ways.clone(), broken.path.clone()));
            ways.collect::<Vec<_>>()
        };
        assert_eq!(ways(&wrapped), ways(&plain), "{base}");
    }
}

#[test]
fn every_rule_has_a_seed() {
    let rules: BTreeSet<_> = SEEDS.iter().map(|seed| seed.rule).collect();
    let all = ContractRule::NAMED.iter().map(|(rule, _)| *rule);
    assert_eq!(rules, all.collect());
}

/// The table of the page: a row for each seed, in order, and no other.
#[test]
fn the_page_has_a_row_for_each_seed_and_no_other() {
    let document = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = document.split_once("<!-- seeded -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let mut rows = "| rule | fault | scene | actions |\n| ---: | --- | --- | ---: |\n".to_owned();
    for seed in SEEDS {
        let (rule, fault) = (seed.rule.number(), seed.fault);
        writeln!(
            rows,
            "| {rule} | {fault} | `{}` | {} |",
            seed.scene, seed.actions
        )
        .unwrap();
    }
    let drawn = format!("{before}<!-- seeded -->\n{rows}<!-- end -->{after}");
    if std::env::var_os("VLBR_BLESS").is_some() {
        std::fs::write(PAGE, &drawn).unwrap();
    }
    assert!(document == drawn, "VLBR_BLESS=1 draws it again");
}
