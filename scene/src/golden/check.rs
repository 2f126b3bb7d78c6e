//! Checking scenes against their golden results, and writing them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use vlbr_host::machine::Checking;
use vlbr_host::policy::Policy;
use vlbr_traces::export::{ExportError, OutputFile};

use super::file;
use super::section::{self, Row, Section};
use super::watch::Watch;
use crate::simulation::Simulation;
use crate::{GuestSource, OnViolation, Scene, SceneError, SceneFile, SceneTime};

/// Most threads that are asked for.
const MOST_THREADS: usize = 256;

/// A scene, the policies it runs under, and where its golden results are.
#[derive(Clone, Debug)]
pub struct GoldenScene {
    /// Its name.
    pub name: String,
    /// The scene.
    pub file: PathBuf,
    /// The golden file.
    pub golden: PathBuf,
    /// The policies, in the order of the golden file.
    pub policies: Vec<Arc<dyn Policy>>,
}

/// A row that changed. The side that lacks it has `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowChange {
    /// Its key.
    pub row: String,
    /// As it was.
    pub old: String,
    /// As it is.
    pub new: String,
}

/// What became of a scene under a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum SceneVerdict {
    /// As it was.
    Equal,
    /// Rows changed, in their order.
    Differs {
        /// The changes.
        changes: Vec<RowChange>,
    },
    /// There is no result: the scene cannot be read, the golden file is missing or damaged.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A scene that was checked under a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SceneChecked {
    /// The scene.
    pub scene: String,
    /// The policy.
    pub policy: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: SceneVerdict,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GoldenReport {
    /// Every scene under every policy that was chosen, in order.
    pub checked: Vec<SceneChecked>,
    /// Sections of policies that the scene does not run under.
    pub stale: Vec<String>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GoldenBlessed {
    /// Golden files that are new or changed.
    pub written: Vec<PathBuf>,
    /// How many are as they were.
    pub unchanged: usize,
}

/// Why golden results cannot be checked or written at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// No threads can be had.
    #[error("starting threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A scene gave no result, so nothing was written.
    #[error("nothing written: scene {scene}: {reason}")]
    Unblessed {
        /// The scene.
        scene: String,
        /// Why.
        reason: String,
    },
    /// A folder cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The file system's reason.
        source: io::Error,
    },
    /// A golden file cannot be written.
    #[error(transparent)]
    Write(#[from] ExportError),
}

/// A scene with its guests. Whatever its file says, a broken rule is a result and ends nothing.
struct Open {
    scene: Scene,
    guests: Vec<GuestSource>,
    time: SceneTime,
}

fn open(described: &GoldenScene) -> Result<Open, SceneError> {
    let file = SceneFile::open(&described.file)?;
    let guests = file.guests(file.scene())?;
    let mut scene = file.scene().clone();
    scene.on_violation = OnViolation::Report;
    let time = SceneTime::of(&scene, &guests, &file.cost_model(None)?)?;
    Ok(Open {
        scene,
        guests,
        time,
    })
}

/// A policy that a scene does not run under has a result too: why.
fn run(open: &Open, policy: &Arc<dyn Policy>) -> Section {
    let rows = || {
        let simulation =
            Simulation::new(&open.scene, &open.guests, &open.time, policy, Checking::On)?;
        let mut watch = Watch::default();
        let outcome = simulation.observed(&mut |run| watch.look(run))?;
        Ok::<_, SceneError>(section::of(&outcome, &watch))
    };
    rows().unwrap_or_else(|error| vec![Row::new("does not run", &error.to_string())])
}

/// Number of a scene and of one of its policies.
type Job = (usize, usize);

fn run_all(
    scenes: &[GoldenScene],
    jobs: &[Job],
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Result<Section, String>>, GoldenError> {
    let wanted = |n: usize| jobs.iter().any(|(scene, _)| *scene == n);
    let opened = scenes.iter().enumerate();
    let opened: Vec<Option<Result<Open, String>>> = opened
        .map(|(n, scene)| wanted(n).then(|| open(scene).map_err(|error| error.to_string())))
        .collect();
    let done = AtomicUsize::new(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.min(MOST_THREADS));
    Ok(pool.build()?.install(|| {
        let results = jobs.par_iter().with_max_len(1).map(|&(scene, policy)| {
            let result = match &opened[scene] {
                Some(Ok(open)) => Ok(run(open, &scenes[scene].policies[policy])),
                Some(Err(reason)) => Err(reason.clone()),
                None => Err("was not opened".to_owned()),
            };
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
            result
        });
        results.collect()
    }))
}

fn jobs(scenes: &[GoldenScene], chosen: &dyn Fn(usize) -> bool) -> Vec<Job> {
    let all = scenes.iter().enumerate();
    let all = all.flat_map(|(n, scene)| (0..scene.policies.len()).map(move |policy| (n, policy)));
    let all = all.enumerate().filter(|(number, _)| chosen(*number));
    all.map(|(_, job)| job).collect()
}

/// Runs scenes on `threads` threads (0: all cores) and compares them with their golden results.
/// `chosen` takes a part of them: scenes under policies are numbered from 0. The report does not
/// depend on threads. Sections of no policy are looked for if `chosen` takes number 0.
///
/// # Errors
/// No threads can be had; the rest is in the report.
pub fn check(
    scenes: &[GoldenScene],
    threads: usize,
    chosen: &dyn Fn(usize) -> bool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<GoldenReport, GoldenError> {
    let jobs = jobs(scenes, chosen);
    let goldens: Vec<_> = scenes.iter().map(read).collect();
    let results = run_all(scenes, &jobs, threads, progress)?;
    let mut report = GoldenReport::default();
    for (&(n, policy), new) in jobs.iter().zip(results) {
        let (scene, name) = (&scenes[n], scenes[n].policies[policy].name());
        report.checked.push(SceneChecked {
            scene: scene.name.clone(),
            policy: name.to_owned(),
            verdict: verdict(scene, name, &goldens[n], new),
        });
    }
    if chosen(0) {
        for (scene, golden) in scenes.iter().zip(&goldens) {
            let known = |name: &String| scene.policies.iter().any(|p| p.name() == *name);
            for (name, _) in golden.iter().flatten().filter(|(name, _)| !known(name)) {
                let path = shown(scene);
                report.stale.push(format!(
                    "{path}: the scene does not run under policy '{name}'"
                ));
            }
        }
    }
    Ok(report)
}

/// Runs every scene under every policy and writes the golden files that changed.
///
/// # Errors
/// A scene cannot be run, or a file cannot be written. Each file is whole or as it was.
pub fn bless(
    scenes: &[GoldenScene],
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<GoldenBlessed, GoldenError> {
    let jobs = jobs(scenes, &|_| true);
    let results = run_all(scenes, &jobs, threads, progress)?;
    let mut sections: Vec<Vec<(String, Section)>> = scenes.iter().map(|_| Vec::new()).collect();
    for (&(n, policy), result) in jobs.iter().zip(results) {
        let rows = result.map_err(|reason| GoldenError::Unblessed {
            scene: scenes[n].name.clone(),
            reason,
        })?;
        sections[n].push((scenes[n].policies[policy].name().to_owned(), rows));
    }
    let mut blessed = GoldenBlessed::default();
    for (scene, sections) in scenes.iter().zip(&sections) {
        let text = file::write(&scene.name, sections);
        if std::fs::read_to_string(&scene.golden).is_ok_and(|old| old == text) {
            blessed.unchanged += 1;
            continue;
        }
        write(&scene.golden, &text)?;
        blessed.written.push(scene.golden.clone());
    }
    Ok(blessed)
}

fn write(path: &Path, text: &str) -> Result<(), GoldenError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| GoldenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(ExportError::from)?;
    Ok(file.commit()?)
}

/// The golden sections of a scene, or why there are none.
type Golden = Result<Vec<(String, Section)>, String>;

fn shown(scene: &GoldenScene) -> String {
    let name = scene.golden.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn read(scene: &GoldenScene) -> Golden {
    let path = shown(scene);
    let text = match std::fs::read_to_string(&scene.golden) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("{path} is missing; `corpus bless` writes it"));
        }
        Err(error) => return Err(format!("{path}: {error}")),
    };
    file::read(&text).map_err(|(line, reason)| format!("{path}:{line}: {reason}"))
}

fn verdict(
    scene: &GoldenScene,
    policy: &str,
    golden: &Golden,
    new: Result<Section, String>,
) -> SceneVerdict {
    let failed = |reason| SceneVerdict::Failed { reason };
    let new = match new {
        Ok(new) => new,
        Err(reason) => return failed(reason),
    };
    let sections = match golden {
        Ok(sections) => sections,
        Err(reason) => return failed(reason.clone()),
    };
    let Some((_, old)) = sections.iter().find(|(known, _)| known == policy) else {
        let path = shown(scene);
        return failed(format!(
            "{path} has no section of it; `corpus bless` writes one"
        ));
    };
    let changes = compare(old, &new);
    match changes.is_empty() {
        true => SceneVerdict::Equal,
        false => SceneVerdict::Differs { changes },
    }
}

/// Rows that differ, in the order of the new ones; then those that are gone, and the digest.
fn compare(old: &Section, new: &Section) -> Vec<RowChange> {
    let value = |rows: &Section, key: &str| {
        let row = rows.iter().find(|row| row.key == key);
        row.map_or_else(|| "-".to_owned(), |row| row.value.clone())
    };
    let gone = old.iter().filter(|row| value(new, &row.key) == "-");
    let keys = new.iter().chain(gone).map(|row| &row.key);
    let changes = keys.map(|key| RowChange {
        row: key.clone(),
        old: value(old, key),
        new: value(new, key),
    });
    let changes = changes.filter(|change| change.old != change.new);
    let mut changes: Vec<RowChange> = changes.collect();
    // A digest tells that, not what.
    changes.sort_by_key(|change| change.row == section::EVERY_REGISTER);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_by_key() {
        let rows = |rows: &[(&str, &str)]| -> Section {
            rows.iter()
                .map(|(key, value)| Row::new(key, value))
                .collect()
        };
        let old = rows(&[("a", "1"), ("gone", "2"), ("b", "3")]);
        let new = rows(&[("a", "1"), ("b", "4"), ("new", "5")]);
        let change = |row: &str, old: &str, new: &str| RowChange {
            row: row.to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
        };
        let expected = [
            change("b", "3", "4"),
            change("new", "-", "5"),
            change("gone", "2", "-"),
        ];
        assert_eq!(compare(&old, &new), expected);
        assert_eq!(compare(&old, &old), []);
    }
}
