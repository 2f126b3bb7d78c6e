//! Folders of scenarios against golden results: one line for each file, in order, that says where it runs,
//! that it passes, and a digest of its text.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use vlbr_host::policy::Catalog;
use vlbr_traces::export::{ExportError, OutputFile};

use crate::{DiscoverError, Scenario, discover, load_with, run_scenario};

/// Bytes of a SHA-256 that a line has: enough to see a change, not to withstand an attack.
const DIGEST: usize = 8;

/// Folders of scenarios, and where their golden results are.
#[derive(Clone, Debug)]
pub struct GoldenScenarios {
    /// Its name.
    pub name: String,
    /// Folders, or files, each as messages name it and where it is.
    pub paths: Vec<(String, PathBuf)>,
    /// The golden file.
    pub golden: PathBuf,
    /// Policies that files may name.
    pub catalog: Catalog,
}

/// A file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldenFile {
    /// As messages and golden results name it.
    pub name: String,
    path: PathBuf,
}

/// What a golden line says of a file, beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Processors, and policies if of a host.
    runs: String,
    result: String,
    digest: String,
}

/// Something that changed. The side that lacks it has `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineChange {
    /// What.
    pub what: &'static str,
    /// As it was.
    pub old: String,
    /// As it is.
    pub new: String,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoldenVerdict {
    /// It passes as it did.
    Equal,
    /// It passes, but is another.
    Differs(Vec<LineChange>),
    /// It fails, or has no golden line: why.
    Failed(String),
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoldenReport {
    /// Every file that was chosen, in order.
    pub checked: Vec<(String, GoldenVerdict)>,
    /// Golden lines of files that are not there.
    pub stale: Vec<String>,
}

/// Why golden results cannot be checked or written at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// A folder cannot be searched, or is empty.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// Two paths lead to files of one name.
    #[error("scenarios {scenarios}: {file} is named twice")]
    Twice {
        /// The folders' name.
        scenarios: String,
        /// The file.
        file: String,
    },
    /// A file does not pass, so nothing was written.
    #[error("nothing written: {file}: {reason}")]
    Unblessed {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The golden file's folder cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The file system's reason.
        source: io::Error,
    },
    /// The golden file cannot be written.
    #[error(transparent)]
    Write(#[from] ExportError),
}

impl GoldenScenarios {
    /// The files, path by path, those of a folder by name.
    ///
    /// # Errors
    /// A path cannot be searched or holds no scenario, or a file has the name of another.
    pub fn files(&self) -> Result<Vec<GoldenFile>, GoldenError> {
        let mut files = Vec::new();
        let mut names = BTreeSet::new();
        for (shown, path) in &self.paths {
            for file in discover(&[path])? {
                let below = file.strip_prefix(path).unwrap_or(Path::new(""));
                let name = match below.as_os_str().is_empty() {
                    true => shown.clone(),
                    false => format!("{}/{}", shown.trim_end_matches('/'), below.display()),
                };
                let name = name.escape_debug().to_string();
                if !names.insert(name.clone()) {
                    return Err(GoldenError::Twice {
                        scenarios: self.name.clone(),
                        file: name,
                    });
                }
                files.push(GoldenFile { name, path: file });
            }
        }
        Ok(files)
    }

    /// Runs `files` (those of [`GoldenScenarios::files`] that are chosen) and compares them with the golden
    /// results; `all`, if given, has every file, to tell which golden lines have none. `progress` is told of
    /// each file that is done.
    #[must_use]
    pub fn check(
        &self,
        files: &[GoldenFile],
        all: Option<&[GoldenFile]>,
        progress: &dyn Fn(),
    ) -> GoldenReport {
        let golden = self.read();
        let mut report = GoldenReport::default();
        for file in files {
            let verdict = self.verdict(file, &golden);
            report.checked.push((file.name.clone(), verdict));
            progress();
        }
        let known: BTreeSet<&str> = all.iter().copied().flatten().map(|f| &*f.name).collect();
        if let (Ok(lines), Some(_)) = (&golden, all) {
            let gone = lines.iter().filter(|(name, _)| !known.contains(&**name));
            let golden = self.shown();
            let stale = gone.map(|(name, _)| format!("{golden}: there is no file {name} any more"));
            report.stale = stale.collect();
        }
        report
    }

    /// Runs every file and writes the golden file if it changes. Whether it did.
    ///
    /// # Errors
    /// A file does not pass, or the golden file cannot be written; it is whole or as it was.
    pub fn bless(&self, files: &[GoldenFile], progress: &dyn Fn()) -> Result<bool, GoldenError> {
        let mut text = format!(
            "# Golden results of {}, written by `vlbr corpus bless`: read the changes, do not edit.\n",
            self.name
        );
        for file in files {
            let line = self.line(&file.path);
            let line = line.map_err(|reason| GoldenError::Unblessed {
                file: file.name.clone(),
                reason,
            })?;
            progress();
            let name = &file.name;
            text.push_str(&format!(
                "{name}; {}; {}; {}\n",
                line.runs, line.result, line.digest
            ));
        }
        if std::fs::read_to_string(&self.golden).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        if let Some(folder) = self.golden.parent() {
            std::fs::create_dir_all(folder).map_err(|source| GoldenError::Folder {
                path: folder.to_owned(),
                source,
            })?;
        }
        let mut file = OutputFile::create(&self.golden)?;
        file.write_all(text.as_bytes()).map_err(ExportError::from)?;
        file.commit()?;
        Ok(true)
    }

    fn shown(&self) -> String {
        let name = self.golden.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The golden lines with their files, or why there are none.
    fn read(&self) -> Result<Vec<(String, Line)>, String> {
        let shown = self.shown();
        let text = std::fs::read_to_string(&self.golden).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{shown} is missing; `corpus bless` writes it"),
            _ => format!("{shown}: {error}"),
        })?;
        let lines = text.lines().zip(1..);
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let read = lines.map(|(line, number)| {
            let mut fields = line.rsplitn(4, "; ");
            let mut next = || fields.next().map(str::to_owned);
            match (next(), next(), next(), next()) {
                (Some(digest), Some(result), Some(runs), Some(name)) => Ok((
                    name,
                    Line {
                        runs,
                        result,
                        digest,
                    },
                )),
                _ => Err(format!("{shown}:{number}: no line of golden results")),
            }
        });
        read.collect()
    }

    fn verdict(
        &self,
        file: &GoldenFile,
        golden: &Result<Vec<(String, Line)>, String>,
    ) -> GoldenVerdict {
        // A file that fails is worse than a missing golden result.
        let new = match self.line(&file.path) {
            Ok(new) => new,
            Err(reason) => return GoldenVerdict::Failed(reason),
        };
        let lines = match golden {
            Ok(lines) => lines,
            Err(reason) => return GoldenVerdict::Failed(reason.clone()),
        };
        let Some((_, old)) = lines.iter().find(|(name, _)| *name == file.name) else {
            let golden = self.shown();
            return GoldenVerdict::Failed(format!(
                "{golden} has no line of it; `corpus bless` writes one"
            ));
        };
        let fields = [
            ("runs on", &old.runs, &new.runs),
            ("result", &old.result, &new.result),
            ("digest of the text", &old.digest, &new.digest),
        ];
        let changes = fields.into_iter().filter(|(_, old, new)| old != new);
        let changes: Vec<_> = changes
            .map(|(what, old, new)| LineChange {
                what,
                old: old.clone(),
                new: new.clone(),
            })
            .collect();
        match changes.is_empty() {
            true => GoldenVerdict::Equal,
            false => GoldenVerdict::Differs(changes),
        }
    }

    /// A file's line, or why it does not pass.
    fn line(&self, path: &Path) -> Result<Line, String> {
        let scenario = load_with(path, &self.catalog)
            .map_err(|error| format!("line {}: {}", error.line, error.reason))?;
        let (steps, failures) = run_scenario(&scenario);
        if let Some(first) = failures.first() {
            let policy = first.policy.as_deref().map(|policy| format!(", {policy}"));
            let device = first.device.map(|device| format!(", {device}"));
            let more = match failures.len() {
                1 => String::new(),
                all => format!(" (and {} more)", all - 1),
            };
            return Err(format!(
                "line {}, {}{}{}: {}: expected {}, found {}{more}",
                first.line,
                first.profile,
                device.unwrap_or_default(),
                policy.unwrap_or_default(),
                first.step,
                first.expected,
                first.found
            ));
        }
        Ok(Line {
            runs: runs(&scenario),
            result: format!("passes in {steps} steps"),
            digest: digest(path).map_err(|error| error.to_string())?,
        })
    }
}

fn runs(scenario: &Scenario) -> String {
    let profiles = scenario.profiles.names().join(" ");
    let policies = scenario.policy_names();
    match policies.is_empty() {
        true => profiles,
        false => format!("{profiles} under {}", policies.join(" ")),
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let whole = Sha256::digest(std::fs::read(path)?);
    let bytes = whole.iter().take(DIGEST);
    Ok(bytes.map(|byte| format!("{byte:02x}")).collect())
}
