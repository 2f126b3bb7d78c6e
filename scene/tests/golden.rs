//! Golden results of scenes: what changes is told, and where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::golden::{GoldenScene, SceneVerdict, bless, check};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes")
}

fn scenes(names: &[&str], policies: &[Arc<dyn Policy>], golden: &Path) -> Vec<GoldenScene> {
    let scenes = names.iter().map(|name| GoldenScene {
        name: (*name).to_owned(),
        file: corpus().join(format!("{name}.toml")),
        golden: golden.join(format!("{name}.golden")),
        policies: policies.to_vec(),
    });
    scenes.collect()
}

fn builtin(names: &[&str]) -> Vec<Arc<dyn Policy>> {
    let catalog = Catalog::builtin();
    let policies = names.iter().map(|name| catalog.named(name).unwrap());
    policies.collect()
}

/// A policy with the name of `base` and one rule of it changed.
fn faulty(base: &str, change: &str) -> Arc<dyn Policy> {
    let text = format!("name = {base:?}\nbase = {base:?}\n[change]\n{change}\n");
    Catalog::builtin().from_toml(&text).unwrap()
}

#[test]
fn results_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let policies = builtin(&["v8", "upstream@6.9", "upstream@6.14", "naive", "none"]);
    let scenes = scenes(&["lazy", "denial", "migration"], &policies, folder.path());
    let blessed = bless(&scenes, 1, &|_, _| {}).unwrap();
    assert_eq!((blessed.written.len(), blessed.unchanged), (3, 0));
    let again = bless(&scenes, 3, &|_, _| {}).unwrap();
    assert_eq!((again.written.len(), again.unchanged), (0, 3));
    let whole = check(&scenes, 2, &|_| true, &|_, _| {}).unwrap();
    assert_eq!(whole.checked.len(), 15);
    let equal = |checked: &vlbr_scene::golden::SceneChecked| checked.verdict == SceneVerdict::Equal;
    assert!(whole.checked.iter().all(equal) && whole.stale.is_empty());
    let parts = [0, 1].map(|part| check(&scenes, 1, &|n| n % 2 == part, &|_, _| {}).unwrap());
    let of_parts = parts[0].checked.len() + parts[1].checked.len();
    assert!(of_parts == 15 && parts.iter().all(|part| part.checked.iter().all(equal)));
}

#[test]
fn a_changed_rule_is_told_with_scene_policy_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["lazy", "shortcut", "pinned"];
    let good = scenes(&names, &builtin(&["v8", "upstream@5.15"]), folder.path());
    bless(&good, 0, &|_, _| {}).unwrap();
    for (base, change, scene, row) in [
        ("v8", "release = \"never\"", "lazy", "vcpu0 LBR event"),
        ("v8", "release = \"every-slice\"", "lazy", "vcpu0 LBR event"),
        ("v8", "close-at-sched-in = false", "lazy", "vcpu0 LBR event"),
        ("v8", "entry-check = \"none\"", "pinned", "vcpu0 KVM"),
        ("v8", "entry-check = \"owned\"", "lazy", "vcpu0 LBR event"),
        ("v8", "denied = \"dummy\"", "pinned", "vcpu0 KVM"),
        (
            "upstream@5.15",
            "release = \"never\"",
            "lazy",
            "vcpu0 LBR event",
        ),
        (
            "upstream@5.15",
            "open = \"first-touch\"",
            "pinned",
            "vcpu1 KVM",
        ),
    ] {
        let policies = [faulty(base, change)];
        let faulty = scenes(&names, &policies, folder.path());
        let report = check(&faulty, 0, &|_| true, &|_, _| {}).unwrap();
        let differing = report.checked.iter().find_map(|checked| {
            let SceneVerdict::Differs { changes } = &checked.verdict else {
                return None;
            };
            Some((checked, changes))
        });
        let (checked, changes) = differing.unwrap_or_else(|| panic!("{base} {change}"));
        assert_eq!(checked.policy, base);
        assert_eq!(
            (&*checked.scene, &*changes[0].row),
            (scene, row),
            "{base} {change}"
        );
        assert_ne!(changes[0].old, changes[0].new);
    }
}

#[test]
fn what_has_no_result_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let both = builtin(&["v8", "naive"]);
    let reasons = |scenes: &[GoldenScene]| -> Vec<String> {
        let report = check(scenes, 0, &|_| true, &|_, _| {}).unwrap();
        let failed = report
            .checked
            .into_iter()
            .map(|checked| match checked.verdict {
                SceneVerdict::Failed { reason } => reason,
                other => format!("{other:?}"),
            });
        failed.chain(report.stale).collect()
    };
    let one = scenes(&["denial"], &both[..1], folder.path());
    assert_eq!(
        reasons(&one),
        ["denial.golden is missing; `corpus bless` writes it"]
    );
    bless(&one, 0, &|_, _| {}).unwrap();
    let two = scenes(&["denial"], &both, folder.path());
    assert_eq!(
        reasons(&two),
        [
            "Equal",
            "denial.golden has no section of it; `corpus bless` writes one"
        ]
    );
    bless(&two, 0, &|_, _| {}).unwrap();
    assert_eq!(
        reasons(&one),
        [
            "Equal",
            "denial.golden: the scene does not run under policy 'naive'"
        ]
    );
    std::fs::write(&one[0].golden, "== v8\nnothing\n").unwrap();
    assert_eq!(
        reasons(&one),
        ["denial.golden:2: is neither a section nor a row"]
    );
    let gone = scenes(&["there-is-none"], &both[..1], folder.path());
    assert!(reasons(&gone)[0].contains("there-is-none.toml"));
    assert!(bless(&gone, 0, &|_, _| {}).is_err());
}

#[test]
fn a_policy_that_cannot_run_a_scene_has_that_as_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = "name = \"bad\"\npart = \"sandy-bridge\"\ncpus = 1\nduration-us = 10\n\
                [[event]]\nevent = \"branches\"\ncpu = 0\nperiod = 100\nbranch-filter = \"stack,u\"\n";
    std::fs::write(&file, text).unwrap();
    let scene = GoldenScene {
        name: "bad".to_owned(),
        file,
        golden: folder.path().join("bad.golden"),
        policies: builtin(&["v8"]),
    };
    let blessed = bless(std::slice::from_ref(&scene), 0, &|_, _| {});
    blessed.unwrap();
    let text = std::fs::read_to_string(&scene.golden).unwrap();
    assert!(
        text.contains("does not run: event[0].branch-filter"),
        "{text}"
    );
}
