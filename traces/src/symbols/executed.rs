//! Which functions of which mapped files ran.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustc_hash::FxHashMap;
use vlbr_cpu::{BlockId, Code, StepId};

use super::elf::ElfImage;
use super::error::SymbolError;
use super::places::{Object, Place, Places, UNMAPPED};
use crate::vlt::{
    CodeSegment, FileFunctions, FileState, Function, MAX_FUNCTION_NAME, Mapping, Trace,
};

/// Collects where code ran while a trace is written.
///
/// A block is placed once for each process and as long as no mapping comes, so the work does not
/// grow with the length of a recording.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    places: Places,
    /// By process and block: the generation of the mappings in which it was placed last.
    seen: FxHashMap<(u32, BlockId), usize>,
    /// What lies in files.
    code: BTreeSet<(Place, BlockId)>,
    /// Process, block and first chunk of what no mapping holds yet: it may come late.
    unplaced: BTreeMap<(u32, BlockId), u32>,
}

impl Executed {
    /// Takes note of a mapping.
    pub(crate) fn mapping(&mut self, mapping: &Mapping) {
        self.places.map_of_trace(mapping);
    }

    /// What is noted of a whole trace before its chunks.
    pub(crate) fn of_trace(trace: &Trace) -> Self {
        Self {
            places: Places::of_trace(trace),
            ..Self::default()
        }
    }

    /// Chunk `chunk` of `process` consists of `steps`. Mappings that hold for it are noted before.
    pub(crate) fn chunk(&mut self, process: u32, chunk: u32, steps: &[StepId], code: &Code) {
        let generation = self.places.generation(chunk.into());
        for &step in steps {
            let id = code.step(step).block;
            if self.seen.get(&(process, id)) == Some(&generation) {
                continue;
            }
            self.seen.insert((process, id), generation);
            let block = code.block(id);
            // Kernel code is named by the kernel's own list.
            if block.instructions() == 0 || block.address() >> 63 != 0 {
                continue;
            }
            let place = self.places.locate(process, chunk.into(), block.address());
            if place.object == UNMAPPED {
                self.unplaced.entry((process, id)).or_insert(chunk);
            } else {
                self.code.insert((place, id));
            }
        }
    }

    /// The files of which code ran, with the functions that did. `known` are files whose functions
    /// were found earlier: they stay.
    pub(crate) fn functions(mut self, code: &Code, known: &[FileFunctions]) -> Vec<FileFunctions> {
        self.places.finish();
        for (&(process, id), &chunk) in &self.unplaced {
            let address = code.block(id).address();
            let place = self.places.locate(process, chunk.into(), address);
            if place.object != UNMAPPED {
                self.code.insert((place, id));
            }
        }
        let mut by_object: BTreeMap<u32, Vec<(u64, BlockId)>> = BTreeMap::new();
        for &(place, id) in &self.code {
            let blocks = by_object.entry(place.object).or_default();
            blocks.push((place.offset, id));
        }
        let mut files = BTreeMap::new();
        for (index, blocks) in by_object {
            let object = &self.places.objects()[index as usize];
            // Names in brackets are no files.
            if !object.path.is_absolute() || object.kernel_start.is_some() {
                continue;
            }
            let key = (object.path.clone(), object.build_id.clone());
            let named = |file: &&FileFunctions| {
                file.state == FileState::Read && (&file.path, &file.build_id) == (&key.0, &key.1)
            };
            let file = match known.iter().find(named) {
                Some(file) => file.clone(),
                None => look_up(object, &blocks, code),
            };
            files.insert(key, file);
        }
        files.into_values().collect()
    }
}

/// The functions of `object` that hold the blocks.
fn look_up(object: &Object, blocks: &[(u64, BlockId)], code: &Code) -> FileFunctions {
    let mut file = FileFunctions {
        path: object.path.clone(),
        build_id: object.build_id.clone(),
        ..FileFunctions::default()
    };
    match open_mapped(&object.path, &object.build_id) {
        Ok(image) if !object.build_id.is_empty() || holds(&image, blocks, code) => {
            file.segments = image.code_segments().collect();
            file.functions = functions(&image, blocks, code);
        }
        Ok(_) | Err(SymbolError::AnotherFile { .. }) => file.state = FileState::Another,
        Err(_) => file.state = FileState::Unreadable,
    }
    file
}

/// Opens the file at `path`, mapped when it had `build_id` (empty if that is not known).
///
/// # Errors
/// Those of [`ElfImage::open`]; [`SymbolError::AnotherFile`] if its build-id is another one.
pub fn open_mapped(path: &Path, build_id: &[u8]) -> Result<ElfImage, SymbolError> {
    let image = ElfImage::open(path)?;
    let found = image.build_id().unwrap_or_default();
    // perf.data files hold 20 bytes of a longer one.
    let cut = &found[..found.len().min(20)];
    if build_id.is_empty() || build_id == found || build_id == cut {
        return Ok(image);
    }
    Err(SymbolError::AnotherFile { path: path.into() })
}

/// Whether the file's code is that of the blocks. One that was modified while it ran does not
/// match: no names are better than wrong ones.
fn holds(image: &ElfImage, blocks: &[(u64, BlockId)], code: &Code) -> bool {
    let Ok(bytes) = image.read_code() else {
        return false;
    };
    blocks.iter().all(|&(offset, id)| {
        let found = image
            .offset_to_address(offset)
            .and_then(|address| bytes.at(address));
        found.is_some_and(|found| found.starts_with(code.block(id).bytes()))
    })
}

fn functions(image: &ElfImage, blocks: &[(u64, BlockId)], code: &Code) -> Vec<Function> {
    let mut functions = BTreeMap::new();
    for &(offset, id) in blocks {
        let Some(start) = image.offset_to_address(offset) else {
            continue;
        };
        // Every instruction, for code may run from one function into the next.
        let mut address = start;
        for &length in code.block(id).lengths() {
            if let Some(symbol) = image.lookup(address) {
                functions.entry(symbol.address).or_insert_with(|| Function {
                    address: symbol.address,
                    size: image.extent(&symbol),
                    name: symbol.name[..symbol.name.len().min(MAX_FUNCTION_NAME)].to_vec(),
                });
            }
            address = address.saturating_add(length.into());
        }
    }
    functions.retain(|_, function| function.size > 0);
    functions.into_values().collect()
}

impl ElfImage {
    fn code_segments(&self) -> impl Iterator<Item = CodeSegment> {
        let code = self.segments().iter();
        code.filter(|segment| segment.executable && segment.file_size > 0)
            .filter(|segment| {
                let ends = |start: u64| start.checked_add(segment.file_size).is_some();
                ends(segment.address) && ends(segment.file_offset)
            })
            .map(|segment| CodeSegment {
                address: segment.address,
                offset: segment.file_offset,
                size: segment.file_size,
            })
    }
}
