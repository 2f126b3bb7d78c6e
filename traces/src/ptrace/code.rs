//! The code of a traced process: instructions as they are about to run, and blocks made of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use rustc_hash::FxHashMap;
use vlbr_cpu::classify;

use crate::qemu::RawBlock;

/// Longest instruction. SDM volume 2, section 2.3.11.
const LONGEST: usize = 15;

/// An instruction that is about to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) address: u64,
    window: [u8; LONGEST],
    length: u8,
    /// Ends a block.
    pub(super) branch: bool,
    /// A string instruction with a REP prefix.
    pub(super) repeats: bool,
    /// Enters the kernel by itself.
    pub(super) syscall: bool,
}

impl Instruction {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.window[..usize::from(self.length)]
    }

    pub(super) fn end(&self) -> u64 {
        self.address.wrapping_add(u64::from(self.length))
    }

    fn decode(address: u64, window: [u8; LONGEST], available: usize) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, &window[..available], address, DecoderOptions::NONE);
        let decoded = decoder.decode();
        if decoded.is_invalid() {
            return None;
        }
        Some(Self {
            address,
            window,
            length: decoded.len() as u8,
            branch: classify(&decoded).is_some(),
            repeats: decoded.is_string_instruction()
                && (decoded.has_rep_prefix() || decoded.has_repne_prefix()),
            syscall: matches!(
                decoded.mnemonic(),
                Mnemonic::Syscall | Mnemonic::Sysenter | Mnemonic::Int
            ),
        })
    }
}

/// Memory and known code of a process image.
#[derive(Debug)]
pub(super) struct Code {
    memory: File,
    instructions: FxHashMap<u64, Instruction>,
    pub(super) blocks: Vec<Arc<RawBlock>>,
    ids: FxHashMap<Arc<RawBlock>, u32>,
    /// Blocks that ran since last asked.
    executed: u64,
}

impl Code {
    /// Opens the memory of process `pid`, which may continue the blocks of another.
    pub(super) fn open(pid: i32, blocks: Vec<Arc<RawBlock>>) -> io::Result<Self> {
        let ids = blocks.iter().cloned().zip(0..).collect();
        Ok(Self {
            memory: File::open(format!("/proc/{pid}/mem"))?,
            instructions: FxHashMap::default(),
            blocks,
            ids,
            executed: 0,
        })
    }

    /// The instruction at `address` as it is now; `None` if it cannot be read or decoded.
    pub(super) fn instruction(&mut self, address: u64) -> Option<Instruction> {
        let mut window = [0; LONGEST];
        // A short read ends at an unmapped page.
        let available = self.memory.read_at(&mut window, address).ok()?;
        if let Some(known) = self.instructions.get(&address) {
            let length = usize::from(known.length);
            if length <= available && known.bytes() == &window[..length] {
                return Some(*known);
            }
        }
        let instruction = Instruction::decode(address, window, available)?;
        self.instructions.insert(address, instruction);
        Some(instruction)
    }

    /// How many blocks ran since last asked.
    pub(super) fn take_executed(&mut self) -> u64 {
        std::mem::take(&mut self.executed)
    }

    /// The id of `block`, new or known, which has run.
    pub(super) fn block(&mut self, block: RawBlock) -> u32 {
        self.executed += 1;
        let block = Arc::new(block);
        if let Some(&id) = self.ids.get(&block) {
            return id;
        }
        // At ten thousand steps a second the ids last for years.
        let id = self.blocks.len() as u32;
        self.blocks.push(Arc::clone(&block));
        self.ids.insert(block, id);
        id
    }
}
