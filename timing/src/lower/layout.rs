//! Where an instruction lies and what the predecoder sees of it.

use iced_x86::{ConstantOffsets, EncodingKind, Instruction};

/// An instruction as the front end meets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Offset in the block.
    pub(crate) start: u32,
    /// Length in bytes.
    pub(crate) length: u8,
    /// Offset of the opcode behind the prefixes.
    pub(crate) opcode: u8,
    /// A prefix changes the length.
    pub(crate) length_changing: bool,
    /// Micro-operations that the decoders deliver for it; 0 if fused into the one before.
    pub(crate) decoded: u16,
    /// Needs the first decoder.
    pub(crate) complex: bool,
    /// Decoders it leaves to the instructions behind it.
    pub(crate) leaves: u8,
    /// May fuse with a conditional branch behind it.
    pub(crate) fusible: bool,
    /// Ends a group of decoders.
    pub(crate) branch: bool,
}

/// Number of prefix bytes before the opcode, and whether one changes the length.
pub(crate) fn prefixes(
    instruction: &Instruction,
    bytes: &[u8],
    constants: &ConstantOffsets,
) -> (u8, bool) {
    let mut count = 0;
    let mut operand_size = false;
    for &byte in bytes {
        match byte {
            0x66 => operand_size = true,
            0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x67 => {}
            _ => break,
        }
        count += 1;
    }
    let legacy = instruction.code().encoding() == EncodingKind::Legacy;
    if legacy
        && bytes
            .get(usize::from(count))
            .is_some_and(|b| b & 0xf0 == 0x40)
    {
        count += 1;
    }
    let length_changing = operand_size
        && legacy
        && constants.immediate_size() == 2
        && constants.immediate_offset() > 0;
    (count, length_changing)
}
