//! Cases as JSON lines.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vlbr_lbr::Profile;

use super::case;
use super::machine::Machine;
use crate::{DiscoverError, Failure, ParseError, discover, load};

/// Version of the form. Readers refuse others; new keys do not change it.
pub const VERSION: u32 = 1;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A path that cannot be searched.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A file that is no scenario.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A scenario that fails, or whose final registers the two devices do not agree on.
    #[error("{}:{}: {}: expected {}, found {}", file.display(), failure.line, failure.profile, failure.expected, failure.found)]
    Failed {
        /// The file.
        file: PathBuf,
        /// What failed.
        failure: Box<Failure>,
    },
    /// No scenario concerns the processors that are asked for.
    #[error("no scenario concerns these processors")]
    Nothing,
    /// It cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ExportError {
    fn failed(file: &Path, failure: Box<Failure>) -> Self {
        Self::Failed {
            file: file.to_owned(),
            failure,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// Scenarios.
    pub scenarios: usize,
    /// Cases: pairs of scenario and processor.
    pub cases: usize,
}

#[derive(Serialize)]
struct Header {
    kind: &'static str,
    format: &'static str,
    version: u32,
    generator: &'static str,
    hash: &'static str,
}

/// Writes the scenarios that `paths` name (see [`discover()`]) as JSON lines: a header, a case for
/// every processor that a scenario names and `cpus` holds (all if `cpus` is empty), and before the
/// first case that needs it a processor with its options. The bytes depend on nothing else. Scenarios
/// of hosts are left out.
///
/// # Errors
/// A path without scenarios, a file that is none, a scenario that fails, or `out` does.
pub fn export<P: AsRef<Path>>(
    paths: &[P],
    cpus: &[&Profile],
    out: &mut dyn Write,
) -> Result<ExportSummary, ExportError> {
    let mut summary = ExportSummary::default();
    let mut told = BTreeSet::new();
    let header = Header {
        kind: "header",
        format: "vlbr-scenario-export",
        version: VERSION,
        generator: concat!("vlbr ", env!("CARGO_PKG_VERSION")),
        hash: "sha256",
    };
    line(out, &header)?;
    for file in discover(paths)? {
        let scenario = load(&file)?;
        if scenario.host.is_some() {
            // Another emulator has no Linux to be compared with.
            continue;
        }
        let names = scenario.profiles.names();
        let wanted = Profile::all().iter().filter(|profile| {
            let is = |name: &str| name == profile.name();
            names.iter().any(|name| is(name))
                && (cpus.is_empty() || cpus.iter().any(|cpu| is(cpu.name())))
        });
        let before = summary.cases;
        for profile in wanted {
            let case = case::build(&scenario, profile)
                .map_err(|failure| ExportError::failed(&file, failure))?;
            if told.insert(case.machine.clone()) {
                let options = scenario.processor_options(profile);
                let machine = Machine::new(profile, &options).map_err(|error| {
                    let failure = case::failure(&scenario, profile, (0, error));
                    ExportError::failed(&file, failure)
                })?;
                line(out, &machine)?;
            }
            line(out, &case)?;
            summary.cases += 1;
        }
        summary.scenarios += usize::from(summary.cases != before);
    }
    if summary.cases == 0 {
        return Err(ExportError::Nothing);
    }
    out.flush()?;
    Ok(summary)
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
