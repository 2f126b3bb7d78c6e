//! What is taken from an ELF file: segments, build-id, symbols, and on request its code.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, ReadRef};
use object::{Architecture, ObjectKind, SectionKind, SymbolKind};

use super::error::SymbolError;
use super::table::{Binding, Symbol, SymbolTable, SymbolTableBuilder};
use crate::vlt::{FileFunctions, Function};

/// Segments taken at most.
const MAX_SEGMENTS: usize = 4096;
/// Longest build-id taken.
const MAX_BUILD_ID: usize = 64;
/// Longest symbol name taken; longer ones are cut.
const MAX_NAME: usize = 1 << 14;
/// Code taken at most, in bytes.
const MAX_CODE: u64 = 1 << 30;
/// Size of a page: the unit in which the loader maps.
const PAGE: u64 = 4096;

/// A PT_LOAD segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSegment {
    /// Address as linked.
    pub address: u64,
    /// Size in memory.
    pub size: u64,
    /// Offset in the file.
    pub file_offset: u64,
    /// Size in the file.
    pub file_size: u64,
    /// It is executable.
    pub executable: bool,
}

impl ElfSegment {
    const fn holds_offset(&self, offset: u64) -> bool {
        offset >= self.file_offset && offset - self.file_offset < self.file_size
    }
}

/// An ELF file's layout and symbols. The file itself is closed again.
#[derive(Clone, Debug)]
pub struct ElfImage {
    path: PathBuf,
    build_id: Option<Vec<u8>>,
    x86_64: bool,
    relocatable: bool,
    position_independent: bool,
    entry: u64,
    segments: Vec<ElfSegment>,
    symbols: SymbolTable,
}

impl ElfImage {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`SymbolError`]: the file cannot be read, is no ELF file, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        Self::read(path, open_regular(path)?)
    }

    /// Reads `source`, the bytes of the file at `path`.
    ///
    /// # Errors
    /// [`SymbolError`]: the bytes are no ELF file, or contradict themselves.
    pub fn read<R: Read + Seek>(path: &Path, source: R) -> Result<Self, SymbolError> {
        let elf = |reason: &str| SymbolError::Elf {
            path: path.into(),
            reason: reason.into(),
        };
        let cache = ReadCache::new(source);
        let file = object::File::parse(&cache).map_err(|e| elf(&e.to_string()))?;
        if file.format() != object::BinaryFormat::Elf {
            return Err(elf("not an ELF file"));
        }
        let segments = segments(&file, path)?;
        // A malformed note means no build-id, not an unusable file.
        let build_id = file
            .build_id()
            .ok()
            .flatten()
            .filter(|id| !id.is_empty() && id.len() <= MAX_BUILD_ID)
            .map(<[u8]>::to_vec);
        let length = (&cache).len().unwrap_or(0);
        let symbols = symbols(&file, &segments, length, path)?;
        Ok(Self {
            path: path.into(),
            build_id,
            x86_64: matches!(
                file.architecture(),
                Architecture::X86_64 | Architecture::X86_64_X32
            ),
            relocatable: file.kind() == ObjectKind::Relocatable,
            position_independent: file.kind() == ObjectKind::Dynamic,
            entry: file.entry(),
            segments,
            symbols,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The build-id of `.note.gnu.build-id`.
    #[must_use]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// EM_X86_64: its code is 64-bit code of x86.
    #[must_use]
    pub const fn is_x86_64(&self) -> bool {
        self.x86_64
    }

    /// ET_REL: an object file that is not linked yet, whose addresses are those within sections.
    #[must_use]
    pub const fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// ET_DYN: a position-independent executable or a library, loaded anywhere.
    #[must_use]
    pub const fn position_independent(&self) -> bool {
        self.position_independent
    }

    /// Entry point, as linked.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The PT_LOAD segments, in the order of the file.
    #[must_use]
    pub fn segments(&self) -> &[ElfSegment] {
        &self.segments
    }

    /// The symbols, by linked address.
    #[must_use]
    pub const fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }

    /// The symbols alone.
    #[must_use]
    pub fn into_symbols(self) -> SymbolTable {
        self.symbols
    }

    /// The symbol at a linked address.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        self.symbols.lookup(address)
    }

    /// What a trace keeps of a file: the code segments and the functions that ran.
    #[must_use]
    pub fn from_functions(file: &FileFunctions) -> Self {
        let names = file.functions.iter().map(|f| f.name.len() as u64).sum();
        let mut builder = SymbolTableBuilder::new(names);
        for function in &file.functions {
            let Function {
                address,
                size,
                name,
            } = function;
            // Room was made for all names; the frame's limit is below the table's.
            let _ = builder.push(*address, *size, name, Binding::GlobalFunction);
        }
        let segments = file.segments.iter().map(|segment| ElfSegment {
            address: segment.address,
            size: segment.size,
            file_offset: segment.offset,
            file_size: segment.size,
            executable: true,
        });
        Self {
            path: file.path.clone(),
            build_id: (!file.build_id.is_empty()).then(|| file.build_id.clone()),
            x86_64: true,
            relocatable: false,
            position_independent: false,
            entry: 0,
            segments: segments.collect(),
            symbols: builder.build(),
        }
    }

    /// Bytes from a symbol's address on that bear its name: its size or, if it has none, up to the
    /// next symbol or the end of its segment.
    #[must_use]
    pub fn extent(&self, symbol: &Symbol<'_>) -> u64 {
        let behind = || {
            let holding = |s: &&ElfSegment| {
                s.executable && symbol.address >= s.address && symbol.address - s.address < s.size
            };
            let segment = self.segments.iter().find(holding)?;
            Some(segment.address.saturating_add(segment.size))
        };
        let end = self.symbols.end(symbol).or_else(behind);
        end.map_or(0, |end| end.saturating_sub(symbol.address))
    }

    /// The linked address of an offset in the file; a segment that is executable goes first.
    #[must_use]
    pub fn offset_to_address(&self, offset: u64) -> Option<u64> {
        let mut holding: Vec<_> = self
            .segments
            .iter()
            .filter(|segment| segment.holds_offset(offset))
            .collect();
        holding.sort_by_key(|segment| !segment.executable);
        let segment = holding.first()?;
        segment.address.checked_add(offset - segment.file_offset)
    }

    /// The offset in the file of a linked address, if the file holds it.
    #[must_use]
    pub fn address_to_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            (within < segment.file_size).then(|| segment.file_offset.checked_add(within))?
        })
    }

    /// What the loader added to linked addresses when it mapped offset `pgoff` of this file at
    /// `start`, executable.
    ///
    /// A mapping starts at a page, a segment anywhere in it, so several segments of a small file
    /// may lie in the mapped page. Only an executable one can be behind an executable mapping;
    /// tools that take the first segment of the page are off by a page.
    #[must_use]
    pub fn load_bias(&self, start: u64, len: u64, pgoff: u64) -> Option<u64> {
        let mapped_end = pgoff.checked_add(len)?;
        let segment = self
            .segments
            .iter()
            .filter(|s| s.executable && s.file_size > 0)
            .find(|s| {
                let first_page = s.file_offset & !(PAGE - 1);
                let end = s.file_offset.saturating_add(s.file_size);
                first_page < mapped_end
                    && pgoff < end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
            })?;
        // Modular, as the loader computes: a fixed executable has bias 0.
        Some(
            start
                .wrapping_sub(pgoff)
                .wrapping_add(segment.file_offset)
                .wrapping_sub(segment.address),
        )
    }

    /// Reads the bytes of the executable segments.
    ///
    /// # Errors
    /// [`SymbolError::Io`] when the file is gone or shorter than its headers say,
    /// [`SymbolError::TooLarge`] for more than 1 GiB.
    pub fn read_code(&self) -> Result<CodeBytes, SymbolError> {
        self.read_code_from(open_regular(&self.path)?)
    }

    /// Reads the bytes of the executable segments from `file`, the bytes of this ELF file.
    ///
    /// # Errors
    /// Those of [`ElfImage::read_code`].
    pub fn read_code_from<R: Read + Seek>(&self, mut file: R) -> Result<CodeBytes, SymbolError> {
        let io = |source| SymbolError::Io {
            path: self.path.clone(),
            source,
        };
        let length = file.seek(SeekFrom::End(0)).map_err(io)?;
        let mut total = 0u64;
        let mut parts = Vec::new();
        for segment in self
            .segments
            .iter()
            .filter(|s| s.executable && s.file_size > 0)
        {
            let inside = segment
                .file_offset
                .checked_add(segment.file_size)
                .is_some_and(|end| end <= length);
            if !inside {
                return Err(SymbolError::Elf {
                    path: self.path.clone(),
                    reason: format!(
                        "segment at offset {:#x} ends behind the file",
                        segment.file_offset
                    ),
                });
            }
            total = total.saturating_add(segment.file_size);
            if total > MAX_CODE {
                return Err(SymbolError::TooLarge {
                    path: self.path.clone(),
                    what: "bytes of code",
                    limit: MAX_CODE,
                });
            }
            file.seek(SeekFrom::Start(segment.file_offset))
                .map_err(io)?;
            let mut bytes = vec![0; segment.file_size as usize];
            file.read_exact(&mut bytes).map_err(io)?;
            parts.push((segment.address, bytes));
        }
        parts.sort_by_key(|(address, _)| *address);
        Ok(CodeBytes { parts })
    }
}

/// The code of an ELF file, by linked address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeBytes {
    parts: Vec<(u64, Vec<u8>)>,
}

impl CodeBytes {
    /// Code that lies at `address`.
    #[must_use]
    pub fn new(address: u64, bytes: Vec<u8>) -> Self {
        Self {
            parts: vec![(address, bytes)],
        }
    }

    /// The bytes from `address` to the end of its segment; `None` outside of code.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&[u8]> {
        let after = self.parts.partition_point(|(start, _)| *start <= address);
        let (start, bytes) = self.parts[..after].last()?;
        bytes
            .get(usize::try_from(address - start).ok()?..)
            .filter(|rest| !rest.is_empty())
    }

    /// Bytes of code.
    #[must_use]
    pub fn size(&self) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// Opens a file that is not a folder, device or pipe: those could block or never end.
fn open_regular(path: &Path) -> Result<File, SymbolError> {
    let io = |source| SymbolError::Io {
        path: path.into(),
        source,
    };
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(SymbolError::Elf {
            path: path.into(),
            reason: "not a regular file".into(),
        });
    }
    Ok(file)
}

fn segments<'a, R: Read + Seek>(
    file: &object::File<'a, &'a ReadCache<R>>,
    path: &Path,
) -> Result<Vec<ElfSegment>, SymbolError> {
    let mut out = Vec::new();
    for segment in file.segments() {
        if out.len() == MAX_SEGMENTS {
            return Err(SymbolError::TooLarge {
                path: path.into(),
                what: "segments",
                limit: MAX_SEGMENTS as u64,
            });
        }
        let (file_offset, file_size) = segment.file_range();
        let executable = match segment.flags() {
            object::SegmentFlags::Elf { p_flags, .. } => p_flags.0 & object::elf::PF_X.0 != 0,
            _ => false,
        };
        out.push(ElfSegment {
            address: segment.address(),
            size: segment.size(),
            file_offset,
            file_size,
            executable,
        });
    }
    Ok(out)
}

/// Sections looked at; a file that lies may name more.
const MAX_SECTIONS: usize = 1 << 12;

fn symbols<'a, R: Read + Seek>(
    file: &object::File<'a, &'a ReadCache<R>>,
    segments: &[ElfSegment],
    length: u64,
    path: &Path,
) -> Result<SymbolTable, SymbolError> {
    // Names may share bytes of the string table, but not beyond reason.
    let names_limit = length.saturating_mul(4).saturating_add(1 << 16);
    let mut builder = SymbolTableBuilder::new(names_limit);
    for section in file.sections().take(MAX_SECTIONS) {
        if section.kind() == SectionKind::Text {
            builder.section(section.address(), section.size());
        }
    }
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        if !symbol.is_definition() && !is_label(&symbol) {
            continue;
        }
        let binding = match symbol.kind() {
            SymbolKind::Text if symbol.is_weak() => Binding::WeakFunction,
            SymbolKind::Text if symbol.is_global() => Binding::GlobalFunction,
            SymbolKind::Text => Binding::LocalFunction,
            SymbolKind::Label | SymbolKind::Unknown => Binding::Label,
            _ => continue,
        };
        let address = symbol.address();
        let in_code = segments
            .iter()
            .any(|s| s.executable && address >= s.address && address - s.address < s.size);
        if !in_code {
            continue;
        }
        let Ok(name) = symbol.name_bytes() else {
            continue;
        };
        let name = &name[..name.len().min(MAX_NAME)];
        // Assemblers leave mapping symbols and local labels that name nothing.
        if name.is_empty() || name.starts_with(b"$") || name.starts_with(b".L") {
            continue;
        }
        if !builder.push(address, symbol.size(), name, binding) {
            return Err(SymbolError::TooLarge {
                path: path.into(),
                what: "bytes of symbol names, or 8388608 symbols",
                limit: names_limit,
            });
        }
    }
    Ok(builder.build())
}

/// A label of no type in a section, as assembler sources leave them.
fn is_label<'a>(symbol: &impl ObjectSymbol<'a>) -> bool {
    symbol.kind() == SymbolKind::Unknown && symbol.section_index().is_some()
}
