//! What is read of `corpus.toml`, and what is refused.

use super::*;

fn read(text: &str) -> Result<Corpus, String> {
    let reader = Reader {
        dir: Path::new("dir"),
        path: Path::new("corpus.toml"),
        text,
    };
    reader.read().map_err(|error| error.to_string())
}

const GOOD: &str = "\
profiles = ['skylake', 'sandy-bridge']
filters = ['any,u', { branches = 'stack,u', event = 'instructions:u', period = 101 }]
period = 997

[[trace]]
name = 'gpl/boot'
filters = ['any,u,k']
options = { callstack_saturate = true }
skip = ['sandy-bridge']

[[trace]]
name = 'lua'
file = 'other.vlt'
licence = 'MIT'
";

#[test]
fn defaults_and_overrides() {
    let corpus = read(GOOD).unwrap();
    let names = |trace: usize| {
        let list = corpus.traces[trace].configurations.iter();
        list.map(|c| c.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["skylake any,u,k"]);
    let stack = "stack,u -e instructions:u -c 101";
    assert_eq!(
        names(1),
        [
            "skylake any,u",
            &format!("skylake {stack}"),
            "sandy-bridge any,u",
            &format!("sandy-bridge {stack}"),
        ]
    );
    let saturates = |trace: usize| {
        let configurations = &corpus.traces[trace].configurations;
        configurations[0].device.callstack_saturate
    };
    assert!(saturates(0) && !saturates(1));
    assert_eq!(corpus.traces[0].file, Path::new("dir/gpl/boot.vlt"));
    assert_eq!(corpus.traces[1].file, Path::new("dir/other.vlt"));
    let periods = corpus.traces[1].configurations.iter();
    let periods: Vec<_> = periods.map(|c| c.period.unwrap().get()).collect();
    assert_eq!(periods, [997, 101, 997, 101]);
}

#[test]
fn a_corpus_may_have_scenes_alone() {
    let text = "policies = ['mine']\npolicy_files = ['mine.toml']\n[[scene]]\nname = 'loop'\n\
                [[scene]]\nname = 'b'\nfile = '../b.toml'\npolicies = ['v8']\n";
    let corpus = read(text).unwrap();
    let [a, b] = &corpus.scenes[..] else {
        panic!("{:?}", corpus.scenes);
    };
    assert_eq!(a.file, Path::new("dir/scenes/loop.toml"));
    assert_eq!(a.policies.as_deref(), Some(&["mine".to_owned()][..]));
    let golden = corpus.golden_file_of_scene(a);
    assert_eq!(golden, Path::new("dir/golden/scenes/loop.golden"));
    assert_eq!(b.file, Path::new("dir/../b.toml"));
    assert_eq!(b.policies.as_deref(), Some(&["v8".to_owned()][..]));
    assert_eq!(corpus.policy_files, [Path::new("dir/mine.toml")]);
    for (text, line, reason) in [
        (
            "period = 1\n",
            1,
            "no [[trace]], no [[scene]] and no [[scenarios]]",
        ),
        ("[[scene]]\nname = '../x'\n", 2, "is no name"),
        (
            "[[scene]]\nname = 'a'\n[[scene]]\nname = 'a'\n",
            4,
            "a second scene",
        ),
    ] {
        let error = read(text).unwrap_err();
        let place = format!("corpus.toml:{line}: ");
        assert!(
            error.starts_with(&place) && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn a_corpus_may_have_scenarios_alone() {
    let text = "[[scenarios]]\nname = 'rules'\npaths = ['../found', 'a/1-b.scn']\n";
    let corpus = read(text).unwrap();
    let [rules] = &corpus.scenarios[..] else {
        panic!("{:?}", corpus.scenarios);
    };
    assert_eq!(rules.paths[0].0, "../found");
    assert_eq!(rules.paths[0].1, Path::new("dir/../found"));
    assert_eq!(rules.paths[1].1, Path::new("dir/a/1-b.scn"));
    let golden = corpus.golden_file_of_scenarios(rules);
    assert_eq!(golden, Path::new("dir/golden/scenarios/rules.golden"));
    for (from, to, line, reason) in [
        ("'rules'", "'../rules'", 2, "is no name"),
        ("'../found', 'a/1-b.scn'", "", 2, "name no path"),
        ("../found", "/found", 3, "is no path from the folder"),
        ("../found", "", 3, "is no path from the folder"),
        ("paths", "path", 3, "unknown field `path`"),
    ] {
        let error = read(&text.replace(from, to)).unwrap_err();
        let place = format!("corpus.toml:{line}: ");
        assert!(
            error.starts_with(&place) && error.contains(reason),
            "{error}"
        );
    }
    let error = read(&format!("{text}{text}")).unwrap_err();
    assert!(error.contains("second scenarios are named \"rules\""));
}

#[test]
fn errors_name_file_and_line() {
    for (change, with, line, reason) in [
        ("period = 997", "perod = 997", 3, "unknown field `perod`"),
        ("period = 997", "period = 0", 3, "nonzero"),
        ("'any,u',", "'any,w',", 2, "unknown branch filter \"w\""),
        ("period = 101", "perid = 101", 2, "unknown field `perid`"),
        ("instructions:u", "cyclops", 2, "no event \"cyclops\""),
        ("'skylake'", "'skylark'", 1, "skylark"),
        ("'skylake'", "'absent.toml'", 1, "absent.toml"),
        (
            "['sandy-bridge']\n",
            "['haswell']\n",
            9,
            "\"haswell\" skips nothing",
        ),
        ("gpl/boot", "../boot", 6, "is no name"),
        ("'lua'", "'gpl/boot'", 12, "a second trace"),
        ("saturate", "sature", 8, "unknown field `callstack_sature`"),
        ("licence", "license", 14, "unknown field `license`"),
    ] {
        let error = read(&GOOD.replacen(change, with, 1)).unwrap_err();
        assert!(
            error.starts_with(&format!("corpus.toml:{line}: ")) && error.contains(reason),
            "{with}: {error}"
        );
    }
}
