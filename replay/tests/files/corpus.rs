//! A corpus passes after it was blessed, whatever the threads and shards, and a fault is found and
//! located.

use std::fs;
use std::path::{Path, PathBuf};

use vlbr_replay::corpus::{CheckReport, Checked, Corpus, CorpusError, Shard, Verdict};
use vlbr_traces::synthetic::SyntheticConfig;

use crate::synthetic::Recipe;

const CONFIG: &str = "\
profiles = ['nehalem', 'haswell', 'sapphire-rapids']
filters = ['any,u,k,hw_index', 'any_call,u', { branches = 'stack,u', event = 'instructions:u' }]
event = 'branches'
period = 61
device_instructions = 20000

[[trace]]
name = 'one'
command = 'made up'

[[trace]]
name = 'sub/two'
file = 'two.vlt'
skip = ['nehalem any_call,u']
";

/// A corpus folder.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Recipe::with_seed(3).write(&dir.path().join("one.vlt"));
        let two = Recipe {
            config: SyntheticConfig {
                threads: 2,
                ..SyntheticConfig::with_seed(4)
            },
            ..Recipe::with_seed(0)
        };
        two.write(&dir.path().join("two.vlt"));
        let folder = Self { dir };
        folder.describe(CONFIG);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn describe(&self, text: &str) {
        fs::write(self.path("corpus.toml"), text).unwrap();
    }

    fn corpus(&self) -> Corpus {
        Corpus::open(self.dir.path()).unwrap()
    }

    fn bless(&self) {
        self.corpus().bless(2, &|_| ()).unwrap();
    }

    fn check(&self) -> CheckReport {
        self.corpus().check(2, Shard::WHOLE, &|_| ()).unwrap()
    }
}

/// The one configuration that did not pass.
fn only_failure(report: &CheckReport) -> &Checked {
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures[0]
}

fn reason(checked: &Checked) -> &str {
    match &checked.verdict {
        Verdict::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_blessed_passes_and_is_not_written_again() {
    let folder = Folder::new();
    let blessed = folder.corpus().bless(1, &|_| ()).unwrap();
    assert_eq!(blessed.written.len(), 2);
    let golden = fs::read_to_string(folder.path("golden/one.golden")).unwrap();
    assert!(golden.contains("\n== haswell stack,u -e instructions:u\n"));
    assert!(golden.contains("Recorded by: made up"));
    assert!(golden.contains("refused EOPNOTSUPP: nehalem has no LBR call-stack mode"));
    assert!(golden.contains("synthetic+"), "addresses by file");
    let report = folder.check();
    assert!(report.passed(), "{report:?}");
    assert_eq!(report.checked.len(), 17);
    let again = folder.corpus().bless(2, &|_| ()).unwrap();
    assert_eq!((again.written.len(), again.unchanged), (0, 2));
}

#[test]
fn every_configuration_that_runs_was_compared_with_the_device() {
    let folder = Folder::new();
    folder.bless();
    for file in ["golden/one.golden", "golden/sub/two.golden"] {
        let golden = fs::read_to_string(folder.path(file)).unwrap();
        let number = |line: &str, key: &str| line.strip_prefix(key)?.parse::<u64>().ok();
        let numbers =
            |key: &str| -> Vec<u64> { golden.lines().filter_map(|l| number(l, key)).collect() };
        let (samples, device) = (numbers("samples "), numbers("device "));
        assert_eq!(samples.len(), device.len());
        assert!(samples.len() >= 7);
        for (samples, device) in samples.iter().zip(&device) {
            assert!(device * 10 > *samples, "{device} of {samples} in {file}");
            assert!(*device > 5, "{device} in {file}");
        }
    }
}

#[test]
fn neither_threads_nor_shards_change_a_result() {
    let folder = Folder::new();
    folder.bless();
    folder.describe(&CONFIG.replace("period = 61", "period = 67"));
    let whole = folder.check();
    assert!(!whole.passed());
    for jobs in [1, 3] {
        let report = folder.corpus().check(jobs, Shard::WHOLE, &|_| ()).unwrap();
        assert_eq!(report, whole, "{jobs} jobs");
    }
    let mut parts = Vec::new();
    for index in 1..=3 {
        let shard: Shard = format!("{index}/3").parse().unwrap();
        let report = folder.corpus().check(2, shard, &|_| ()).unwrap();
        parts.push(report.checked);
    }
    let mut union = Vec::new();
    for row in 0..parts[0].len() {
        union.extend(parts.iter().filter_map(|part| part.get(row).cloned()));
    }
    assert_eq!(union, whole.checked);
}

#[test]
fn a_changed_digit_anywhere_in_a_golden_file_is_found_and_named() {
    let folder = Folder::new();
    folder.bless();
    let path = folder.path("golden/sub/two.golden");
    let golden = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = golden.lines().collect();
    let section = lines
        .iter()
        .position(|line| *line == "== haswell any,u,k,hw_index")
        .unwrap();
    let end = section
        + 1
        + lines[section + 1..]
            .iter()
            .position(|l| l.is_empty())
            .unwrap();
    let mut names = Vec::new();
    for number in section + 1..end {
        let Some(at) = lines[number].rfind(|c: char| c.is_ascii_digit()) else {
            continue;
        };
        let key = lines[number].split(' ').next().unwrap();
        // Every line costs a check of the whole corpus: of the entries some will do.
        let entry = lines[number].contains(" > ") && number % 16 != 0;
        if entry || ["edges", "segments-of"].contains(&key) {
            continue;
        }
        let mut changed = lines[number].to_owned();
        let digit = if &changed[at..=at] == "1" { "2" } else { "1" };
        changed.replace_range(at..=at, digit);
        let mut all: Vec<&str> = lines.clone();
        all[number] = &changed;
        fs::write(&path, all.join("\n")).unwrap();
        let report = folder.check();
        let failure = only_failure(&report);
        assert_eq!(failure.trace, "sub/two");
        assert_eq!(failure.configuration, "haswell any,u,k,hw_index");
        let Verdict::Differs { changes } = &failure.verdict else {
            panic!("{}: {failure:?}", lines[number]);
        };
        names.push(changes[0].what.clone());
    }
    for expected in [
        "register",
        "pushes",
        "samples 48 to 63",
        "stack of sample 0",
        "hottest edge",
    ] {
        assert!(
            names.iter().any(|name| name.starts_with(expected)),
            "{expected}: {names:?}"
        );
    }
}

#[test]
fn a_fault_of_the_device_is_found_in_the_configurations_it_concerns() {
    let folder = Folder::new();
    folder.bless();
    // A pop that leaves its slot: only call stacks of the legacy LBR can tell.
    folder.describe(&format!(
        "options = {{ pops_clear_slots = false }}\n{CONFIG}"
    ));
    let report = folder.check();
    let mut sampled = 0;
    for failure in report.failures() {
        assert_eq!(failure.configuration, "haswell stack,u -e instructions:u");
        let Verdict::Differs { changes } = &failure.verdict else {
            panic!("{failure:?}");
        };
        let named = |what: &str| changes.iter().any(|change| change.what.starts_with(what));
        assert!(named("device with made-up flags"), "{changes:?}");
        sampled += usize::from(named("samples ") && named("entries"));
    }
    // In one of the traces a sampled stack is short enough to tell.
    assert_eq!((report.failures().count(), sampled), (2, 1));
    // A processor whose filter register means something else.
    folder.describe(
        &CONFIG
            .replace("'nehalem', ", "'other.toml', ")
            .replace("skip", "#"),
    );
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lbr/profiles/sandy-bridge.toml"
    ));
    let text = text
        .unwrap()
        .replace("name = \"sandy-bridge\"", "name = \"nehalem\"");
    let aliases = text.lines().filter(|line| !line.starts_with("aliases"));
    let text: Vec<&str> = aliases.collect();
    fs::write(folder.path("other.toml"), text.join("\n")).unwrap();
    let report = folder.check();
    let failure = report
        .failures()
        .find(|failure| failure.configuration == "nehalem any_call,u")
        .unwrap();
    let Verdict::Differs { changes } = &failure.verdict else {
        panic!("{failure:?}");
    };
    assert_eq!(changes[0].what, "register");
    assert_eq!(changes[0].old, "MSR_LBR_SELECT=0x25");
    assert_eq!(changes[0].new, "MSR_LBR_SELECT=0xe5");
}

#[test]
fn missing_and_stale_files_are_named() {
    let folder = Folder::new();
    let report = folder.check();
    assert_eq!(report.failures().count(), 17);
    assert!(reason(&report.checked[0]).contains("golden/one.golden is missing"));
    folder.bless();

    folder.describe(
        &CONFIG
            .replace("'haswell', ", "")
            .replace("'any_call,u'", "'cond,u'")
            .replace("skip", "#"),
    );
    let report = folder.check();
    let stale: Vec<_> = report
        .stale
        .iter()
        .filter(|s| s.contains("'haswell "))
        .collect();
    assert_eq!(stale.len(), 6, "{:?}", report.stale);
    let missing = report
        .failures()
        .find(|f| f.configuration == "nehalem cond,u");
    assert!(reason(missing.unwrap()).contains("has no section"));
    let second: Shard = "2/2".parse().unwrap();
    let report = folder.corpus().check(1, second, &|_| ()).unwrap();
    assert!(report.stale.is_empty(), "the first shard tells");

    folder.describe(CONFIG);
    fs::write(folder.path("golden/sub/gone.golden"), "").unwrap();
    let report = folder.check();
    assert_eq!(
        report.stale,
        ["golden/sub/gone.golden: corpus.toml names no such trace, scene or scenarios"]
    );
    assert!(!report.passed());
    let blessed = folder.corpus().bless(1, &|_| ()).unwrap();
    assert_eq!(blessed.removed, [folder.path("golden/sub/gone.golden")]);

    fs::write(folder.path("golden/one.golden"), "== x\nbad\n").unwrap();
    let report = folder.check();
    assert!(reason(&report.checked[0]).starts_with("golden/one.golden:2: 'bad'"));
}

#[test]
fn a_missing_or_damaged_trace_fails_its_configurations_only_and_is_not_blessed() {
    let folder = Folder::new();
    folder.bless();
    let path = folder.path("two.vlt");
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (change, expected) in [(Some(damaged), "offset"), (None, "No such file")] {
        match change {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let report = folder.check();
        assert_eq!(report.failures().count(), 8);
        for failure in report.failures() {
            assert_eq!(failure.trace, "sub/two");
            let reason = reason(failure);
            assert!(
                reason.contains("two.vlt") && reason.contains(expected),
                "{reason}"
            );
        }
        let before = fs::read(folder.path("golden/sub/two.golden")).unwrap();
        let error = folder.corpus().bless(1, &|_| ()).unwrap_err();
        assert!(matches!(error, CorpusError::Unblessed { .. }), "{error}");
        assert_eq!(
            fs::read(folder.path("golden/sub/two.golden")).unwrap(),
            before
        );
    }
}

#[test]
fn a_region_that_is_not_reached_is_an_error_of_its_trace() {
    let folder = Folder::new();
    let with = |line: &str| CONFIG.replace("command = 'made up'", line);
    for (line, expected) in [
        ("from = 'no_such_symbol'", "no symbol \"no_such_symbol\""),
        ("from = '0x1'", "control never reaches \"0x1\""),
    ] {
        folder.describe(&with(line));
        let report = folder.check();
        assert!(reason(&report.checked[0]).contains(expected), "{report:?}");
    }
}

#[test]
fn there_must_be_a_description() {
    let error = Corpus::open(Path::new("/absent")).unwrap_err();
    assert!(error.to_string().starts_with("/absent/corpus.toml: "));
}
