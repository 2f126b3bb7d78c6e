//! From raw executed blocks to steps.
//!
//! A recorder delivers, per stream (a thread or a vCPU), the blocks it saw executing. What happened
//! *between* two of them is not recorded; [`Assembler`] finds it out and emits [`vlbr_cpu::Step`]s.
//!
//! # Rules
//!
//! 1. A block that is followed by the block behind it left no branch, unless its last instruction
//!    is an unconditional one. Blocks that end at a page end, at a size limit or at an instruction
//!    the recorder stops at are no branches either.
//! 2. A block that ends in a REP string instruction and is followed by that instruction alone
//!    repeats it. The instruction retires once, when the repeating ends; the repeats are neither
//!    instructions nor branches. Interrupted in the middle, it has not retired: the block that
//!    resumes at it retires it.
//! 3. If control goes elsewhere without a branch, an *event* (interrupt or exception) struck. Where
//!    it struck shows when the handler returns by IRET (a signal handler: `rt_sigreturn`): inside
//!    the block, then only the instructions before that place retired and the event is an
//!    exception; or behind it, then the event is an interrupt, or an exception if that handler was
//!    seen to serve one before. A REP string instruction that is resumed can have been interrupted
//!    as well as have faulted: interrupt, unless the handler is known for exceptions.
//! 4. An event can strike right behind a branch, so that the branch seems to go to the handler. A
//!    direct branch has its target in the instruction. An indirect one is under suspicion if it
//!    goes to a place where events went before, or if it would change the privilege level. The
//!    return shows the true target, and for a conditional branch the direction. A return to where
//!    the direct branch goes, inside the block itself, does not tell an interrupt behind the branch
//!    from an exception of the instruction there: interrupt, unless the handler is known for
//!    exceptions. The branch is one step; the event is a second step, of a block of no instructions
//!    at the target.
//! 5. A block can be cut short without an event (code that modifies itself, I/O): the next block
//!    starts inside. Its instruction count is an upper bound, and what lies before the next block's
//!    start retired. Cut at its first instruction, it retired nothing and makes no step. A block
//!    that ends in a branch which may go there is taken to have run to its end, with one exception:
//!    a store into the page the code runs from. QEMU drops the block then and runs the store again
//!    as a block of its own. A next block that is one storing instruction of the block, the bytes
//!    the same, not at a page end, shows this whatever the branch. An indirect call whose push is
//!    that store is run again alone too. [`Assembler::exact`] is for recorders without such blocks.
//!    QEMU also counts the first part of an instruction that crosses a page end to the block before
//!    it; it is left out there.
//! 6. Direct and indirect far transfers are branches like others.
//! 7. A recorder that sees events says where they struck ([`Assembler::event`]), and one that sees the
//!    stack of a handler what it gives as interrupted ([`Assembler::likely_event`]). Then rules 3 and 4
//!    have nothing to find out. As a handler can be jumped to or called too, the second is taken only if
//!    an event can have struck there: in or right behind the block, at the target of its branch. Behind an
//!    indirect call that is its target, not the instruction behind it, whose address the call itself put
//!    on the stack.
//!
//! An event step stays open in the chunk under construction until a return resolves it. Returns are
//! paired by address: the newest open event that the resumed address proves, else the newest whose
//! indirect branch may have gone there. If none comes before the chunk is sealed, the step stays as
//! it was first written: an event behind a block that ends in no branch or in a conditional one
//! (not taken), at the target of a direct branch; before the last instruction of a block that ends
//! in an indirect branch or a REP string instruction, or whose handler is known for exceptions,
//! or that belongs to a program, ends in a branch and accesses memory or divides: its handler may
//! have left a fault by `longjmp`. [`AssembleStats::unpaired_events`] counts them, and
//! [`AssembleStats::late`] sums up what returns that came later showed to be wrong in the counts. The first event
//! of all that strikes right behind an indirect branch within one privilege level cannot be told
//! from a branch.
//!
//! # User programs
//!
//! Their kernel is not recorded. SYSCALL, SYSENTER and INT n are taken branches to a block of no
//! instructions at [`UNRECORDED_KERNEL`] in ring 0, whose only step is the return: SYSRET if a
//! SYSCALL goes on at the next instruction, else IRET (Linux, `entry_64.S`: any changed RIP makes
//! SYSRET unusable). Signals go the same way. So LBR and counters with a user filter see the
//! records they see on hardware. Far jumps, calls and returns and IRET lead from ring 3 to ring 3:
//! they are far branches within the program.
//!
//! # Modes
//!
//! A mode that the recorder read is [`vlbr_cpu::ModeSource::Recorded`]. Otherwise it is inferred:
//!
//! * A user program runs in ring 3, 64-bit.
//! * Code size of a guest: 64-bit above 4 GiB; else the current one if the block's bytes decode to
//!   the lengths the recorder states, else the first of the others that fits. A stream that begins
//!   at the reset vector or below 1 MiB + 64 KiB begins in 16-bit code. The target of a direct far
//!   jump with an operand-size prefix is tried in the size of that operand first. Outside far
//!   transfers a change is counted as a surprise. In 16-bit code `CS.base` is taken to be the
//!   multiple of 64 KiB below the block.
//! * Privilege of a guest: the high half is ring 0. Control comes to ring 3 only by SYSRET,
//!   SYSEXIT, IRET or far RET from the high half to a low address; near branches, interrupts and
//!   exceptions to low addresses keep the level. So firmware, boot code, EFI calls and a kernel's
//!   low-address trampolines are ring 0. An event that goes to offset 0x8000 of 0x30000 or 0xa0000
//!   is an SMI, with 16-bit ring 0 code; RSM brings back the mode it interrupted. With SMBASE
//!   elsewhere, SMM code that interrupts ring 3 is shown as ring 3.
//! * Address space: 0 for a guest's kernel; for its user code the number of the CR3 value that the
//!   recorder reports, 0 without. For a user program the number of the process image.

mod emit;
mod events;
mod lanes;
mod mode;
mod pending;
mod raw;
mod stats;
mod stream;
mod transition;

#[cfg(test)]
mod tests;

pub use mode::{Kind, UNRECORDED_KERNEL};
pub use raw::{RawBlock, RawBlocks, RawTable, RecordedMode};
pub use stats::{AssembleStats, Late};
pub use stream::{AssembleError, Assembled, Assembler};
