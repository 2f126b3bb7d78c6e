//! Finding and reading files.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use vlbr_host::policy::Catalog;

use crate::{ParseError, Reason, Scenario, parse_with};

/// Largest scenario file.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// Folders in folders beyond which nothing is looked for.
const MAX_LEVELS: usize = 8;

/// A path that cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A folder without a scenario.
    #[error("{}: no file named NNN-name.scn below", .0.display())]
    Nothing(PathBuf),
    /// Folders nested too deep.
    #[error("{}: more than {MAX_LEVELS} folders deep", .0.display())]
    TooDeep(PathBuf),
}

/// The files that paths name: a file itself, of a folder all `*.scn` below, by name. Links to
/// folders are not followed.
///
/// # Errors
/// A path that does not exist or cannot be read, or a folder without scenarios.
pub fn discover<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let meta = fs::metadata(path).map_err(|source| DiscoverError::Io {
            path: path.to_owned(),
            source,
        })?;
        if !meta.is_dir() {
            files.push(path.to_owned());
            continue;
        }
        let before = files.len();
        walk(path, 0, &mut files)?;
        if files.len() == before {
            return Err(DiscoverError::Nothing(path.to_owned()));
        }
        files[before..].sort();
    }
    Ok(files)
}

fn walk(folder: &Path, level: usize, files: &mut Vec<PathBuf>) -> Result<(), DiscoverError> {
    if level > MAX_LEVELS {
        return Err(DiscoverError::TooDeep(folder.to_owned()));
    }
    let io = |source| DiscoverError::Io {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, level + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "scn") {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads and parses one file.
///
/// # Errors
/// It cannot be read, is too large, is not UTF-8, or is no scenario.
pub fn load(path: &Path) -> Result<Scenario, ParseError> {
    load_with(path, &Catalog::builtin())
}

/// The same, with the policies of a catalog.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, catalog: &Catalog) -> Result<Scenario, ParseError> {
    let error = |reason| ParseError {
        file: path.to_owned(),
        line: 1,
        reason,
    };
    let io = |e: std::io::Error| error(Reason::Io(e.to_string()));
    // A pipe would wait for its other end.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(error(Reason::Io("not a regular file".to_owned())));
    }
    let file = fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(error(Reason::TooLong(MAX_FILE_BYTES)));
    }
    let text = String::from_utf8(bytes).map_err(|_| error(Reason::NotText))?;
    parse_with(path, &text, catalog)
}
