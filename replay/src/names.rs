//! Names for the addresses of a trace, each through what its process had mapped at that time.

use std::path::Path;

use vlbr_traces::symbols::places::{KERNEL, Object, Place, Places, UNMAPPED};
use vlbr_traces::symbols::{
    ElfImage, Symbol, SymbolError, SymbolTable, open_mapped, parse_kallsyms,
};
use vlbr_traces::vlt::{FileFunctions, FileState, Trace};

use crate::error::ReplayError;

/// When and in whose address space an address is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Index of the process.
    pub process: u32,
    /// Number of the chunk.
    pub chunk: usize,
}

impl Moment {
    /// That of chunk `chunk` of `trace`.
    #[must_use]
    pub fn of_chunk(trace: &Trace, chunk: usize) -> Self {
        let thread = trace.chunks().get(chunk).map(|info| info.thread.0 as usize);
        let thread = thread.and_then(|thread| trace.threads().get(thread));
        Self {
            process: thread.map_or(0, |thread| thread.process.0),
            chunk,
        }
    }
}

/// Names for the addresses of a trace.
///
/// A file is read where it was mapped, if it is there with the same build-id. Otherwise the
/// functions count that the trace holds.
#[derive(Debug)]
pub struct Names {
    places: Places,
    /// By object.
    images: Vec<Option<ElfImage>>,
    kernel: Option<SymbolTable>,
}

impl Names {
    /// Names for `trace`.
    ///
    /// # Errors
    /// [`ReplayError::Symbols`]: the kernel's symbols in the trace are none. Recorders refuse such
    /// a list, so what names it would give cannot be guessed.
    pub fn new(trace: &Trace) -> Result<Self, ReplayError> {
        let places = Places::of_trace(trace);
        let image = |(index, object)| image_of(index, object, trace).and_then(Result::ok);
        let images = (0..).zip(places.objects()).map(image).collect();
        Ok(Self {
            images,
            kernel: kernel_symbols(trace).map_err(|error| {
                ReplayError::Symbols(format!("kernel symbols of the trace: {error}"))
            })?,
            places,
        })
    }

    /// Number of the mappings that hold at a time: names do not change as long as it is the same.
    #[must_use]
    pub fn generation(&self, chunk: usize) -> usize {
        self.places.generation(chunk as u64)
    }

    pub(crate) fn place(&self, at: Moment, address: u64) -> Place {
        self.places.locate(at.process, at.chunk as u64, address)
    }

    /// The symbol that holds an address.
    #[must_use]
    pub fn symbol(&self, at: Moment, address: u64) -> Option<Symbol<'_>> {
        self.symbol_of(self.place(at, address), address)
    }

    fn symbol_of(&self, place: Place, address: u64) -> Option<Symbol<'_>> {
        match &self.images[place.object as usize] {
            Some(image) => image.lookup(image.offset_to_address(place.offset)?),
            None if address >> 63 != 0 => self.kernel.as_ref()?.lookup(address),
            None => None,
        }
    }

    /// An address for people: `name+0x12`, `[file]+0x12` with the linked address (without symbols of
    /// it the offset in the file), or hex.
    #[must_use]
    pub fn describe(&self, at: Moment, address: u64) -> String {
        let place = self.place(at, address);
        if let Some(symbol) = self.symbol_of(place, address) {
            let name = symbol.display_name();
            return match symbol.offset {
                0 => name,
                offset => format!("{name}+{offset:#x}"),
            };
        }
        let Some(file) = self.file(place) else {
            return format!("{address:#x}");
        };
        let image = self.images[place.object as usize].as_ref();
        let linked = image.and_then(|image| image.offset_to_address(place.offset));
        format!("{file}+{:#x}", linked.unwrap_or(place.offset))
    }

    /// The function that holds an address, `[file]` if it has no name, or `[unknown]`.
    #[must_use]
    pub fn function(&self, at: Moment, address: u64) -> String {
        let place = self.place(at, address);
        match self.symbol_of(place, address) {
            Some(symbol) => symbol.display_name(),
            None => self.file(place).unwrap_or_else(|| "[unknown]".to_owned()),
        }
    }

    /// The name of a place's file in brackets, if it lies in one.
    fn file(&self, place: Place) -> Option<String> {
        if place.object == UNMAPPED || place.object == KERNEL {
            return None;
        }
        let path = &self.places.objects()[place.object as usize].path;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Some(bracketed(&name.to_string_lossy()))
    }
}

/// A name in brackets, which it may have already.
pub(crate) fn bracketed(name: &str) -> String {
    if name.starts_with('[') {
        name.to_owned()
    } else {
        format!("[{name}]")
    }
}

/// The kernel's symbols that `trace` holds.
pub(crate) fn kernel_symbols(trace: &Trace) -> Result<Option<SymbolTable>, SymbolError> {
    let path = Path::new("[kernel.kallsyms]");
    trace
        .symbols()
        .map(|text| parse_kallsyms(text.as_bytes(), path))
        .transpose()
}

/// What is known of object `index` of `trace`, if it is a mapped file.
pub(crate) fn image_of(
    index: u32,
    object: &Object,
    trace: &Trace,
) -> Option<Result<ElfImage, SymbolError>> {
    let file = index != UNMAPPED && index != KERNEL && object.kernel_start.is_none();
    if !file || !object.path.is_absolute() {
        return None;
    }
    let same = |file: &&FileFunctions| {
        file.path == object.path
            && file.build_id == object.build_id
            && file.state == FileState::Read
    };
    let held = trace.functions().unwrap_or_default().iter().find(same);
    let held = held.map(ElfImage::from_functions);
    // A path alone does not say that it is the same file; functions in the trace are of the same.
    Some(match held {
        Some(held) if object.build_id.is_empty() => Ok(held),
        Some(held) => Ok(open_mapped(&object.path, &object.build_id).unwrap_or(held)),
        None => open_mapped(&object.path, &object.build_id),
    })
}
