//! String instructions.

use iced_x86::{Instruction, Register};

/// The registers that a string instruction moves on: an addition of its own, which waits for no memory.
pub(super) fn pointers(instruction: &Instruction) -> &'static [Register] {
    if !instruction.is_string_instruction() {
        return &[];
    }
    &[Register::RSI, Register::RDI]
}

/// Whether `instruction` is one that repeats.
pub(crate) fn repeats(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
        && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}
