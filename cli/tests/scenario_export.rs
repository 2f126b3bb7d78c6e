//! `vlbr scenario export` through the command itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn scenarios(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    root.join(name)
}

fn export(paths: &[&Path], output: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(["scenario", "export"])
        .args(paths)
        .arg("-o")
        .arg(output)
        .args(more)
        .output()
        .expect("the command runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn cases_are_written_once_and_overwritten_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("suite.jsonl");
    let area = scenarios("ler");
    let output = export(&[&area], &file, &["--cpu", "skylake", "--cpu", "nhm"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(&file).expect("written");
    assert!(text.starts_with("{\"kind\":\"header\""));
    assert!(text.contains("/skylake\"") && text.contains("/nehalem\""));
    assert!(!text.contains("/haswell\""));

    let output = export(&[&area], &file, &["--cpu", "haswell"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("suite.jsonl: exists; -f overwrites it"));
    assert_eq!(fs::read_to_string(&file).expect("there"), text);

    let output = export(&[&area], &file, &["--cpu", "haswell", "-f"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        fs::read_to_string(&file)
            .expect("there")
            .contains("/haswell\"")
    );
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn nothing_is_left_of_an_export_that_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("110-wrong.scn");
    let good = fs::read_to_string(scenarios("arch/500-cpuid-depths.scn")).expect("a scenario");
    fs::write(
        &wrong,
        good.replace("area: arch", "area: insertion")
            .replace(" = ", " = 1+"),
    )
    .expect("written");
    let arch = scenarios("arch/500-cpuid-depths.scn");
    let file = folder.path().join("suite.jsonl");
    for (paths, more, why) in [
        (vec![arch.as_path(), &wrong], vec![], "110-wrong.scn:"),
        (
            vec![arch.as_path()],
            vec!["--cpu", "nehalem"],
            "no scenario concerns",
        ),
        (vec![arch.as_path()], vec!["--cpu", "z80"], "z80"),
        (vec![Path::new("/nonexistent.scn")], vec![], "nonexistent"),
    ] {
        let output = export(&paths, &file, &more);
        assert!(!output.status.success(), "{why}");
        let said = said(&output);
        assert!(said.contains(why), "{said}");
        assert_eq!(entries(folder.path()), 1, "{why}");
    }
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).expect("linked");
    for path in [Path::new("/dev/null"), &link] {
        let output = export(&[&arch], path, &["-f"]);
        assert!(said(&output).contains("not a regular file"));
    }
    assert!(link.is_symlink());
    let case = folder.path().join("499-name.scn");
    fs::write(&case, "a scenario").expect("written");
    for path in [folder.path(), &case] {
        let output = export(&[path], &case, &["-f"]);
        assert!(said(&output).contains("is one of the scenarios"));
    }
    assert_eq!(fs::read(&case).expect("there"), b"a scenario");
}
