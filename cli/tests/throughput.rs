//! `vlbr throughput`

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn vlbr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command
        .arg("throughput")
        .args(arguments)
        .current_dir(folder);
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = vlbr(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let arguments = [arguments, &["--format", "json"]].concat();
    serde_json::from_str(&printed(folder, &arguments)).expect("JSON")
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = vlbr(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    text
}

#[test]
fn hexadecimal_is_taken_from_the_line_a_file_and_standard_input() {
    let folder = tempfile::tempdir().expect("folder");
    let expected = printed(folder.path(), &["480fafc3"]);
    assert!(
        expected.starts_with("3.00 cycles per iteration on skylake"),
        "{expected}"
    );
    fs::write(folder.path().join("block"), "48 0f af c3\n").expect("written");
    assert_eq!(printed(folder.path(), &["block"]), expected);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(["throughput", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"\\x48\\x0f\\xaf\\xc3").expect("taken");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn the_example_of_the_documentation_is_what_is_printed() {
    let page = include_str!("../../docs/throughput.md");
    let (_, example) = page
        .split_once("```console\n$ vlbr throughput ")
        .expect("an example");
    let (argument, rest) = example.split_once('\n').expect("with output");
    let (expected, _) = rest.split_once("```").expect("that ends");
    let folder = tempfile::tempdir().expect("folder");
    let text = printed(folder.path(), &[argument]);
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn processors_are_called_as_elsewhere() {
    let folder = tempfile::tempdir().expect("folder");
    for (cpu, core) in [("skylake-server", "skylake"), ("HSX", "haswell")] {
        let report = json(folder.path(), &["90", "--cpu", cpu]);
        assert_eq!(report[0]["core"], core);
        assert_eq!(report[0]["basis"], "fitted to measurements");
    }
    let listed = printed(folder.path(), &["--cpu", "list"]);
    assert!(
        listed.contains("haswell      fitted to measurements"),
        "{listed}"
    );
}

#[test]
fn a_function_of_an_elf_file_is_a_block() {
    let folder = tempfile::tempdir().expect("folder");
    let program = env!("CARGO_BIN_EXE_vlbr");
    let whole = json(folder.path(), &[&format!("{program}:main")]);
    let start = whole[0]["address"].as_u64().expect("address");
    let bytes = whole[0]["bytes"].as_u64().expect("bytes");
    let (start, stop) = (format!("{start:#x}"), format!("{:x}", start + bytes));
    let range = json(
        folder.path(),
        &[program, "--start", &start, "--stop", &stop],
    );
    assert_eq!(range[0]["cycles"], whole[0]["cycles"]);
    assert_eq!(range[0]["instructions"], whole[0]["instructions"]);
    let again = json(
        folder.path(),
        &[program, "--start", "main", "--stop", &stop],
    );
    assert_eq!(again[0]["bytes"], whole[0]["bytes"]);
    for (arguments, reason) in [
        (&[program][..], "which part?"),
        (&[program, "--start", "no_such_symbol"], "no symbol"),
        (&[program, "--start", "0x1"], "give --stop"),
        (
            &[program, "--start", "main", "--stop", "main"],
            "lies not behind",
        ),
        (
            &[program, "--start", "0x1", "--stop", "0x2"],
            "no code of 1 bytes",
        ),
        (
            &[program, "--start", "0", "--stop", "ffffffff"],
            "more than",
        ),
    ] {
        let message = refused(folder.path(), arguments);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn object_files_and_code_of_other_processors_are_told_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let program = fs::read(env!("CARGO_BIN_EXE_vlbr")).expect("read");
    let mut arm = program[..4096.min(program.len())].to_vec();
    // Headers that name no sections, of EM_AARCH64.
    arm[18] = 183;
    arm[40..48].fill(0);
    arm[58..64].fill(0);
    fs::write(path("arm"), arm).expect("written");
    let message = refused(folder.path(), &["arm:main"]);
    assert!(message.contains("arm: no 64-bit x86 code"), "{message}");
    let assembler = |input: &str, output: &str| {
        fs::write(path("block.s"), input).expect("written");
        let mut command = Command::new("as");
        command.args(["--64", "-o", output, "block.s"]);
        command.current_dir(folder.path()).status()
    };
    let text = "nop\n.globl f\nf: imul %rbx, %rax\n.type f,@function\n.size f, .-f\nret\n";
    match assembler(text, "block.o") {
        Ok(status) => assert!(status.success()),
        Err(_) => return eprintln!("skipped: no `as`"),
    }
    let report = json(folder.path(), &["block.o:f"]);
    assert_eq!(report[0]["cycles"], 3.0);
    assert_eq!(
        (&report[0]["address"], &report[0]["bytes"]),
        (&1.into(), &4.into())
    );
    for (arguments, reason) in [
        (&["block.o:g"][..], "block.o: no symbol \"g\" in its code"),
        (
            &["block.o", "--start", "f", "--stop", "5"],
            "block.o: is not linked",
        ),
    ] {
        let message = refused(folder.path(), arguments);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn assembly_text_goes_through_the_assembler() {
    if Command::new("as").arg("--version").output().is_err() {
        eprintln!("skipped: no `as`");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    fs::write(
        folder.path().join("loop.s"),
        ".intel_syntax noprefix\n# LLVM-MCA-BEGIN sum\n1: add rax, [rdi]\nadd rdi, 8\ncmp rdi, rsi\n\
         jne 1b\n# LLVM-MCA-END\nret\n",
    )
    .expect("written");
    let report = json(folder.path(), &["loop.s", "--loop"]);
    assert_eq!(report[0]["name"], "sum");
    assert_eq!(report[0]["repetition"], "loop");
    assert_eq!(report[0]["instructions"].as_array().map(Vec::len), Some(4));
    fs::write(folder.path().join("bad.s"), "nop\nfrobnicate %rax\n").expect("written");
    let message = refused(folder.path(), &["bad.s"]);
    assert!(
        message.contains("bad.s: line 2: no such instruction"),
        "{message}"
    );
    // No assembler: PATH leads nowhere.
    let output = Command::new(env!("CARGO_BIN_EXE_vlbr"))
        .args(["throughput", "loop.s"])
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .output()
        .expect("it starts");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && message.contains("no assembler"),
        "{message}"
    );
}

#[test]
fn a_loop_is_delivered_by_what_can_hold_it() {
    let folder = tempfile::tempdir().expect("folder");
    // Seven NOPs of four bytes, one of two, and a jump that ends at byte 32.
    let code = format!("{}6690ebe0", "0f1f4000".repeat(7));
    let parts = |arguments: &[&str]| -> Vec<String> {
        let report = json(folder.path(), arguments);
        let rows = report[0]["bounds"].as_array().expect("rows").clone();
        rows.iter()
            .map(|row| row["part"].as_str().expect("a name").to_owned())
            .collect()
    };
    let cached = parts(&[&code, "--loop"]);
    assert!(cached.contains(&"uop-cache".to_owned()), "{cached:?}");
    let mended = parts(&[&code, "--loop", "--jcc-erratum"]);
    assert!(!mended.contains(&"uop-cache".to_owned()), "{mended:?}");
    assert!(mended.contains(&"decode".to_owned()), "{mended:?}");
    let text = printed(folder.path(), &[&code, "--loop", "--cpu", "haswell"]);
    assert!(
        text.contains("9 uops in the loop queue, which holds 3 copies"),
        "{text}"
    );
}

#[test]
fn measured_blocks_are_scored_and_predictions_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(
        path("blocks.csv"),
        "hex,cycles\n480fafc3,3\n480fafc3,6\n4801d8,1\n",
    )
    .expect("written");
    let report = json(
        folder.path(),
        &["blocks.csv", "--worst", "1", "-o", "out.csv"],
    );
    assert_eq!(report["blocks"], 3);
    let mape = report["score"]["mape"].as_f64().expect("a number");
    assert!((mape - 0.5 / 3.0).abs() < 1e-9, "{mape}");
    assert_eq!(report["worst"][0]["line"], 3);
    assert_eq!(report["worst"].as_array().map(Vec::len), Some(1));
    let written = fs::read_to_string(path("out.csv")).expect("written");
    assert_eq!(written, "hex,cycles\n480fafc3,3\n480fafc3,3\n4801d8,1\n");
    // What is there stays without -f.
    assert!(refused(folder.path(), &["blocks.csv", "-o", "out.csv"]).contains("-f overwrites"));
    let message = refused(folder.path(), &["out.csv", "-f", "-o", "out.csv"]);
    assert!(message.contains("is the input"), "{message}");
    // Without measurements the predictions are the output.
    fs::write(path("hex.csv"), "480fafc3\n4801d8\n").expect("written");
    let text = printed(folder.path(), &["hex.csv"]);
    assert_eq!(text, "hex,cycles\n480fafc3,3\n4801d8,1\n");
    let report = json(folder.path(), &["hex.csv"]);
    let rows = report["predictions"].as_array().expect("predictions");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[1]["hex"], &rows[1]["cycles"]),
        (&"4801d8".into(), &1.0.into())
    );
    assert_eq!(rows[1]["binds"], "dependence");
    assert_eq!(rows[1]["line"], 2);
    // One row has no order.
    fs::write(path("one.csv"), "480fafc3,4\n").expect("written");
    let report = json(folder.path(), &["one.csv"]);
    assert!(report["score"]["kendall_tau"].is_null());
    let text = printed(folder.path(), &["one.csv"]);
    assert!(text.starts_with("1 block on skylake"), "{text}");
    assert!(text.contains("Kendall's tau  -\n"), "{text}");
}

#[test]
fn bad_lines_are_named_by_file_and_line_and_write_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    for (content, reason) in [
        (
            "hex,cycles\n90,1\n9x,1\n",
            "bad.csv:3: character 2 is no hexadecimal digit",
        ),
        ("90,1\n06,1\n", "bad.csv:2: no instruction at offset 0"),
        (
            "90,1\n90,many\n",
            "bad.csv:2: \"many\" is no number of cycles",
        ),
        ("", "bad.csv:1: no block"),
    ] {
        fs::write(folder.path().join("bad.csv"), content).expect("written");
        let message = refused(folder.path(), &["bad.csv", "-o", "out.csv"]);
        assert!(message.contains(reason), "{message}");
        assert!(!folder.path().join("out.csv").exists());
    }
    for (arguments, reason) in [
        (&["48x"][..], "neither a file nor code in hexadecimal"),
        (&["06"], "no instruction at offset 0"),
        (
            &["90", "--cpu", "nehalem"],
            "no timing model of \"nehalem\"",
        ),
        (&["90", "--start", "main"], "no such file"),
        (&["/dev/zero"], "not a regular file"),
        (&["-", "--start", "main"], "--start is for ELF files"),
        (&["90", "-o", "-"], "-o needs a file"),
        (&["90", "--worst", "3"], "no measured cycles"),
        (
            &["90", "--loop", "--jcc-erratum", "--cpu", "haswell"],
            "haswell does not have it",
        ),
    ] {
        let message = refused(folder.path(), arguments);
        assert!(message.contains(reason), "{message}");
    }
}
