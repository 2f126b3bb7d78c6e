//! Translated blocks as QEMU reports them, and the table of one process.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use vlbr_arch::{CodeSize, Cpl};

/// Registers read when a block was translated. QEMU keys its blocks by privilege and code size, so
/// both hold for every execution of the block; CR3 holds at translation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordedMode {
    /// CS selector.
    pub cs: u16,
    /// CR0.
    pub cr0: u64,
    /// CR3, the address space.
    pub cr3: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// EFLAGS.
    pub eflags: u32,
}

const CR0_PE: u64 = 1;
const EFER_LMA: u64 = 1 << 10;
const EFLAGS_VM: u32 = 1 << 17;

impl RecordedMode {
    /// Privilege level. SDM volume 3, section 5.5: the low bits of CS in protected mode, 0 in
    /// real-address mode, 3 in virtual-8086 mode.
    pub fn cpl(&self) -> Cpl {
        let level = if self.cr0 & CR0_PE == 0 {
            0
        } else if self.eflags & EFLAGS_VM != 0 {
            3
        } else {
            self.cs & 3
        };
        match level {
            0 => Cpl::Ring0,
            1 => Cpl::Ring1,
            2 => Cpl::Ring2,
            _ => Cpl::Ring3,
        }
    }

    /// Code size as far as these registers tell: real-address and virtual-8086 mode run 16-bit code
    /// unless a big-real descriptor is loaded. Otherwise CS.L and CS.D decide, which no plugin API
    /// shows, and the answer is `None`.
    pub fn code_size(&self) -> Option<CodeSize> {
        (self.cr0 & CR0_PE == 0 || self.eflags & EFLAGS_VM != 0).then_some(CodeSize::Bits16)
    }

    /// Whether IA-32e mode was active (EFER.LMA): only then can code be 64-bit.
    pub fn long_mode(&self) -> bool {
        self.efer & EFER_LMA != 0
    }
}

/// A translation block: instructions that lie one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawBlock {
    /// Linear address of the first instruction.
    pub start: u64,
    /// Length of each instruction in bytes; never empty.
    pub sizes: Box<[u8]>,
    /// Code bytes; their number is the sum of `sizes`.
    pub bytes: Box<[u8]>,
    /// Registers at translation, if QEMU's plugin API gives them.
    pub mode: Option<RecordedMode>,
}

impl RawBlock {
    /// Address behind the last instruction.
    pub fn end(&self) -> u64 {
        self.start.wrapping_add(self.bytes.len() as u64)
    }

    /// Number of instructions.
    pub fn instructions(&self) -> usize {
        self.sizes.len()
    }
}

#[derive(Debug)]
struct Defined {
    blocks: Vec<Arc<RawBlock>>,
    closed: bool,
}

/// Blocks of one process in the order of their ids: the control thread appends, stream threads wait
/// for an id they have met.
#[derive(Debug)]
pub(super) struct BlockTable {
    defined: Mutex<Defined>,
    changed: Condvar,
}

impl BlockTable {
    pub(super) fn new(blocks: Vec<Arc<RawBlock>>) -> Self {
        BlockTable {
            defined: Mutex::new(Defined {
                blocks,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Defined> {
        // A panic elsewhere leaves the vector whole: pushes are its only writes.
        self.defined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the block of the next id.
    pub(super) fn push(&self, block: Arc<RawBlock>) {
        self.lock().blocks.push(block);
        self.changed.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().blocks.len()
    }

    /// No more definitions will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Brings `known` up to at least `count` blocks, waiting for their definitions. False if the
    /// connection ended before they came.
    pub(super) fn extend(&self, known: &mut Vec<Arc<RawBlock>>, count: usize) -> bool {
        let mut defined = self.lock();
        while defined.blocks.len() < count && !defined.closed {
            defined = self
                .changed
                .wait(defined)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if known.len() < defined.blocks.len() {
            known.extend_from_slice(&defined.blocks[known.len()..]);
        }
        known.len() >= count
    }

    /// The first `count` blocks, for the table of a forked child. `None` if the connection ended
    /// before they came.
    pub(super) fn inherit(&self, count: usize) -> Option<Vec<Arc<RawBlock>>> {
        let mut blocks = Vec::new();
        self.extend(&mut blocks, count).then(|| {
            blocks.truncate(count);
            blocks
        })
    }
}
