//! String instructions.

use iced_x86::{Instruction, OpKind, Register};

/// Cycles of the addition that moves a pointer on.
pub(crate) const STEP: u8 = 1;

/// The registers that a string instruction moves on: an addition of its own each, which waits for no memory.
pub(crate) fn pointers(instruction: &Instruction) -> &'static [Register] {
    if !instruction.is_string_instruction() {
        return &[];
    }
    let through = |kinds: [OpKind; 3]| {
        (0..instruction.op_count()).any(|op| kinds.contains(&instruction.op_kind(op)))
    };
    let source = through([
        OpKind::MemorySegRSI,
        OpKind::MemorySegESI,
        OpKind::MemorySegSI,
    ]);
    let destination = through([OpKind::MemoryESRDI, OpKind::MemoryESEDI, OpKind::MemoryESDI]);
    match (source, destination) {
        (true, true) => &[Register::RSI, Register::RDI],
        (true, false) => &[Register::RSI],
        (false, true) => &[Register::RDI],
        (false, false) => &[],
    }
}

/// Whether `instruction` is one that repeats.
pub(crate) fn repeats(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
        && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}
