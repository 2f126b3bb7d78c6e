//! Checking a corpus against its golden results, and writing them.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vlbr_traces::export::{ExportError, OutputFile};

use super::compare::{Change, compare};
use super::config::{Corpus, CorpusTrace};
use super::error::CorpusError;
use super::golden::{self, Section};
use super::pool::{self, Done, Progress, shown};
use super::shard::Shard;

/// What became of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// As it was.
    Equal,
    /// Something changed; the most telling change first.
    Differs {
        /// The changes.
        changes: Vec<Change>,
    },
    /// There is no result: the trace is missing or damaged, the golden file is missing or
    /// damaged, or the hot loop and the device disagree.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Name of the trace.
    pub trace: String,
    /// Name of the configuration.
    pub configuration: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Every configuration of the shard, in the order of `corpus.toml`.
    pub checked: Vec<Checked>,
    /// Golden results that belong to nothing `corpus.toml` names. The first shard looks for them.
    pub stale: Vec<String>,
}

impl CheckReport {
    /// Whether everything is as it was.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.stale.is_empty() && self.failures().next().is_none()
    }

    /// The configurations that are not as they were.
    pub fn failures(&self) -> impl Iterator<Item = &Checked> {
        let failed = |checked: &&Checked| checked.verdict != Verdict::Equal;
        self.checked.iter().filter(failed)
    }
}

/// What was written by [`Corpus::bless`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blessed {
    /// Golden files that are new or changed.
    pub written: Vec<PathBuf>,
    /// Golden files that are as they were.
    pub unchanged: usize,
    /// Golden files of no trace, removed.
    pub removed: Vec<PathBuf>,
}

/// The golden sections of a trace, or why there are none.
type Golden = Result<Vec<(String, Section)>, String>;

impl Corpus {
    /// Runs the configurations of `shard` on `jobs` threads (0: all cores) and compares them with
    /// the golden results. The report depends on neither.
    ///
    /// # Errors
    /// Only what concerns the whole corpus; the rest is in the report.
    pub fn check(
        &self,
        jobs: usize,
        shard: Shard,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<CheckReport, CorpusError> {
        let list = pool::jobs(self, shard);
        let goldens: Vec<Golden> = self.traces.iter().map(|t| self.read_golden(t)).collect();
        let results = pool::run_all(self, &list, jobs, progress)?;
        let checked = list.iter().zip(results).map(|(&(trace, index), result)| {
            let golden = &goldens[trace];
            let trace = &self.traces[trace];
            let configuration = &trace.configurations[index];
            Checked {
                trace: trace.name.clone(),
                configuration: configuration.name.clone(),
                verdict: self.verdict(trace, &configuration.name, golden, result),
            }
        });
        let checked = checked.collect();
        let stale = if shard.is_first() {
            self.stale(&goldens)?
        } else {
            Vec::new()
        };
        Ok(CheckReport { checked, stale })
    }

    /// Runs everything on `jobs` threads (0: all cores) and writes the golden files that changed.
    /// Golden files of no trace are removed.
    ///
    /// # Errors
    /// A configuration gave no result, or a file cannot be written. Each file is whole or as it
    /// was.
    pub fn bless(
        &self,
        jobs: usize,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Blessed, CorpusError> {
        let list = pool::jobs(self, Shard::WHOLE);
        let results = pool::run_all(self, &list, jobs, progress)?;
        let mut texts: Vec<Vec<(&str, Section)>> = vec![Vec::new(); self.traces.len()];
        for (&(trace, index), result) in list.iter().zip(results) {
            let name = &self.traces[trace].configurations[index].name;
            let section = result.map_err(|reason| CorpusError::Unblessed {
                trace: self.traces[trace].name.clone(),
                configuration: name.clone(),
                reason,
            })?;
            texts[trace].push((name.as_str(), section));
        }
        let mut blessed = Blessed::default();
        for (trace, sections) in self.traces.iter().zip(&texts) {
            let sections = sections.iter().map(|(name, section)| (*name, section));
            let text = golden::write(&title(trace), sections);
            let path = self.golden_file(trace);
            if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
                blessed.unchanged += 1;
                continue;
            }
            write(&path, &text)?;
            blessed.written.push(path);
        }
        for path in self.stray_files()? {
            std::fs::remove_file(&path).map_err(|source| CorpusError::File {
                path: path.clone(),
                source,
            })?;
            blessed.removed.push(path);
        }
        Ok(blessed)
    }

    fn read_golden(&self, trace: &CorpusTrace) -> Golden {
        let path = self.golden_file(trace);
        let shown = shown(self, &path);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{shown} is missing; `corpus bless` writes it"));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        golden::read(&text).map_err(|bad| format!("{shown}:{}: {}", bad.line, bad.reason))
    }

    fn verdict(&self, trace: &CorpusTrace, name: &str, golden: &Golden, result: Done) -> Verdict {
        let failed = |reason: String| Verdict::Failed { reason };
        // A fault of the trace or the device is worse than a missing golden result.
        let new = match result {
            Ok(new) => new,
            Err(reason) => return failed(reason),
        };
        let sections = match golden {
            Ok(sections) => sections,
            Err(reason) => return failed(reason.clone()),
        };
        let Some((_, old)) = sections.iter().find(|(known, _)| known == name) else {
            let path = shown(self, &self.golden_file(trace));
            return failed(format!(
                "{path} has no section of it; `corpus bless` writes one"
            ));
        };
        let changes = compare(old, &new);
        if changes.is_empty() {
            Verdict::Equal
        } else {
            Verdict::Differs { changes }
        }
    }

    /// Sections of no configuration and files of no trace.
    fn stale(&self, goldens: &[Golden]) -> Result<Vec<String>, CorpusError> {
        let mut stale = Vec::new();
        for (trace, golden) in self.traces.iter().zip(goldens) {
            let known = |name: &String| trace.configurations.iter().any(|c| c.name == *name);
            let sections = golden.iter().flatten();
            for (name, _) in sections.filter(|(name, _)| !known(name)) {
                let path = shown(self, &self.golden_file(trace));
                stale.push(format!(
                    "{path}: corpus.toml no longer names '{name}' for this trace"
                ));
            }
        }
        for path in self.stray_files()? {
            let path = shown(self, &path);
            stale.push(format!(
                "{path}: corpus.toml names no such trace, scene or scenarios"
            ));
        }
        Ok(stale)
    }

    /// Golden files of nothing that `corpus.toml` names, by path.
    fn stray_files(&self) -> Result<BTreeSet<PathBuf>, CorpusError> {
        let traces = self.traces.iter().map(|trace| self.golden_file(trace));
        let scenes = self.scenes.iter();
        let scenes = scenes.map(|scene| self.golden_file_of_scene(scene));
        let scenarios = self.scenarios.iter();
        let scenarios = scenarios.map(|scenarios| self.golden_file_of_scenarios(scenarios));
        let known: BTreeSet<PathBuf> = traces.chain(scenes).chain(scenarios).collect();
        let mut stray = BTreeSet::new();
        if self.is_partial() {
            return Ok(stray);
        }
        let mut folders = vec![self.golden_dir()];
        while let Some(folder) = folders.pop() {
            let error = |source| CorpusError::File {
                path: folder.clone(),
                source,
            };
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(error(source)),
            };
            for entry in entries {
                let entry = entry.map_err(error)?;
                let path = entry.path();
                if entry.file_type().map_err(error)?.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "golden") && !known.contains(&path)
                {
                    stray.insert(path);
                }
            }
        }
        Ok(stray)
    }
}

fn title(trace: &CorpusTrace) -> String {
    let mut title = format!(
        "Golden results of {}, written by `vlbr corpus bless`: read the changes, do not edit.",
        trace.name
    );
    if let Some(command) = &trace.command {
        title.push_str(&format!("\nRecorded by: {command}"));
    }
    title
}

fn write(path: &Path, text: &str) -> Result<(), CorpusError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| CorpusError::File {
            path: folder.to_owned(),
            source,
        })?;
    }
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(ExportError::from)?;
    Ok(file.commit()?)
}
