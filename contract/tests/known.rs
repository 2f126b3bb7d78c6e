//! What is known to be wrong with each policy and version is found: docs/contract.md, "Violations found",
//! says where in the source.

use std::sync::Arc;

use vlbr_contract::{Bounds, ContractRule, Scene, explore};
use vlbr_host::policy::{Catalog, Policy};

fn policy(name: &str) -> Arc<dyn Policy> {
    Catalog::builtin().named(name).expect("a policy")
}

/// What is known, the policy, the scene, the states that are enough, the rule, words of the way, and the
/// actions of the shortest path.
type Known = (
    &'static str,
    &'static str,
    &'static str,
    usize,
    ContractRule,
    &'static str,
    usize,
);

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    ("ERROR is sticky", "v8", "records-pinned-cpu", 25_000, ContractRule::Recoverable, "does not get the LBR back", 6),
    ("a denied guest records into the host's stack", "v8", "records-pinned-cpu", 2000, ContractRule::HostReadsOwn, "a guest's branch enters the stack of a host event", 5),
    ("every access exits", "v8-as-posted", "records-pinned-cpu", 2000, ContractRule::OneExitASlice, "an access exits", 4),
    ("records are lost by the lazy release", "upstream@6.16", "records-flexible-cpu", 12_000, ContractRule::RecordsKept, "records are gone after GuestRead", 9),
    ("SELECT is not saved from 5.9 to 5.16", "upstream@5.15", "registers-flexible-task", 12_000, ContractRule::OwnProcessor, "passed through, MSR_LBR_SELECT", 5),
    ("DEBUGCTL is copied at vcpu_load", "upstream@5.15", "records-flexible-cpu", 4000, ContractRule::GuestReadsOwn, "a branch of the host enters the stack that it has left", 6),
    ("a counter of the host freezes the guest's LBR", "upstream@6.16", "pmi-counter", 12_000, ContractRule::OwnProcessor, "IA32_DEBUGCTL", 8),
    ("adaptive PEBS holds the guest's records", "upstream@6.16", "adaptive-pebs", 2000, ContractRule::HostReadsOwn, "a sample of an event holds", 7),
    ("a fresh guest event finds host records", "upstream@6.16", "records-pinned-cpu", 4000, ContractRule::GuestReadsOwn, "a guest reads", 5),
    ("the shortcut after rotation", "v8", "records-flexible-cpu", 40_000, ContractRule::GuestReadsOwn, "a guest reads passed through, MSR_LASTBRANCH", 8),
    ("the pinned cascade", "upstream@6.16", "counters", 12_000, ContractRule::ServedAlone, "a write is dropped", 6),
    ("pass-through on the wrong processor", "upstream@6.16", "user-access", 2000, ContractRule::PassThroughWhereActive, "active on cpu1", 3),
];

#[test]
fn everything_that_is_known_is_found_on_a_shortest_path() {
    for (what, name, scene, states, rule, words, length) in KNOWN {
        let scene = Scene::builtin(scene).expect("built in");
        let bounds = Bounds {
            states: *states,
            ..Bounds::default()
        };
        let found = explore(&scene, &policy(name), &bounds, &|_| {}).expect("it can be explored");
        let broken = found.broken.iter().find(|broken| broken.rule == *rule);
        let broken = broken.unwrap_or_else(|| panic!("{what}: {:?}", found.broken));
        let mut ways = broken.ways.iter();
        let way = ways.find(|(way, _)| way.contains(words));
        let way = way.unwrap_or_else(|| panic!("{what}: {:?}", broken.ways));
        assert_eq!(way.1, *length, "{what}");
    }
}

/// Versions that do not have a fault do not break the rule in the scene that shows it.
#[test]
fn what_was_repaired_is_not_found() {
    for (name, scene, rule, words) in [
        (
            "upstream@6.16",
            "records-flexible-cpu",
            ContractRule::GuestReadsOwn,
            "a branch of the host enters",
        ),
        (
            "v8",
            "records-pinned-cpu",
            ContractRule::OneExitASlice,
            "an access exits",
        ),
        (
            "upstream-documented@6.16",
            "pmi-lbr",
            ContractRule::HostRecords,
            "holds a stack of before",
        ),
    ] {
        let scene = Scene::builtin(scene).expect("built in");
        let bounds = Bounds {
            states: 6000,
            ..Bounds::default()
        };
        let found = explore(&scene, &policy(name), &bounds, &|_| {}).expect("it can be explored");
        let broken = found.broken.iter().find(|broken| broken.rule == rule);
        let ways = broken.map_or(&[][..], |broken| &broken.ways);
        assert!(
            !ways.iter().any(|(way, _)| way.contains(words)),
            "{name}: {ways:?}"
        );
    }
}
