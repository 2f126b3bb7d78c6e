//! `vlbr msr list`

use std::process::{Command, Output};

fn vlbr(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(arguments)
        .output()
        .unwrap()
}

fn listed(arguments: &[&str]) -> String {
    let output = vlbr(&[&["msr", "list"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn registers_are_listed_by_number_name_and_range() {
    let all = listed(&["--cpu", "skylake"]);
    assert!(all.contains("0x1c8   MSR_LBR_SELECT"), "{all}");
    assert!(
        all.contains("0x38e   IA32_PERF_GLOBAL_STATUS        PMU   ro "),
        "{all}"
    );
    let some = listed(&["--cpu", "skl", "0x680-0x69f", "IA32_DEBUGCTL", "0x38f"]);
    assert_eq!(some.lines().count(), 1 + 32 + 2, "{some}");
    let json = listed(&[
        "--cpu",
        "skylake",
        "IA32_PERF_GLOBAL_CTRL",
        "--format",
        "json",
    ]);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[0]["reset"], "0xf");
    assert_eq!(rows[0]["reserved"], "0xfffffff8fffffff0");
    assert_eq!(rows[0]["owner"], "PMU");
}

#[test]
fn what_is_not_there_is_refused() {
    for (arguments, reason) in [
        (["--cpu", "skylark", "0x1d9"], "vlbr list shows them"),
        (
            ["--cpu", "skylake", "0x14ce"],
            "skylake has no register 0x14ce",
        ),
        (["--cpu", "skylake", "IA32_NONE"], "no register is named"),
        (["--cpu", "skylake", "0x6-0x5"], "lies above the last"),
    ] {
        let output = vlbr(&[&["msr", "list"], &arguments[..]].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(message.contains(reason), "{message}");
    }
}
