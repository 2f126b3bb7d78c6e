//! The form of host scenarios: what is read, what is refused and where.

use std::path::Path;

use vlbr_scenario::{Reason, Scenario, parse, run_scenario};

const HOST: &str = "\
scenario 1
title: A call stack is not frozen
area: host
rule: 8/69
source: lbr.c
evidence: source
profiles: haswell
policies: linux@5.15.85, v8
cpus: 2
kvm: ignore_msrs
description:
  One.

given
  task A
  vcpu v0 in a model 06_3C pmu 2
when
  switch cpu1 A
  event e branches on cpu1 pinned period 0x1000 branch stack,u
  on cpu1 call rel 0x1000 -> 0x2000
then
  state e is active on cpu1
  count host rdmsr IA32_DEBUGCTL = 1
  note v0 \"pass-through opened\" = 0
  entry cpu1 0 = 0x1000 -> 0x2000 of A
";

/// `HOST` with one text replaced by another.
fn host_with(old: &str, new: &str) -> Result<Scenario, (usize, Reason)> {
    assert!(HOST.contains(old), "{old:?}");
    let text = HOST.replacen(old, new, 1);
    parse(Path::new("host/2069-name.scn"), &text).map_err(|error| (error.line, error.reason))
}

#[test]
fn a_host_runs_under_every_policy_it_names() {
    let scenario = host_with("One.", "One.").unwrap();
    assert_eq!(scenario.policy_names(), ["linux@5.15.85", "v8"]);
    assert_eq!(run_scenario(&scenario).1, []);
    let wrong = host_with("rdmsr IA32_DEBUGCTL = 1", "rdmsr IA32_DEBUGCTL = 2").unwrap();
    let (_, failures) = run_scenario(&wrong);
    let policies: Vec<Option<&str>> = failures.iter().map(|f| f.policy.as_deref()).collect();
    assert_eq!(policies, [Some("linux@5.15.85"), Some("v8")]);
    assert!(failures.iter().all(|f| f.line == 23 && f.device.is_none()));
}

#[test]
fn words_of_hosts_are_refused_at_their_line() {
    for (old, new, line) in [
        ("source\nprofiles", "guess\nprofiles", 6),
        ("linux@5.15.85", "linux@new", 8),
        ("v8\n", "v9\n", 8),
        ("cpus: 2", "cpus: 0", 9),
        ("kvm: ignore_msrs", "kvm: nested", 10),
        ("task A", "thread A", 15),
        ("model 06_3C", "model 3C", 16),
        ("pmu 2", "pmu 200", 16),
        ("cpu1 A", "1 A", 18),
        ("branch stack,u", "branch sideways", 19),
        (" on cpu1 pinned", " pinned", 19),
        ("call rel", "call sideways", 20),
        ("is active on cpu1", "is active", 22),
        ("is active on cpu1", "is gone", 22),
        ("count host rdmsr", "count nobody rdmsr", 23),
        ("\"pass-through opened\"", "\"door opened\"", 24),
        (" of A", "", 25),
    ] {
        let refused = host_with(old, new).expect_err(new);
        assert_eq!(refused.0, line, "{old:?} -> {new:?}: {}", refused.1);
    }
}

#[test]
fn headers_of_hosts_stand_in_their_area_alone() {
    for (line, key) in [
        ("policies: linux@5.15.85, v8\n", "policies"),
        ("evidence: source\n", "evidence"),
    ] {
        let without = host_with(line, "").unwrap_err();
        assert_eq!(without, (1, Reason::MissingHeader(key)));
    }
    let elsewhere = HOST.replacen("area: host", "area: vmx", 1);
    let steps = elsewhere.find("given").expect("steps");
    let text = format!("{}then\n  stack holds 0\n", &elsewhere[..steps]);
    let error = parse(Path::new("1199-name.scn"), &text).unwrap_err();
    assert_eq!(error.reason, Reason::HeaderOfHost("policies"));
    let misplaced = host_with("  task A", "  state e is none").unwrap_err();
    assert!(matches!(misplaced, (15, Reason::WrongBlock { .. })));
}

#[test]
fn names_that_a_host_lacks_fail_the_step() {
    for (old, new, line) in [
        ("switch cpu1 A", "switch cpu1 B", 18),
        ("switch cpu1 A", "switch cpu7 A", 18),
        ("state e is active", "state f is active", 22),
        ("task A\n", "task A\n  task A\n", 16),
    ] {
        let scenario = host_with(old, new).unwrap();
        let (_, failures) = run_scenario(&scenario);
        assert_eq!(failures.len(), 2, "{new:?}");
        assert!(failures.iter().all(|f| f.line == line), "{new:?}");
    }
}

/// An adaptive record is made by an event that asks for it, while it is on and the host runs.
#[test]
fn an_event_that_makes_no_pebs_record_fails_the_step() {
    let text = |part: &str, precise: &str, at: &str| {
        format!(
            "scenario 1\ntitle: A\narea: host\nrule: 8/69\nsource: ds.c\nevidence: source\n\
             profiles: {part}\npolicies: upstream@6.16\ndescription:\n  A.\n\n\
             given\n  event h branches on cpu0 {precise} period 0x1000 branch any,u,k\n  vcpu v0 in a\n  \
             switch cpu0 v0\n  run v0\n  enter v0\n  {at}\nwhen\n  pebs h\nthen\n  samples h = 1\n"
        )
    };
    let failed = |part, precise, at| {
        let scenario = parse(Path::new("2069-name.scn"), &text(part, precise, at)).unwrap();
        let failures = run_scenario(&scenario).1;
        failures.first().map(|failure| failure.line)
    };
    assert_eq!(failed("ice-lake", "precise", "exit v0 hlt"), None);
    for (part, precise, at) in [
        ("ice-lake", "precise", "rotate cpu0"),
        ("ice-lake", "precise disabled", "exit v0 hlt"),
        ("ice-lake", "", "exit v0 hlt"),
        ("skylake", "precise", "exit v0 hlt"),
    ] {
        let case = format!("{part} {precise} {at}");
        assert_eq!(failed(part, precise, at), Some(20), "{case}");
    }
}
