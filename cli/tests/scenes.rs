//! `vlbr vm` and `vlbr overhead`: what they print, and what they say of wrong scenes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const SCENE: &str = r#"name = "small"
part = "skylake-server"
cpus = 1
duration-us = 300

[scheduling]
slice-us = 60

[[vm]]
name = "a"

[[vcpu]]
vm = "a"
guest-perf = "br_inst_retired.near_taken:9000"

[vcpu.loop]

[vcpu.exits]
external-interrupt = 300

[[task]]
name = "kworker"
cpu = 0
every-us = 40
for-us = 5
"#;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlbr"));
    command.current_dir(folder).args(arguments);
    command.output().expect("the command starts")
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// The one line that a refusal prints.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("vlbr: "), "{text}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    text
}

fn folder(scene: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), scene).unwrap();
    folder
}

#[test]
fn a_wrong_scene_is_refused_with_what_and_where() {
    let cases = [
        (
            "vm = \"a\"",
            "vm = \"b\"",
            "vcpu[0].vm: there is no VM \"b\"",
        ),
        ("cpu = 0", "cpu = 3", "task[0].cpu: there is no cpu3"),
        ("cpus = 1\n", "cpus = 0\n", "cpus: 0 is not from 1 to 1024"),
        ("skylake-server", "skylark", "skylark"),
        ("slice-us", "slize-us", "slize-us"),
        ("[vcpu.loop]", "[vcpu.pool]", "pool"),
        (
            "near_taken:9000",
            "near_taken:x",
            "the period \"x\" is no number",
        ),
        ("near_taken:9000", "nonsense:9000", "nonsense"),
        (
            "cpus = 1\n",
            "cpus = 1\npolicy = \"best\"\n",
            "policy: there is no policy \"best\"; there are v8,",
        ),
        (
            "cpus = 1\n",
            "cpus = 1\ncost-model = \"gone.toml\"\n",
            "gone.toml: No such file",
        ),
        ("duration-us = 300", "", "duration-us: is needed"),
        (
            "cpus = 1\n",
            "cpus = 1\nkernel = \"new\"\npolicy = \"naive\"\n",
            "kernel: ",
        ),
    ];
    for (from, to, said) in cases {
        assert!(SCENE.contains(from), "{from}");
        let folder = folder(&SCENE.replacen(from, to, 1));
        let text = refused(folder.path(), &["vm", "s.toml"]);
        assert!(text.contains(said), "{to}: {text}");
        assert!(
            text.contains("s.toml") || text.contains("gone.toml"),
            "{to}: {text}"
        );
    }
}

#[test]
fn a_wrong_exit_of_a_scene_is_refused() {
    let exit = "[[vcpu.exit]]\nreason = \"MSR_WRITE\"\nper-million = 0.25\nsleep-us = 5\n";
    let good = SCENE.replace("\n[[task]]", &format!("\n{exit}\n[[task]]"));
    let folder = folder(&good);
    printed(folder.path(), &["vm", "s.toml"]);
    let cases = [
        (
            "MSR_WRITE",
            "npf",
            "vcpu[0].exit[0].reason: \"npf\" is no exit of VMX",
        ),
        (
            "0.25",
            "0.0",
            "vcpu[0].exit[0].per-million: 0 is not above 0",
        ),
        (
            "0.25",
            "nan",
            "vcpu[0].exit[0].per-million: NaN is not above 0",
        ),
        (
            "0.25",
            "500001.0",
            "vcpu[0].exit[0].per-million: 500001 is not above 0",
        ),
        (
            "sleep-us = 5",
            "sleep-us = 0",
            "vcpu[0].exit[0].sleep-us: is not from 1",
        ),
        (
            "sleep-us = 5",
            "sleeps-per-million = 1000001",
            "sleeps-per-million: more than a million",
        ),
        (
            "cpu = 0",
            "cpu = 0\nwhen = \"often\"",
            "unknown variant `often`",
        ),
        (
            "[vcpu.loop]",
            "migrations-per-million = 1000001\n[vcpu.loop]",
            "more than a million",
        ),
    ];
    for (from, to, said) in cases {
        assert!(good.contains(from), "{from}");
        fs::write(folder.path().join("s.toml"), good.replacen(from, to, 1)).unwrap();
        let text = refused(folder.path(), &["vm", "s.toml"]);
        assert!(text.contains(said), "{to}: {text}");
    }
}

#[test]
fn a_recording_becomes_a_scene_that_runs() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes/import");
    let folder = TempDir::new().unwrap();
    let import = |kind: &str, file: &str, out: &str| {
        let file = samples.join(file);
        let arguments = [
            "scene",
            "import",
            "--kind",
            kind,
            file.to_str().unwrap(),
            "-o",
            out,
        ];
        printed(
            folder.path(),
            &[&arguments[..], &["--format", "json"]].concat(),
        )
    };
    let json: serde_json::Value =
        serde_json::from_str(&import("auto", "perf-script.txt", "p.toml")).unwrap();
    import("trace-cmd", "trace-cmd.txt", "t.toml");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("p.toml"), read("t.toml"));
    assert_eq!(json["vcpus"].as_array().unwrap().len(), 3);
    let table = printed(folder.path(), &["vm", "p.toml", "--policy", "none"]);
    assert!(table.contains("scene imported: policy none"), "{table}");

    // What is wrong is said with file and line, and no scene is written.
    let wrong = read("p.toml");
    let file = samples.join("trace-cmd.txt");
    let file = file.to_str().unwrap();
    fs::write(folder.path().join("w.txt"), wrong).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["w.txt"], "w.txt: line 1: no processor, like [003]"),
        (&[file, "gone.txt"], "gone.txt: No such file"),
        (
            &[file, "--kind", "perf-script"],
            "a line of trace-cmd report, in a text of perf script",
        ),
        (&[file, "--part", "skylark"], "skylark"),
    ];
    for (arguments, said) in cases {
        let all = [&["scene", "import", "-o", "no.toml"], arguments].concat();
        let text = refused(folder.path(), &all);
        assert!(text.contains(said), "{text}");
        assert!(!folder.path().join("no.toml").exists());
    }
}

#[test]
fn a_missing_trace_is_named() {
    let scene = SCENE.replace("[vcpu.loop]", "").replace(
        "vm = \"a\"\nguest",
        "vm = \"a\"\ntrace = \"gone.vlt\"\nguest",
    );
    let folder = folder(&scene);
    for command in ["vm", "overhead"] {
        let text = refused(folder.path(), &[command, "s.toml"]);
        assert!(text.contains("s.toml: vcpu[0].trace: gone.vlt: "), "{text}");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = folder(SCENE);
    fs::write(
        folder.path().join("p.toml"),
        "name = \"x\"\nbase = \"v9\"\n",
    )
    .unwrap();
    let cases: [(&[&str], &str); 7] = [
        (
            &["vm", "s.toml", "--policy", "v9"],
            "there is no policy \"v9\"",
        ),
        (
            &["vm", "s.toml", "--policy-file", "p.toml"],
            "p.toml: there is no policy \"v9\"",
        ),
        (
            &["vm", "s.toml", "--policy-file", "q.toml"],
            "q.toml: No such file",
        ),
        (&["vm", "gone.toml"], "gone.toml: No such file"),
        (
            &["overhead", "s.toml", "--sweep", "part"],
            "is not KEY=RANGE",
        ),
        (
            &["overhead", "s.toml", "--sweep", "vcpu.exit.hlt=1,2"],
            "sweep vcpu.exit.hlt=1",
        ),
        (
            &["overhead", "s.toml", "--sweep", "event=maybe"],
            "takes on and off",
        ),
    ];
    for (arguments, said) in cases {
        let text = refused(folder.path(), arguments);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn a_violation_fails_the_run_if_the_scene_says_so() {
    // The host's samples hold the guest's branches: a leak of the naive policy.
    let event = "[[event]]\nevent = \"br_inst_retired.near_taken\"\nall-cpus = true\nperiod = 5000\nbranch-filter = \
                 \"any\"\n";
    let scene = format!("{SCENE}{event}");
    let reported = folder(&scene);
    let text = printed(reported.path(), &["vm", "s.toml", "--policy", "naive"]);
    assert!(text.contains("rule leak: "), "{text}");
    let failing = folder(&scene.replace("cpus = 1\n", "cpus = 1\non-violation = \"fail\"\n"));
    let text = refused(failing.path(), &["vm", "s.toml", "--policy", "naive"]);
    assert!(text.contains("s.toml: leak at input"), "{text}");
    let arguments = ["vm", "s.toml", "--policy", "naive", "--checks", "off"];
    assert!(printed(failing.path(), &arguments).contains("rules: not checked"));
}

#[test]
fn overhead_is_the_same_with_any_number_of_threads() {
    let folder = folder(SCENE);
    let arguments = |jobs| {
        [
            "overhead",
            "s.toml",
            "--policy",
            "v8,naive,msr-list",
            "--format",
            "json",
            "-j",
            jobs,
        ]
    };
    let one = printed(folder.path(), &arguments("1"));
    assert_eq!(one, printed(folder.path(), &arguments("2")));
    let json: serde_json::Value = serde_json::from_str(&one).unwrap();
    let rows = json["points"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let cycles = |n: usize| rows[n]["overhead"]["default"].as_i64().unwrap();
    assert!(cycles(0) > 0 && cycles(1) > 10 * cycles(0), "{one}");
    let digest = json["inputs"][0]["sha256"].as_str().unwrap();
    assert_eq!(digest.len(), 64);
}

#[test]
fn every_policy_has_a_row() {
    let folder = folder(SCENE);
    let text = printed(folder.path(), &["overhead", "s.toml"]);
    for policy in [
        "v8-as-posted",
        "upstream@6.16",
        "arch-xsaves",
        "mediated-swap",
        "mediated-lazy",
        "none",
        "ideal",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(policy)),
            "{policy}: {text}"
        );
    }
    assert!(text.contains("ranking: "), "{text}");
}

#[test]
fn mail_is_ascii_in_72_columns() {
    let folder = folder(&SCENE.replace("name = \"small\"", "name = \"caf\u{e9}\""));
    let sweep = "scheduling.slice-us=50..200*2";
    let arguments = ["overhead", "s.toml", "--sweep", sweep, "--format", "mail"];
    for arguments in [&arguments[..], &["overhead", "s.toml", "--format", "mail"]] {
        let text = printed(folder.path(), arguments);
        assert!(text.is_ascii());
        for line in text.lines() {
            assert!(line.len() <= 72, "{line}");
        }
        assert!(text.contains("vlbr overhead s.toml"), "{text}");
    }
}

#[test]
fn pictures_refer_to_nothing_outside() {
    let folder = folder(SCENE);
    for sweep in ["scheduling.slice-us=50..200*2", "part=haswell,skylake", ""] {
        let mut arguments = vec!["overhead", "s.toml", "--policy", "v8,naive", "-o", "o"];
        if !sweep.is_empty() {
            arguments.extend(["--sweep", sweep]);
        }
        arguments.extend(["--format", "svg"]);
        printed(folder.path(), &arguments);
        let svg = fs::read_to_string(folder.path().join("o")).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        assert!(svg.contains("naive"), "{svg}");
        *arguments.last_mut().unwrap() = "html";
        printed(folder.path(), &arguments);
        let html = fs::read_to_string(folder.path().join("o")).unwrap();
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(html.contains(&svg) && !outside.contains("http") && !html.contains("<script"));
    }
}

#[test]
fn a_period_of_guests_can_be_swept() {
    let folder = folder(&SCENE.replace("guest-perf = \"br_inst_retired.near_taken:9000\"\n", ""));
    let session = ["--guest-perf", "br_inst_retired.near_taken:9000"];
    let mut arguments = vec!["overhead", "s.toml", "--policy", "v8", "--format", "json"];
    arguments.extend(["--sweep", "guest-perf.period=3000..12000*2"]);
    let text = refused(folder.path(), &arguments);
    assert!(text.contains("no guest has a perf session"), "{text}");
    arguments.extend(session);
    let json: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &arguments)).unwrap();
    let d = |n: usize| {
        json["points"][n]["rows"][0]["letters"]["d"]
            .as_u64()
            .unwrap()
    };
    assert!(d(0) > d(1) && d(1) > d(2), "{json}");
}

#[test]
fn the_bundled_scenes_run() {
    let scenes: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "corpus", "scenes"]
        .iter()
        .collect();
    for name in ["loop.toml", "contention.toml", "imported.toml"] {
        let text = printed(&scenes, &["vm", name]);
        assert!(text.contains("guest samples compared"), "{text}");
    }
}
