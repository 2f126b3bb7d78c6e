//! What a run found.

use core::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One of the two implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// [`vlbr_lbr::Lbr`].
    Fast,
    /// [`vlbr_lbr::reference::Lbr`].
    Reference,
}

impl DeviceKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Reference];
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Reference => "reference",
        })
    }
}

/// A step that went otherwise than expected. The run of that profile and device ends there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Line in the file, from 1.
    pub line: usize,
    /// Profile; empty if the file could not be read.
    pub profile: String,
    /// Implementation; `None` if the file could not be read, and of hosts.
    pub device: Option<DeviceKind>,
    /// Policy of a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The line as written, with the count if it is repeated.
    pub step: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file.
    pub file: PathBuf,
    /// Its title; empty if it could not be read.
    pub title: String,
    /// The profiles it ran on.
    pub profiles: Vec<String>,
    /// The policies of a host; none of processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Steps run, over all profiles and both devices or all policies.
    pub steps: u64,
    /// What failed: at most one per profile and device or policy.
    pub failures: Vec<Failure>,
}

/// All files of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files.
    pub files: Vec<FileReport>,
}

impl Report {
    /// No failure, and at least one file.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.files.is_empty() && self.files.iter().all(|file| file.failures.is_empty())
    }

    /// Files with at least one failure.
    #[must_use]
    pub fn failed_files(&self) -> usize {
        self.files
            .iter()
            .filter(|file| !file.failures.is_empty())
            .count()
    }

    /// Pairs of file and profile that were run, each on both devices.
    #[must_use]
    pub fn runs(&self) -> usize {
        let files = self.files.iter().filter(|file| file.policies.is_empty());
        files.map(|file| file.profiles.len()).sum()
    }

    /// Runs of hosts: file, profile and policy.
    #[must_use]
    pub fn host_runs(&self) -> usize {
        let files = self.files.iter();
        files
            .map(|file| file.profiles.len() * file.policies.len())
            .sum()
    }
}

impl fmt::Display for Report {
    /// The failures, then one line with the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            for failure in &file.failures {
                write!(f, "{}:{}: ", file.file.display(), failure.line)?;
                if let Some(device) = failure.device {
                    write!(f, "[{}, {device}] ", failure.profile)?;
                }
                if let Some(policy) = &failure.policy {
                    write!(f, "[{}, {policy}] ", failure.profile)?;
                }
                writeln!(f, "{}", failure.step)?;
                writeln!(f, "    expected: {}", failure.expected)?;
                writeln!(f, "    found:    {}", failure.found)?;
            }
        }
        write!(
            f,
            "{} of {} scenarios passed, {} runs on 2 devices, {} of hosts",
            self.files.len() - self.failed_files(),
            self.files.len(),
            self.runs(),
            self.host_runs()
        )
    }
}
