//! Whatever the command is given, it ends with one clear line and a status that is not zero, and
//! leaves no half-written file.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

fn vlbr(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn run<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Output {
    let output = vlbr(folder).args(arguments).output();
    output.expect("the command starts")
}

/// The one line that a refusal prints.
fn refused<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .collect();
    let output = run(folder, &arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("vlbr: "), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    text
}

/// A trace of some thousand instructions.
const SHORT: &str = "stepped.vlt";
/// A trace of several threads and millions of instructions.
const LONG: &str = "threads.vlt";

/// A trace of the bundled corpus.
fn bundled(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "corpus", name]
        .iter()
        .collect()
}

/// A folder with a trace as `t.vlt`.
fn folder(trace: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::copy(bundled(trace), folder.path().join("t.vlt")).expect("the corpus has this trace");
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed");
    let mut names: Vec<_> = entries
        .map(|entry| {
            let name = entry.expect("listed").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn damaged_traces_are_named_by_offset_and_leave_no_output() {
    let folder = folder(SHORT);
    let path = folder.path();
    let whole = fs::read(bundled(SHORT)).expect("read");
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 0x10;
    let mut version = whole.clone();
    version[8] ^= 0xff;
    let mut magic = whole.clone();
    magic[1] = b'X';
    let twice = [whole.clone(), whole.clone()].concat();
    let cases: [(&str, &[u8]); 8] = [
        ("empty", &[]),
        ("start", &whole[..20]),
        ("half", &whole[..middle]),
        ("last byte", &whole[..whole.len() - 1]),
        ("flipped", &flipped),
        ("version", &version),
        ("magic", &magic),
        ("twice", &twice),
    ];
    for (name, bytes) in cases {
        fs::write(path.join("bad"), bytes).expect("written");
        for arguments in [
            &["info", "bad"][..],
            &["replay", "bad", "-b"],
            &["replay", "bad", "-b", "-o", "out"],
            &["replay", "bad", "-b", "--format", "json", "-o", "out"],
            &["convert", "bad", "out"],
        ] {
            let text = refused(path, arguments);
            let placed = text.contains("bad: offset 0x") || text.contains("bad: line ");
            assert!(placed, "{name}: {text}");
        }
        assert_eq!(names(path), ["bad", "t.vlt"], "{name}");
    }
    fs::write(path.join("bad"), &whole[..whole.len() - 1]).expect("written");
    let output = run(path, ["replay", "--salvage", "-b", "bad"]);
    assert!(output.status.success(), "what lies before it is replayed");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = folder(SHORT);
    let path = folder.path();
    mkfifo(&path.join("pipe.toml"), Mode::S_IRWXU).expect("pipe");
    fs::create_dir(path.join("folder.toml")).expect("folder");
    std::os::unix::fs::symlink("/dev/zero", path.join("zeros.toml")).expect("link");
    std::os::unix::fs::symlink("loop.toml", path.join("loop.toml")).expect("link");
    for bad in [
        "pipe.toml",
        "folder.toml",
        "zeros.toml",
        "loop.toml",
        "none",
    ] {
        let start = Instant::now();
        for arguments in [
            &["info", bad][..],
            &["replay", bad, "-b"],
            &["convert", bad, "out"],
            &["diff", "t.vlt", bad],
            &["explain", bad, "--binary", "t.vlt"],
            &["replay", "t.vlt", "--options", bad],
            &["corpus", "check", bad],
        ] {
            let text = refused(path, arguments);
            assert!(text.contains(bad), "{text}");
        }
        let output = run(path, ["scenario", "run", bad]);
        assert_eq!(output.status.code(), Some(1), "{bad}");
        assert!(start.elapsed() < 10 * SECOND, "{bad}");
    }
}

#[test]
fn toml_is_refused_on_one_line_with_its_place() {
    let folder = folder(SHORT);
    let path = folder.path();
    let long = format!("\na = {}", "1".repeat(500_000));
    let nested = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, line) in [
        ("= =\n", 1),
        ("\n\nnonsense = 1\n", 3),
        (&long, 2),
        (&nested, 1),
    ] {
        fs::write(path.join("bad.toml"), text).expect("written");
        for option in ["--options", "--cpu"] {
            let text = refused(path, ["replay", "t.vlt", option, "bad.toml"]);
            // What is missing in a profile is said of its first line.
            let placed = text.contains(&format!(": line {line}, column ")) || option == "--cpu";
            assert!(placed && text.contains("line "), "{text}");
            assert!(text.len() < 1100, "{} bytes", text.len());
        }
    }
    fs::write(
        path.join("bad.toml"),
        "skid = 1\nskid_unit = \"core-cycles\"",
    )
    .expect("written");
    let text = refused(path, ["replay", "t.vlt", "--pmu-options", "bad.toml"]);
    assert!(text.contains("with --timing or --clock"), "{text}");
    fs::write(path.join("bad.toml"), vec![b' '; 2 << 20]).expect("written");
    let text = refused(path, ["replay", "t.vlt", "--options", "bad.toml"]);
    assert!(text.contains("longer than"), "{text}");
}

#[test]
fn any_number_of_threads_gives_the_same_and_nonsense_is_refused() {
    let folder = folder(LONG);
    let path = folder.path();
    let arguments = |jobs| {
        [
            "replay",
            "t.vlt",
            "-b",
            "--format",
            "perf-script",
            "--jobs",
            jobs,
        ]
    };
    let one = run(path, arguments("1"));
    let start = Instant::now();
    let many = run(path, arguments("18446744073709551615"));
    assert!(start.elapsed() < 10 * SECOND);
    assert!(one.status.success() && many.status.success());
    assert!(!one.stdout.is_empty() && one.stdout == many.stdout);
    for arguments in [
        &["replay", "t.vlt", "-e", "nonsense"][..],
        &["replay", "t.vlt", "-e", "two\nlines"],
        &["replay", "t.vlt", "-j", "any,nonsense"],
        &["replay", "t.vlt", "--cpu", "nonsense"],
        &["replay", "t.vlt", "-b", "--from", "nonsense"],
        &["diff", "t.vlt", "t.vlt", "--at-least=nan"],
        &["corpus", "check", ".", "--shard", "0/0"],
    ] {
        refused(path, arguments);
    }
    let name = OsStr::from_bytes(b"\xff\xfe");
    let bytes = [
        OsStr::new("replay"),
        OsStr::new("t.vlt"),
        OsStr::new("-o"),
        name,
    ];
    assert!(
        run(path, bytes).status.success(),
        "a name that is not UTF-8"
    );
}

#[test]
fn a_full_disk_and_a_size_limit_leave_nothing_behind() {
    let folder = folder(LONG);
    let path = folder.path();
    let limited = |arguments: &str| {
        // In blocks of 512 bytes.
        let script = format!("ulimit -f 1; exec \"$0\" {arguments}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_vlbr")]);
        command.current_dir(path).output().expect("sh starts")
    };
    for arguments in [
        "replay t.vlt -b -c 100 -o out",
        "replay t.vlt -b -c 100 --format json -o out",
        "replay t.vlt -b -c 100 --format perf-script -o out",
        "convert --level 1 t.vlt out",
    ] {
        let output = limited(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments}: {text}");
        assert_eq!(names(path), ["t.vlt"], "{arguments}");
    }
    for format in ["perf-script", "json", "bolt-exact"] {
        let arguments = [
            "replay",
            "t.vlt",
            "-b",
            "--format",
            format,
            "-o",
            "/dev/full",
        ];
        refused(path, arguments);
    }
    for arguments in [
        &["replay", "t.vlt", "-b", "-o", "none/out"][..],
        &["convert", "t.vlt", "none/out"],
        &["convert", "t.vlt", "t.vlt"],
    ] {
        refused(path, arguments);
    }
    assert_eq!(names(path), ["t.vlt"]);
}

#[test]
fn the_input_and_devices_are_not_replaced() {
    let folder = folder(SHORT);
    let path = folder.path();
    std::os::unix::fs::symlink("t.vlt", path.join("link")).expect("link");
    for output in ["t.vlt", "./t.vlt", "link"] {
        let text = refused(path, ["replay", "t.vlt", "-b", "-o", output]);
        assert!(text.contains("is the trace itself"), "{text}");
    }
    assert_eq!(
        fs::read(path.join("t.vlt")).expect("read"),
        fs::read(bundled(SHORT)).expect("read")
    );
    std::os::unix::fs::symlink("/proc/self/fd/1", path.join("open")).expect("link");
    for arguments in [
        ["replay", "t.vlt", "-o", "open"],
        ["convert", "-f", "t.vlt", "open"],
    ] {
        let text = refused(path, arguments);
        assert!(text.contains("open: not a regular file"), "{text}");
        assert!(path.join("open").is_symlink());
    }
    mkfifo(&path.join("pipe"), Mode::S_IRWXU).expect("pipe");
    refused(path, ["convert", "-f", "t.vlt", "pipe"]);
    refused(
        path,
        [
            "record", "--engine", "ptrace", "-f", "-o", "pipe", "--", "true",
        ],
    );
    let kind = fs::metadata(path.join("pipe"))
        .expect("still there")
        .file_type();
    assert!(kind.is_fifo());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = folder(LONG);
    for arguments in [
        "info t.vlt",
        "replay t.vlt -b",
        "replay t.vlt -b -c 10 --format perf-script -o -",
        "replay t.vlt -b -c 10 --format json -o -",
    ] {
        let script = format!("{{ \"$0\" {arguments}; echo $? >&2; }} | head -c 1 >/dev/null");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_vlbr")]);
        let output = command.current_dir(folder.path()).output().expect("sh");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(last, "0", "{arguments}: {text}");
        assert!(!text.contains("pipe"), "{arguments}: {text}");
    }
}

#[test]
fn programs_that_cannot_run_are_refused_by_every_engine_and_leave_no_trace() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    let write = |name: &str, bytes: &[u8], mode| {
        fs::write(path.join(name), bytes).expect("written");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).expect("mode");
    };
    let own = fs::read(env!("CARGO_BIN_EXE_vlbr")).expect("read");
    let mut other = own[..4096].to_vec();
    other[18] = 0xb7;
    write("not-executable", &own[..4096], 0o644);
    write("cut", &own[..100], 0o755);
    write("aarch64", &other, 0o755);
    write("empty", &[], 0o755);
    write("text", b"echo hello\n", 0o755);
    write("interpreter", b"#!/nonexistent/interpreter\n", 0o755);
    write("old.vlt", b"kept", 0o644);
    let before = names(path);
    for engine in ["auto", "qemu", "ptrace"] {
        for program in [
            "./none",
            "./not-executable",
            "./cut",
            "./aarch64",
            "./empty",
            "./text",
            "./interpreter",
            ".",
        ] {
            for output in [&["-o", "new.vlt"][..], &["-f", "-o", "old.vlt"]] {
                let options = ["record", "--engine", engine];
                let options = options.iter().chain(output);
                refused(path, options.chain(&["--", program]));
            }
        }
    }
    assert_eq!(names(path), before);
    assert_eq!(fs::read(path.join("old.vlt")).expect("read"), b"kept");
}

/// Engines that can record here: ptrace may be forbidden, QEMU or its plugin may be missing.
fn engines() -> &'static [&'static str] {
    static ENGINES: OnceLock<Vec<&str>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        support::build_plugin(Path::new(env!("CARGO_BIN_EXE_vlbr")));
        let folder = tempfile::tempdir().expect("folder");
        let works = |engine: &&str| {
            let arguments = ["record", "--engine", engine, "-o", engine, "--", "true"];
            let output = run(folder.path(), arguments);
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(
                    std::env::var_os("CI").is_none_or(|value| value != "true"),
                    "{engine} must work in CI: {text}"
                );
                eprintln!("skipped, {engine} does not work here: {text}");
            }
            output.status.success()
        };
        ["qemu", "ptrace"].into_iter().filter(works).collect()
    })
}

#[test]
fn a_recording_that_is_interrupted_is_whole_up_to_there() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    for &engine in engines() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut recorder = vlbr(path);
            recorder.args(["record", "--engine", engine, "-f", "-o", "cut.vlt", "--"]);
            recorder.args(["sh", "-c", "while :; do :; done"]);
            let mut recorder = recorder.stderr(Stdio::null()).spawn().expect("started");
            std::thread::sleep(SECOND / 2);
            kill(Pid::from_raw(recorder.id() as i32), signal).expect("sent");
            let status = recorder.wait().expect("waited for");
            assert_eq!(status.code(), Some(130), "{engine} {signal}");
            let output = run(path, ["replay", "-b", "cut.vlt"]);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{engine} {signal}: {text}");
        }
    }
}

#[test]
fn a_program_that_dies_by_a_signal_is_recorded_and_its_status_passed_on() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    for &engine in engines() {
        let cases = [
            ("kill -SEGV $$", 139),
            ("kill -KILL $$", 137),
            ("exit 7", 7),
        ];
        // Stepping a shell takes seconds.
        let cases = if engine == "ptrace" {
            &cases[..1]
        } else {
            &cases
        };
        for &(script, status) in cases {
            let arguments = ["record", "--engine", engine, "-f", "-o", "d.vlt", "--"];
            let output = run(path, arguments.iter().chain(&["sh", "-c", script]));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.code(),
                Some(status),
                "{engine} {script}: {text}"
            );
            assert!(run(path, ["info", "d.vlt"]).status.success(), "{engine}");
        }
    }
}
