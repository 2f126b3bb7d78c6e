//! A block: instructions in a row, decoded once.

use iced_x86::{Decoder, DecoderOptions};
use thiserror::Error;
use vlbr_arch::{CodeSize, Cpl};

use crate::classify::{BranchInstruction, classify};

/// Longest block that is accepted, in instructions. QEMU's limit is 512.
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// Whether privilege and code size of a block were seen by the recorder or follow from a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModeSource {
    /// The recorder read the registers or flags that say so.
    Recorded,
    /// Inferred by the recorder's written rule.
    Inferred,
}

/// The processor mode a block runs in. Part of a block's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode {
    /// Default operand and address size.
    pub code_size: CodeSize,
    /// Privilege level.
    pub cpl: Cpl,
    /// `CS.base`; 0 in 64-bit mode.
    pub cs_base: u64,
    /// Address space, as the trace numbers them (a process, or a CR3 value).
    pub space: u32,
    /// How the fields above are known.
    pub source: ModeSource,
}

impl Mode {
    /// 64-bit user mode in address space `space`, known from the kind of recorder.
    #[must_use]
    pub const fn user64(space: u32) -> Self {
        Self {
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring3,
            cs_base: 0,
            space,
            source: ModeSource::Inferred,
        }
    }
}

/// How a block can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminator {
    /// The last instruction is no branch: the producer cut the block (page end, size limit,
    /// an instruction that ends a translation block).
    Sequential,
    /// The last instruction is this branch.
    Branch(BranchInstruction),
}

/// Why bytes do not make a block.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// More instructions than any producer makes.
    #[error("block at {address:#x} has {instructions} instructions, at most {MAX_INSTRUCTIONS}")]
    TooLong {
        /// Effective address of the block.
        address: u64,
        /// Number of instructions.
        instructions: usize,
    },
    /// The stated lengths do not add up to the bytes.
    #[error("block at {address:#x}: instruction lengths sum to {sum}, but there are {bytes} bytes")]
    LengthSum {
        /// Effective address of the block.
        address: u64,
        /// Sum of the lengths.
        sum: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// An instruction decodes to another length than stated.
    #[error(
        "instruction at {address:#x} decodes to {decoded} bytes in {bits}-bit code, {stated} stated"
    )]
    LengthMismatch {
        /// Effective address of the instruction.
        address: u64,
        /// Code size, in bits.
        bits: u32,
        /// Length the decoder finds.
        decoded: usize,
        /// Length the producer states.
        stated: usize,
    },
    /// The bytes at this address are no instruction.
    #[error("no instruction at {address:#x} in {bits}-bit code")]
    Undecodable {
        /// Effective address of the instruction.
        address: u64,
        /// Code size, in bits.
        bits: u32,
    },
    /// A control transfer stands before the last instruction.
    #[error("branch at {address:#x} is not the last instruction of its block")]
    BranchInside {
        /// Effective address of the branch.
        address: u64,
    },
}

/// Instructions in a row that are entered at the first one only.
///
/// A branch, if there is one, is the last instruction. A block of no instructions stands for a
/// place where nothing retires: an interrupt taken right at a branch target, or code that the
/// recorder cannot see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    address: u64,
    mode: Mode,
    bytes: Box<[u8]>,
    /// Length of each instruction.
    lengths: Box<[u8]>,
    terminator: Terminator,
    rep_string: bool,
}

impl Block {
    /// Decodes `bytes` at effective address `address` to their end.
    ///
    /// # Errors
    /// Bytes that are no instruction, a branch before the last instruction, a block too long.
    pub fn decode(address: u64, mode: Mode, bytes: &[u8]) -> Result<Self, BlockError> {
        Self::build(address, mode, bytes, None)
    }

    /// As [`Block::decode`], for a producer that knows the instruction lengths.
    ///
    /// An instruction the decoder does not know keeps the stated length and counts as no branch;
    /// one it knows must have the stated length.
    ///
    /// # Errors
    /// As [`Block::decode`], and lengths that do not fit.
    pub fn with_lengths(
        address: u64,
        mode: Mode,
        bytes: &[u8],
        lengths: &[u8],
    ) -> Result<Self, BlockError> {
        let sum: usize = lengths.iter().map(|&l| usize::from(l)).sum();
        if sum != bytes.len() || lengths.contains(&0) {
            return Err(BlockError::LengthSum {
                address,
                sum,
                bytes: bytes.len(),
            });
        }
        Self::build(address, mode, bytes, Some(lengths))
    }

    /// A block of no instructions at `address`.
    #[must_use]
    pub fn empty(address: u64, mode: Mode) -> Self {
        Self {
            address,
            mode,
            bytes: Box::default(),
            lengths: Box::default(),
            terminator: Terminator::Sequential,
            rep_string: false,
        }
    }

    fn build(
        address: u64,
        mode: Mode,
        bytes: &[u8],
        stated: Option<&[u8]>,
    ) -> Result<Self, BlockError> {
        let bits = mode.code_size.bits();
        let mut lengths = Vec::with_capacity(stated.map_or(bytes.len() / 4 + 1, <[u8]>::len));
        let mut terminator = Terminator::Sequential;
        let mut rep_string = false;
        let mut offset = 0;
        while offset < bytes.len() {
            let ip = address.wrapping_add(offset as u64);
            if let Terminator::Branch(_) = terminator {
                return Err(BlockError::BranchInside {
                    address: ip.wrapping_sub(u64::from(lengths.last().copied().unwrap_or(0))),
                });
            }
            if lengths.len() == MAX_INSTRUCTIONS {
                return Err(BlockError::TooLong {
                    address,
                    instructions: lengths.len() + 1,
                });
            }
            let limit = stated.map_or(bytes.len(), |s| offset + usize::from(s[lengths.len()]));
            let window = match stated {
                Some(_) => &bytes[offset..limit],
                None => &bytes[offset..],
            };
            let mut decoder = Decoder::with_ip(bits, window, ip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            let length = if instruction.is_invalid() {
                match stated {
                    // The producer ran it, so it exists; the decoder just does not know it. But
                    // bytes that end too early are a wrong length, not an unknown instruction.
                    Some(_) if decoder.last_error() != iced_x86::DecoderError::NoMoreBytes => {
                        window.len()
                    }
                    Some(_) => {
                        return Err(BlockError::LengthMismatch {
                            address: ip,
                            bits,
                            decoded: window.len() + 1,
                            stated: window.len(),
                        });
                    }
                    None => return Err(BlockError::Undecodable { address: ip, bits }),
                }
            } else {
                if stated.is_some() && instruction.len() != window.len() {
                    return Err(BlockError::LengthMismatch {
                        address: ip,
                        bits,
                        decoded: instruction.len(),
                        stated: window.len(),
                    });
                }
                if let Some(branch) = classify(&instruction) {
                    terminator = Terminator::Branch(branch);
                }
                rep_string = instruction.is_string_instruction()
                    && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
                instruction.len()
            };
            lengths.push(u8::try_from(length).unwrap_or(u8::MAX));
            offset += length;
        }
        Ok(Self {
            address,
            mode,
            bytes: bytes.into(),
            lengths: lengths.into(),
            terminator,
            rep_string,
        })
    }

    /// Effective address of the first instruction.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Mode the block runs in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The instruction bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Length of each instruction, in bytes.
    #[must_use]
    pub fn lengths(&self) -> &[u8] {
        &self.lengths
    }

    /// Number of instructions.
    #[must_use]
    pub fn instructions(&self) -> u16 {
        // At most MAX_INSTRUCTIONS.
        self.lengths.len() as u16
    }

    /// Effective address of instruction `index`; the address behind the block for
    /// `index == self.instructions()` and beyond.
    #[must_use]
    pub fn address_of(&self, index: u16) -> u64 {
        let skipped: u64 = self
            .lengths
            .iter()
            .take(usize::from(index))
            .map(|&l| u64::from(l))
            .sum();
        self.truncate(self.address.wrapping_add(skipped))
    }

    /// Effective address of the last instruction (of the block itself if it is empty).
    #[must_use]
    pub fn last_address(&self) -> u64 {
        self.address_of(self.instructions().saturating_sub(1))
    }

    /// Effective address of the instruction behind the block.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address_of(self.instructions())
    }

    /// How the block can end.
    #[must_use]
    pub fn terminator(&self) -> Terminator {
        self.terminator
    }

    /// Whether the last instruction is a string instruction with a REP prefix. Its repeats retire
    /// as one instruction and are no branches.
    #[must_use]
    pub fn ends_in_rep_string(&self) -> bool {
        self.rep_string
    }

    /// The branch the block ends in.
    #[must_use]
    pub fn branch(&self) -> Option<BranchInstruction> {
        match self.terminator {
            Terminator::Branch(branch) => Some(branch),
            Terminator::Sequential => None,
        }
    }

    /// An instruction pointer wraps at the size of the code segment.
    fn truncate(&self, address: u64) -> u64 {
        match self.mode.code_size {
            CodeSize::Bits64 => address,
            CodeSize::Bits32 | CodeSize::Bits16 => address & 0xffff_ffff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_addresses_and_branch() {
        // mov eax, 1; add rax, rbx; jne -7
        let bytes = [0xb8, 1, 0, 0, 0, 0x48, 0x01, 0xd8, 0x75, 0xf6];
        let block = Block::decode(0x1000, Mode::user64(0), &bytes).unwrap();
        assert_eq!(block.lengths(), [5, 3, 2]);
        assert_eq!((block.last_address(), block.end()), (0x1008, 0x100a));
        assert_eq!(block.branch().unwrap().target, Some(0x1000));
        assert!(!block.ends_in_rep_string());
    }

    #[test]
    fn rep_prefix_on_a_string_instruction_only() {
        let rep = Block::decode(0, Mode::user64(0), &[0x90, 0xf3, 0xa4]).unwrap();
        assert!(rep.ends_in_rep_string() && rep.branch().is_none());
        let pause = Block::decode(0, Mode::user64(0), &[0xf3, 0x90]).unwrap();
        assert!(!pause.ends_in_rep_string());
    }

    #[test]
    fn refuses_what_is_no_block() {
        let mode = Mode::user64(0);
        assert_eq!(
            Block::decode(0x10, mode, &[0xc3, 0x90]),
            Err(BlockError::BranchInside { address: 0x10 })
        );
        assert!(matches!(
            Block::decode(0, mode, &[0x06]),
            Err(BlockError::Undecodable { .. })
        ));
        assert!(matches!(
            Block::with_lengths(0, mode, &[0x90, 0x90], &[2]),
            Err(BlockError::LengthMismatch {
                decoded: 1,
                stated: 2,
                ..
            })
        ));
        assert!(matches!(
            Block::with_lengths(0, mode, &[0x90], &[2]),
            Err(BlockError::LengthSum { .. })
        ));
        let long = vec![0x90; MAX_INSTRUCTIONS + 1];
        assert!(matches!(
            Block::decode(0, mode, &long),
            Err(BlockError::TooLong { .. })
        ));
    }

    #[test]
    fn wrong_code_size_shows_as_a_length_mismatch() {
        // mov eax, imm32 has five bytes in 32-bit and 64-bit code, three in 16-bit code.
        let mode = Mode {
            code_size: CodeSize::Bits16,
            ..Mode::user64(0)
        };
        assert!(matches!(
            Block::with_lengths(0, mode, &[0xb8, 1, 0, 0, 0], &[5]),
            Err(BlockError::LengthMismatch {
                decoded: 3,
                stated: 5,
                ..
            })
        ));
    }
}
