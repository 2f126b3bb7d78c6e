//! Reading a trace: everything but the chunks is in memory, chunks are decoded one by one.

use std::path::Path;

use vlbr_cpu::Code;

use super::chunk::Counts;
use super::error::{Damage, VltError};
use super::functions::FileFunctions;
use super::meta::{Mapping, Meta, Process, Thread, ThreadIndex};
use super::scan::scan;
use super::source::Source;
use crate::files::open_regular;

/// How to open a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Use what stands before a damage instead of refusing the file.
    pub salvage: bool,
    /// Read the whole file once to check the checksums of the chunks too. Without it they are
    /// checked when they are decoded.
    pub check_chunks: bool,
    /// Most memory, in bytes, for code and descriptions.
    pub memory_limit: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            salvage: false,
            check_chunks: true,
            memory_limit: 1 << 29,
        }
    }
}

/// Where a chunk is and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Offset of its frame in the file.
    pub offset: u64,
    /// Bytes of its frame's payload.
    pub length: u32,
    /// Its thread.
    pub thread: ThreadIndex,
    /// Number of the chunk within its thread.
    pub ordinal: u32,
    /// Instructions the thread retired before.
    pub first_instruction: u64,
    /// Steps in it.
    pub steps: u32,
    /// Different steps in it.
    pub distinct: u32,
    /// What its steps sum to.
    pub counts: Counts,
    /// Steps the code table had when it was written.
    pub(super) steps_known: u32,
}

/// A side stream of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SideInfo {
    pub(super) chunk: u32,
    pub(super) tag: u16,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// Bytes of the file by what they hold, frame headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Header, meta, processes, threads, mappings, end and frames this reader does not know.
    pub description: u64,
    /// Kernel symbols and functions.
    pub symbols: u64,
    /// Blocks.
    pub blocks: u64,
    /// Steps.
    pub steps: u64,
    /// Chunks without their side streams.
    pub chunks: u64,
    /// Side streams.
    pub sides: u64,
}

impl Sizes {
    /// All together: the size of the file up to its end or damage.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.description + self.symbols + self.blocks + self.steps + self.chunks + self.sides
    }
}

/// A trace, open for reading.
#[derive(Debug)]
pub struct Trace {
    pub(super) source: Box<dyn Source>,
    contents: Contents,
}

/// What is in memory of a trace.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) meta: Meta,
    pub(super) processes: Vec<Process>,
    pub(super) threads: Vec<Thread>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) symbols: Option<String>,
    pub(super) functions: Option<Vec<FileFunctions>>,
    pub(super) code: Code,
    pub(super) chunks: Vec<ChunkInfo>,
    /// In the order of chunk and tag.
    pub(super) sides: Vec<SideInfo>,
    pub(super) notes: Vec<(String, String)>,
    pub(super) damage: Option<VltError>,
    pub(super) sizes: Sizes,
}

impl Trace {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Anything wrong with the file; with [`OpenOptions::salvage`] only what leaves nothing to
    /// use.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, VltError> {
        let file = open_regular(path).map_err(|e| Damage::Io(e).at(0))?;
        Self::from_source(Box::new(file), options)
    }

    /// Opens a trace held in memory.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn from_bytes(bytes: Vec<u8>, options: OpenOptions) -> Result<Self, VltError> {
        Self::from_source(Box::new(bytes), options)
    }

    /// Opens a trace anywhere.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn from_source(source: Box<dyn Source>, options: OpenOptions) -> Result<Self, VltError> {
        let contents = scan(source.as_ref(), options)?;
        Ok(Self { source, contents })
    }

    /// The side stream `tag` of chunk `chunk`.
    pub(super) fn side(&self, chunk: u32, tag: u16) -> Option<SideInfo> {
        let sides = &self.contents.sides;
        let at = sides
            .binary_search_by_key(&(chunk, tag), |side| (side.chunk, side.tag))
            .ok()?;
        Some(sides[at])
    }

    /// How the trace came to be.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        &self.contents.meta
    }

    /// The processes, by index.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.contents.processes
    }

    /// The threads or vCPUs, by index.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.contents.threads
    }

    /// The mappings, in the order they were recorded.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.contents.mappings
    }

    /// The kernel's symbols in the form of `/proc/kallsyms`.
    #[must_use]
    pub fn symbols(&self) -> Option<&str> {
        self.contents.symbols.as_deref()
    }

    /// The mapped files of which code ran, with the functions that did, by path and build-id;
    /// `None` if nothing was written about them.
    #[must_use]
    pub fn functions(&self) -> Option<&[FileFunctions]> {
        self.contents.functions.as_deref()
    }

    /// All blocks and steps.
    #[must_use]
    pub const fn code(&self) -> &Code {
        &self.contents.code
    }

    /// The chunks in the order of the file; those of one thread are in the order of execution.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.contents.chunks
    }

    /// What the recorder said at the end.
    #[must_use]
    pub fn notes(&self) -> &[(String, String)] {
        &self.contents.notes
    }

    /// The damage before which everything was read, if the trace was salvaged.
    #[must_use]
    pub const fn damage(&self) -> Option<&VltError> {
        self.contents.damage.as_ref()
    }

    /// Where the bytes of the file go.
    #[must_use]
    pub const fn sizes(&self) -> &Sizes {
        &self.contents.sizes
    }

    /// Instructions in all chunks.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.contents
            .chunks
            .iter()
            .map(|c| c.counts.instructions.total())
            .sum()
    }
}
