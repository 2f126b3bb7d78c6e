//! What user space does to vCPUs of a scene, and what the report says of it.

use std::sync::Arc;

use vlbr_cpu::ledger::CostModel;
use vlbr_host::machine::Checking;
use vlbr_host::policy::Catalog;
use vlbr_scene::report::{VmOptions, VmReport};
use vlbr_scene::{GuestSource, Scene};

const BASE: &str = r#"
    name = "monitor"
    part = "skylake"
    cpus = 2
    duration-us = 400

    [[vm]]
    name = "a"

    [[vcpu]]
    vm = "a"
    loop = {}
    guest-perf = "branches:5000"
"#;

fn report(text: &str, policy: &str) -> VmReport {
    let scene = Scene::from_toml(text).unwrap();
    let vcpus = scene.vcpu.iter();
    let sources: Vec<_> = vcpus
        .map(|vcpu| GuestSource::looped(vcpu.looped.unwrap()).unwrap())
        .collect();
    let policy = Catalog::builtin().named(policy).unwrap();
    let model = CostModel::published();
    let options = VmOptions {
        policy: &Arc::clone(&policy),
        model,
        checking: Checking::On,
    };
    VmReport::run(&scene, &sources, options, &mut |_| {}).unwrap()
}

fn with(requests: &str) -> String {
    format!("{BASE}{requests}")
}

const MIGRATIONS: &str = r#"
    [[monitor]]
    at-us = 100
    vcpu = 0
    does = "migrate"

    [[monitor]]
    at-us = 250
    vcpu = 0
    does = "migrate"
    carry = "named"
"#;

/// Of each policy: records lost by what is listed, and equal by what is named.
#[test]
fn a_migration_says_of_every_policy_what_the_guest_keeps() {
    for (policy, equal) in [
        ("upstream@5.15.85", true),
        ("upstream@6.16", true),
        ("upstream-documented@6.16", true),
        ("naive", true),
        ("mediated-swap", true),
        ("msr-list", false),
        ("msr-list-virtualbox", false),
    ] {
        let report = report(&with(MIGRATIONS), policy);
        let [listed, named] = &report.monitor[..] else {
            panic!("{policy}: {:?}", report.monitor);
        };
        let records = listed.records.unwrap();
        assert_eq!((records.held, records.lost), (32, 32), "{policy}");
        assert_eq!(listed.at_us, Some(100), "{policy}");
        let records = named.records.unwrap();
        assert_eq!(records.held, 32, "{policy}");
        let (arrived, refused) = if equal { (32, 0) } else { (0, 32) };
        assert_eq!(
            (records.equal, records.refused),
            (arrived, refused),
            "{policy}"
        );
        let loss = report.findings.unwrap();
        assert!(
            loss.iter().any(|finding| finding.rule == "loss"),
            "{policy}"
        );
    }
    let lazy = report(&with(MIGRATIONS), "mediated-lazy");
    for row in &lazy.monitor {
        let records = row.records.unwrap();
        assert_eq!((records.held, records.equal), (32, 32));
        assert_eq!(row.refused, Vec::<String>::new());
    }
    assert_eq!(lazy.findings.unwrap(), []);
    for policy in ["none", "mediated"] {
        let report = report(&with(MIGRATIONS), policy);
        let held = report.monitor.iter().map(|row| row.records.unwrap().held);
        assert_eq!(held.sum::<usize>(), 0, "{policy}");
    }
}

/// The guest's counters are carried, so that its session goes on; its handler turns the LBR on again.
#[test]
fn a_session_goes_on_behind_a_migration() {
    let moved = report(&with(MIGRATIONS), "upstream@6.16");
    let stayed = report(BASE, "upstream@6.16");
    let samples = |report: &VmReport| report.vcpus[0].samples;
    assert!(samples(&stayed) > 20);
    assert!(
        samples(&moved) + 1 >= samples(&stayed),
        "{}",
        samples(&moved)
    );
    // On its own processor nothing is lost.
    let ideal = report(&with(MIGRATIONS), "ideal");
    assert_eq!(ideal.findings.unwrap(), []);
    let records = ideal.monitor.iter().map(|row| row.records.unwrap());
    assert!(records.into_iter().all(|r| r.held == 32 && r.equal == 32));
}

/// v8 lets nobody see INFO from outside, and lists nothing.
#[test]
fn v8_loses_info_or_everything() {
    let report = report(&with(MIGRATIONS), "v8");
    let [listed, named] = &report.monitor[..] else {
        panic!("{:?}", report.monitor);
    };
    assert_eq!((listed.read, listed.written), (0, 0));
    assert_eq!(listed.records.unwrap().lost, 32);
    assert_eq!(named.refused.len(), 32);
    let text = report.text(false);
    assert!(
        text.contains("vcpu0: migrate, listed at 100 us: 0 MSRs read"),
        "{text}"
    );
    assert!(text.contains("MSR_LBR_INFO_0, "), "{text}");
    assert!(text.contains("and 28 more"), "{text}");
}

/// A snapshot of the MSRs is taken and put back; the guest exits for each.
#[test]
fn what_was_read_can_be_written_back() {
    let requests = r#"
        [[monitor]]
        at-us = 100
        vcpu = 0
        does = "get-msrs"
        carry = "named"

        [[monitor]]
        at-us = 200
        vcpu = 0
        does = "set-msrs"
    "#;
    let report = report(&with(requests), "upstream@6.16");
    let [got, set] = &report.monitor[..] else {
        panic!("{:?}", report.monitor);
    };
    assert_eq!((got.read, got.written, got.records), (114, 0, None));
    assert_eq!((set.read, set.written), (0, 114));
    assert_eq!(set.refused, Vec::<String>::new());
    let left = ("vcpu0", "exit to user space");
    let exits = report.journal.iter().find(|row| (&*row.0, &*row.1) == left);
    assert_eq!(exits.map(|row| row.2), Some(2));
}

/// A request that comes too late is told.
#[test]
fn what_was_not_done_is_told() {
    // The guest has ended before.
    let text = with("\n[[monitor]]\nat-us = 300\nvcpu = 0\ndoes = \"migrate\"\n");
    let text = text.replace("loop = {}", "loop = {}\ninstructions = 1000");
    let report = report(&text, "none");
    assert_eq!(report.monitor[0].at_us, None);
    assert!(report.text(false).contains("not done"));
}

/// One line that says what and where.
#[test]
fn wrong_requests_are_refused_at_their_place() {
    for (request, expected) in [
        (
            "at-us = 1\nvcpu = 7\ndoes = \"migrate\"",
            "monitor[0].vcpu: there is no vCPU 7",
        ),
        (
            "at-us = 1\nvcpu = 0\ndoes = \"move\"",
            "unknown variant `move`",
        ),
        (
            "at-us = 2000000000000\nvcpu = 0\ndoes = \"migrate\"",
            "monitor[0].at-us: 2000000000000 is more than",
        ),
        ("vcpu = 0\ndoes = \"migrate\"", "missing field `at-us`"),
        (
            "at-us = 400\nvcpu = 0\ndoes = \"migrate\"",
            "monitor[0].at-us: is not before the scene's end",
        ),
        (
            "at-us = 10\nvcpu = 0\ndoes = \"set-msrs\"",
            "monitor[0].does: no get-msrs of vCPU 0 comes before",
        ),
    ] {
        let error = Scene::from_toml(&with(&format!("\n[[monitor]]\n{request}\n")));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The same requests, the same figures, whether rules are checked or not.
#[test]
fn a_migration_is_the_same_without_checks() {
    let run = |checking| {
        let scene = Scene::from_toml(&with(MIGRATIONS)).unwrap();
        let sources = [GuestSource::looped(scene.vcpu[0].looped.unwrap()).unwrap()];
        let policy = Catalog::builtin().named("upstream@6.16").unwrap();
        let model = CostModel::published();
        let options = VmOptions {
            policy: &policy,
            model,
            checking,
        };
        VmReport::run(&scene, &sources, options, &mut |_| {}).unwrap()
    };
    let (on, off) = (run(Checking::On), run(Checking::Off));
    assert_eq!(on.monitor, off.monitor);
    assert_eq!(on.rows, off.rows);
}
