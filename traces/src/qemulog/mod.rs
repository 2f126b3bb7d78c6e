//! Reader of `qemu -d exec,nochain,in_asm` text logs: a recording that any stock QEMU makes.
//!
//! Every executed block is a line
//!
//! ```text
//! Trace 0: 0x7fed15000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
//! ```
//!
//! with the vCPU (or thread) number, the host address of the translation, and `CS.base`, linear
//! address, flags and translation flags. The flags give privilege level (bits 1:0) and code size
//! (bit 4: 32-bit, bit 15: 64-bit; QEMU, `target/i386/cpu.h`, `HF_*`), so every mode is recorded.
//! Code comes from the `IN:` listings that `in_asm` prints when a block is translated, or from an
//! ELF file for blocks without listing. A block taken from a file reaches to the next branch, which
//! can be further than QEMU's; the assembler cuts it where the next block starts.
//!
//! `nochain` is needed: without it QEMU goes from block to block without a line. A line that says
//! that two blocks were linked is therefore an error. `Stopped execution` takes back the line
//! before it. Memory is bounded by the code, not by the length of the log.

mod lines;
mod reader;

pub use reader::{Executed, LogCode, LogError, LogProblem, LogReader};

#[cfg(test)]
mod tests;
