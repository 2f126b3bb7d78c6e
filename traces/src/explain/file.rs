//! Explains the branch stacks of a perf.data file with the ELF files it was recorded from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::line::{LoadedCode, PairTable};
use crate::perfdata::{BuildIdEntry, MmapRecord, PerfFile, PerfReadError, Record};
use crate::symbols::{ElfImage, SymbolError};

/// Why a file could not be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The perf.data file.
    #[error(transparent)]
    Perf(#[from] PerfReadError),
    /// An ELF file.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// No mapping of the perf.data file belongs to the ELF file.
    #[error("{path}: no mapping has its build-id or name")]
    NotMapped {
        /// The ELF file.
        path: String,
    },
}

struct Binary {
    image: ElfImage,
    /// At bias 0; loaded copies share its bytes.
    code: LoadedCode,
    mapped: bool,
}

/// Counts the pairs of every branch stack in the file, decoding the code of `binaries`.
///
/// A mapping belongs to a binary when the build-ids agree, or, where the file tells none, the
/// names. Samples of a process are explained with the mappings recorded before them.
///
/// # Errors
/// [`ExplainError`]: the file or a binary cannot be read, or a binary was never mapped.
pub fn explain_perf_data<R: Read + Seek>(
    file: &mut PerfFile<R>,
    binaries: &[&Path],
) -> Result<PairTable, ExplainError> {
    let mut binaries: Vec<Binary> = binaries
        .iter()
        .map(|path| {
            let image = ElfImage::open(path)?;
            let code = LoadedCode::new(Arc::new(image.read_code()?), 0);
            Ok(Binary {
                image,
                code,
                mapped: false,
            })
        })
        .collect::<Result<_, SymbolError>>()?;
    let build_ids = file.features()?.build_ids;
    let mut loaded: BTreeMap<u32, Vec<LoadedCode>> = BTreeMap::new();
    let mut table = PairTable::default();
    let mut records = file.records()?;
    while let Some(raw) = records.next_record()? {
        match raw.parse()? {
            Record::Mmap(mmap) => {
                for binary in &mut binaries {
                    if !belongs(&mmap, &binary.image, &build_ids) {
                        continue;
                    }
                    let bias = binary.image.load_bias(mmap.start, mmap.len, mmap.pgoff);
                    if let Some(bias) = bias {
                        binary.mapped = true;
                        place(loaded.entry(mmap.task.pid).or_default(), &binary.code, bias);
                    }
                }
            }
            Record::Task {
                exit: false,
                task,
                parent,
                ..
            } if task.pid != parent.pid => {
                let inherited = loaded.get(&parent.pid).map_or(&[][..], Vec::as_slice);
                let copies = inherited
                    .iter()
                    .map(|code| code.at_bias(code.bias()))
                    .collect();
                loaded.insert(task.pid, copies);
            }
            Record::Sample(sample) => {
                let Some(stack) = sample.branch_stack else {
                    continue;
                };
                let pid = sample.task.map_or(0, |(pid, _)| pid);
                let code = loaded.get_mut(&pid).map_or(&mut [][..], Vec::as_mut_slice);
                table.add_stack(code, &stack.entries);
            }
            _ => {}
        }
    }
    match binaries.iter().find(|binary| !binary.mapped) {
        Some(binary) => Err(ExplainError::NotMapped {
            path: binary.image.path().display().to_string(),
        }),
        None => Ok(table),
    }
}

/// Puts the code at `bias`; a program has one place in a process, the one it was mapped to last.
fn place(of_process: &mut Vec<LoadedCode>, code: &LoadedCode, bias: u64) {
    match of_process.iter_mut().find(|known| known.same_code(code)) {
        Some(known) if known.bias() == bias => {}
        Some(known) => *known = code.at_bias(bias),
        None => of_process.push(code.at_bias(bias)),
    }
}

fn belongs(mmap: &MmapRecord<'_>, image: &ElfImage, build_ids: &[BuildIdEntry]) -> bool {
    let recorded = match mmap.identity {
        crate::perfdata::FileIdentity::BuildId(id) => Some(id),
        _ => build_ids
            .iter()
            .find(|e| e.path == mmap.path)
            .map(|e| e.id.as_slice()),
    };
    match (recorded, image.build_id()) {
        (Some(recorded), Some(own)) => same_build_id(recorded, own),
        _ => {
            let name = Path::new(OsStr::from_bytes(mmap.path)).file_name();
            name.is_some() && name == image.path().file_name()
        }
    }
}

/// Old files pad short build-ids to 20 bytes with zeros.
fn same_build_id(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    !short.is_empty() && long.starts_with(short) && long[short.len()..].iter().all(|&x| x == 0)
}
