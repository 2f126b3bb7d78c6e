//! What branches are read from.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use vlbr_traces::cbp;
use vlbr_traces::files::open_regular;
use vlbr_traces::vlt::Trace;

use super::error::BranchError;
use crate::region::Region;

/// What branches are read from.
#[derive(Debug)]
#[non_exhaustive]
pub enum BranchInput<'a> {
    /// A part of a trace.
    Trace(&'a Trace, Region),
    /// A trace of the Championship Branch Prediction of 2025.
    Cbp(PathBuf),
}

impl BranchInput<'_> {
    /// Whether the file at `path` begins as a trace of the championship does.
    ///
    /// # Errors
    /// [`BranchError::File`].
    pub fn is_cbp(path: &Path) -> Result<bool, BranchError> {
        let mut magic = Vec::new();
        open_regular(path)
            .and_then(|file| file.take(cbp::MAGIC.len() as u64).read_to_end(&mut magic))
            .map_err(|source| BranchError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(magic == cbp::MAGIC)
    }
}

/// A reader of the file at `path`.
pub(crate) fn open(path: &Path) -> Result<cbp::Reader<BufReader<File>>, BranchError> {
    let file = open_regular(path).map_err(|source| BranchError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(cbp::Reader::new(BufReader::new(file)))
}
