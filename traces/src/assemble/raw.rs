//! Raw blocks: what a recorder sees before anything is interpreted.

use vlbr_arch::{CodeSize, Cpl};

/// Mode of a block as the recorder read it from registers or flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordedMode {
    /// Privilege level.
    pub cpl: Cpl,
    /// Default operand and address size, if it was read too.
    pub code_size: Option<CodeSize>,
    /// `CS.base`, if it was read too.
    pub cs_base: Option<u64>,
    /// Address space as the trace numbers them, if the recorder knows it.
    pub space: Option<u32>,
}

/// Instructions in a row as a recorder delivers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawBlock<'a> {
    /// Linear address (`CS.base` + effective address) of the first instruction.
    pub start: u64,
    /// Length of each instruction, in bytes.
    pub lengths: &'a [u8],
    /// The instruction bytes.
    pub bytes: &'a [u8],
    /// Mode, if the recorder read it.
    pub mode: Option<RecordedMode>,
}

/// The raw blocks of one process image or guest, by id. An id keeps its meaning.
pub trait RawBlocks {
    /// The block `id`; `None` if it was never announced.
    fn raw(&self, id: u32) -> Option<RawBlock<'_>>;
}

#[derive(Clone, Debug)]
struct Owned {
    start: u64,
    lengths: Box<[u8]>,
    bytes: Box<[u8]>,
    mode: Option<RecordedMode>,
}

/// A growing table of raw blocks.
#[derive(Clone, Debug, Default)]
pub struct RawTable {
    blocks: Vec<Owned>,
}

impl RawTable {
    /// No blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block; the result is its id. `None` when 2^32 - 2 ids are used up.
    pub fn add(&mut self, block: RawBlock<'_>) -> Option<u32> {
        let id = u32::try_from(self.blocks.len()).ok()?;
        if id >= u32::MAX - 1 {
            return None;
        }
        self.blocks.push(Owned {
            start: block.start,
            lengths: block.lengths.into(),
            bytes: block.bytes.into(),
            mode: block.mode,
        });
        Some(id)
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

impl RawBlocks for RawTable {
    fn raw(&self, id: u32) -> Option<RawBlock<'_>> {
        self.blocks.get(id as usize).map(|block| RawBlock {
            start: block.start,
            lengths: &block.lengths,
            bytes: &block.bytes,
            mode: block.mode,
        })
    }
}
