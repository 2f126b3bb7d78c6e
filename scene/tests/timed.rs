//! Scenes with a timing model: what they refuse, and what comparisons are of.

use std::path::PathBuf;

use vlbr_cpu::ledger::CostModel;
use vlbr_host::policy::Catalog;
use vlbr_scene::report::{Overhead, OverheadOptions};
use vlbr_scene::{Scene, SceneFile, SceneTime, TimingChange};
use vlbr_timing::TimingModel;

fn text(part: &str, keys: &str) -> String {
    format!(
        "name = \"timed\"\npart = {part:?}\ncpus = 2\nmhz = 1000\nduration-us = 300\n{keys}\n\
         [scheduling]\nslice-us = 60\n[[vm]]\nname = \"a\"\n\
         [[vcpu]]\nvm = \"a\"\nloop = {{}}\ncpus = [0]\n\
         guest-perf = \"br_inst_retired.near_taken:5000\"\nexits = {{ external-interrupt = 80 }}\n\
         [[vcpu]]\nvm = \"a\"\nloop = {{ length = 9 }}\ncpus = [0]\n\
         exits = {{ hlt = 30, external-interrupt = 20 }}\n"
    )
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("scene.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn time(file: &SceneFile) -> Result<SceneTime, String> {
    let guests = file.guests(file.scene()).unwrap();
    SceneTime::of(file.scene(), &guests, CostModel::published()).map_err(|error| error.to_string())
}

fn overhead(file: &SceneFile, policies: &[&str]) -> Overhead {
    let catalog = Catalog::builtin();
    let policies = policies.iter().map(|name| catalog.named(name).unwrap());
    let options = OverheadOptions {
        policies: policies.collect(),
        model: CostModel::published(),
        scenes: None,
        key: None,
        jobs: 2,
    };
    Overhead::run(file, &options, &|_, _| {}).unwrap()
}

#[test]
fn policies_are_compared_at_equal_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &text("skylake-server", "timing = \"bound\""));
    let file = SceneFile::open(&path).unwrap();
    let result = overhead(&file, &["v8", "naive", "msr-list", "ideal"]);
    let rows = &result.points[0].rows;
    let time = |n: usize| rows[n].time.unwrap();
    for row in rows {
        let time = row.time.unwrap();
        // Steps are whole: a guest that is told to stop inside one ends behind it.
        assert!(
            time.instructions
                .abs_diff(rows[3].time.unwrap().instructions)
                < 20
        );
        let shares = time.shares;
        let ledger = shares.transitions + shares.lbr + shares.other;
        assert_eq!(
            i64::try_from(ledger),
            Ok(row.total.default),
            "{}",
            row.policy
        );
        assert_eq!(
            i64::try_from(shares.lbr),
            Ok(row.lbr.default),
            "{}",
            row.policy
        );
        // Every processor's clock was one of these; they end within a switch of each other or idle.
        assert_eq!(shares.total(), shares.busy() + shares.host + shares.idle);
    }
    assert_eq!(time(3).slowdown, Some(1.0));
    assert!(time(0).slowdown.unwrap() > 1.0);
    assert!(time(1).slowdown.unwrap() > 2.0 * time(0).slowdown.unwrap());
    // More time, not less work.
    assert!(time(1).shares.total() > time(0).shares.total());
    for part in ["block bound of skylake", "/instruction", "transitions"] {
        assert!(result.text().contains(part), "{part}: {}", result.text());
    }
    let json = serde_json::to_value(&result).unwrap();
    assert!(json["points"][0]["rows"][0]["time"]["guest"].as_u64() > Some(0));
}

#[test]
fn without_a_model_nothing_tells_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &text("skylake-server", "timing = \"scoreboard\""));
    let mut file = SceneFile::open(&path).unwrap();
    assert!(time(&file).unwrap().describe().is_some());
    let none = TimingChange {
        model: Some(TimingModel::None),
        ..TimingChange::default()
    };
    file.set_timing(none).unwrap();
    assert!(matches!(time(&file), Ok(SceneTime::Nominal)));
    let result = overhead(&file, &["v8"]);
    assert!(result.points[0].rows[0].time.is_none());
    assert!(result.text().contains("(no timing model)"));
    let json = serde_json::to_string(&result).unwrap();
    assert!(!json.contains("\"timing\"") && !json.contains("\"time\""));
}

#[test]
fn a_model_that_there_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (part, keys, said) in [
        (
            "nehalem",
            "timing = \"bound\"",
            "no timing model is known for 'nehalem'",
        ),
        (
            "skylake",
            "timing = \"scoreboard\"\nmicroarchitecture = \"486\"",
            "no microarchitecture \"486\"",
        ),
        (
            "skylake",
            "timing = \"scoreboard\"\npredictor = \"oracle\"",
            "no predictor is known for \"oracle\"",
        ),
        (
            "skylake",
            "timing = \"scoreboard\"\nmispredicts = \"recorded\"",
            "has recorded no misprediction",
        ),
        (
            "skylake",
            "timing = \"bound\"\npredictor = \"skylake\"",
            "--timing scoreboard only",
        ),
    ] {
        let path = file(&folder, &text(part, keys));
        let error = time(&SceneFile::open(&path).unwrap()).unwrap_err();
        assert!(
            error.starts_with("timing: ") && error.contains(said),
            "{error}"
        );
    }
    for (keys, said) in [
        (
            "microarchitecture = \"skylake\"",
            "microarchitecture: is given without",
        ),
        (
            "timing = \"none\"\npredictor = \"skylake\"",
            "predictor: is given without",
        ),
        (
            "timing = \"scoreboard\"\nmispredicts = \"recorded\"\npredictor = \"skylake\"",
            "predictor: is given, but",
        ),
        ("timing = \"exact\"", "unknown variant `exact`"),
    ] {
        let error = Scene::from_toml(&text("skylake", keys))
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
    }
}
