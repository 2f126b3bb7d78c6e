//! The smallest scene: one vCPU, one processor and one event of the host.

use core::num::NonZeroUsize;
use std::path::Path;

use vlbr_contract::{Action, Bounds, Explored, Rival, Scene, Write, explore};
use vlbr_host::machine::Rule;
use vlbr_host::policy::Catalog;

fn explored(policy: &str, threads: usize, transitions: usize) -> Explored {
    let policy = Catalog::builtin().named(policy).expect("a policy");
    let scene = Scene::smallest(policy, Rival::PinnedOnCpu);
    let bounds = Bounds {
        threads,
        transitions: NonZeroUsize::new(transitions),
    };
    explore(&scene, &bounds).expect("the scene can be explored")
}

/// Every scenario shows what it was written for.
fn shows(found: &Explored) -> usize {
    let texts = found.scenarios().expect("paths can be done again");
    for text in &texts {
        let scenario = vlbr_scenario::parse(Path::new("2699-shown.scn"), text);
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (_, failures) = vlbr_scenario::run_scenario(&scenario);
        assert!(failures.is_empty(), "{failures:?}\n{text}");
    }
    texts.len()
}

#[test]
fn ideal_breaks_no_rule_in_any_state() {
    let found = explored("ideal", 2, 1_000_000);
    assert!(found.exhausted());
    assert!(found.states() > 1000, "{}", found.states());
    assert!(found.violations().is_empty());
    assert_eq!(found.stuck(), (0, None));
}

#[test]
fn threads_change_nothing_of_a_scene_that_is_exhausted() {
    let [one, two] = [1, 2].map(|threads| explored("ideal", threads, 1_000_000));
    assert!(one.exhausted() && two.exhausted());
    assert_eq!(
        (one.states(), one.transitions(), one.depth()),
        (two.states(), two.transitions(), two.depth())
    );
    assert_eq!(one.violations(), two.violations());
}

#[test]
fn v8_does_not_give_the_lbr_back_after_a_rival_while_the_guest_recorded() {
    let policy = Catalog::builtin().named("v8").expect("a policy");
    let scene = Scene {
        guest_branches: 0,
        host_branches: 0,
        openings: 1,
        ..Scene::smallest(policy, Rival::PinnedOnCpu)
    };
    let bounds = [1, 2].map(|threads| Bounds {
        threads,
        ..Bounds::default()
    });
    let [found, by_two] = bounds.map(|bounds| explore(&scene, &bounds).expect("it is explored"));
    assert!(found.exhausted() && by_two.exhausted());
    assert_eq!(found.violations(), by_two.violations());
    assert_eq!(found.stuck(), by_two.stuck());
    println!(
        "{} {} {}",
        found.states(),
        found.transitions(),
        found.depth()
    );
    let shortest = [
        Action::Run,
        Action::Enter,
        Action::GuestWrite(Write::DebugCtlLbr),
        Action::Open,
        Action::Close,
    ];
    assert_eq!(found.stuck().1, Some(&shortest[..]));
    assert!(shows(&found) > 5);
}

#[test]
fn v8_lets_a_guest_that_is_denied_branch_into_the_stack_of_the_host() {
    let found = explored("v8", 1, 30_000);
    let into_host = |(rule, way): &&(Rule, String)| {
        *rule == Rule::Leak && way.contains("a guest's branch enters the stack of a host event")
    };
    let way = found.violations().keys().find(into_host).expect("found");
    assert_eq!(found.violations()[way].len(), 5);
}

#[test]
fn upstream_violations_are_shown_by_their_scenarios() {
    let found = explored("upstream@6.16", 1, 30_000);
    assert!(shows(&found) > 0);
}
