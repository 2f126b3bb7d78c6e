//! `vlbr gen`: what it writes the other commands read, and it replaces nothing unasked.

use std::path::Path;
use std::process::{Command, Output};

fn vlbr(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(arguments)
        .output()
        .expect("vlbr runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_generated_guest_is_read_by_info_stat_replay_and_fitted_again() {
    let folder = tempfile::tempdir().expect("folder");
    let trace = folder.path().join("guest.vlt");
    let trace = trace.to_str().expect("path");
    let spec = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../corpus/gen/kernel-build.toml"
    );
    let made = ["gen", spec, "-o", trace, "--instructions", "200000"];
    assert!(vlbr(&made).status.success());
    for command in ["info", "stat", "replay"] {
        let out = vlbr(&[command, trace]);
        assert!(out.status.success(), "{command}: {}", text(&out.stderr));
        assert!(text(&out.stdout).contains("kernel-build"), "{command}");
    }
    assert!(text(&vlbr(&["info", trace]).stdout).contains("spec sha256"));
    let refused = vlbr(&made);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("exists; -f overwrites it"));
    let fitted = vlbr(&["gen", "--like", trace, "--print-spec"]);
    let like = folder.path().join("like.toml");
    std::fs::write(&like, &fitted.stdout).expect("written");
    let like = like.to_str().expect("path");
    assert!(vlbr(&["gen", like, "-o", trace, "-f"]).status.success());
    let rows = vlbr(&["gen", "--like", trace, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&rows.stdout).expect("JSON");
    assert!(rows["rows"].as_array().is_some_and(|rows| rows.len() > 30));
}

#[test]
fn a_wrong_spec_is_one_line_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("wrong.toml"), "name = 'x'\ninstructions = 5000\n").expect("written");
    let out = vlbr(&["gen", &path("wrong.toml"), "-o", &path("guest.vlt")]);
    assert!(!out.status.success());
    let said = text(&out.stderr);
    assert!(
        said.contains("wrong.toml: user: neither user nor kernel code"),
        "{said}"
    );
    assert_eq!(said.trim_end().lines().count(), 1);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(left.len(), 1);
    assert!(Path::new(&path("wrong.toml")).exists());
}

#[test]
fn the_guests_of_the_bundled_scenes_are_what_their_specs_make() {
    let folder = tempfile::tempdir().expect("folder");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for name in ["kernel-build", "lbr-user"] {
        let spec = corpus.join("gen").join(name).with_extension("toml");
        let made = folder.path().join(name);
        let (spec, made) = (spec.to_str().expect("path"), made.to_str().expect("path"));
        assert!(vlbr(&["gen", spec, "-o", made]).status.success());
        let bundled = corpus.join("scenes/gen").join(name).with_extension("vlt");
        let read = |path: &Path| std::fs::read(path).expect("read");
        assert!(read(Path::new(made)) == read(&bundled), "{name}");
    }
}
