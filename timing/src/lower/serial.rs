//! Cycles that belong to one instruction alone.

use iced_x86::{Code, Instruction, Mnemonic};

use crate::forms::Form;
use crate::lower::string::repeats;
use crate::microarchitecture::Parameters;

/// Cycles that `instruction`, whose costs are `form`, takes at least, whatever stands around it. `stores`: it
/// writes memory.
pub(crate) fn floor(
    instruction: &Instruction,
    form: &Form,
    stores: bool,
    parameters: &Parameters,
) -> f32 {
    let mut floor = form.floor;
    if serializes(instruction).is_some() {
        floor = floor.max(form.latency);
    }
    // XCHG with memory locks without the prefix.
    if instruction.has_lock_prefix() || (stores && instruction.mnemonic() == Mnemonic::Xchg) {
        floor += parameters.lock;
    }
    if repeats(instruction) {
        floor += parameters.rep;
    }
    floor
}

/// What waits until an instruction is done, which itself waits for all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Serial {
    /// What executes behind it.
    Execution,
    /// What is fetched behind it.
    Fetch,
}

/// What waits for `instruction`, if it serializes: those that SDM vol. 3A calls serializing instructions, and
/// LFENCE, behind which instructions are fetched and decoded.
pub(crate) fn serializes(instruction: &Instruction) -> Option<Serial> {
    use Mnemonic as M;
    let fetch = match instruction.mnemonic() {
        M::Lfence => return Some(Serial::Execution),
        M::Cpuid
        | M::Iret
        | M::Iretd
        | M::Iretq
        | M::Rsm
        | M::Serialize
        | M::Invd
        | M::Invept
        | M::Invlpg
        | M::Invpcid
        | M::Invvpid
        | M::Lgdt
        | M::Lidt
        | M::Lldt
        | M::Ltr
        | M::Wbinvd
        | M::Wbnoinvd
        | M::Wrmsr => true,
        // To a control or debug register; CR8 does not.
        M::Mov => {
            matches!(
                instruction.code(),
                Code::Mov_cr_r64 | Code::Mov_cr_r32 | Code::Mov_dr_r64 | Code::Mov_dr_r32
            ) && instruction.op0_register() != iced_x86::Register::CR8
        }
        _ => false,
    };
    fetch.then_some(Serial::Fetch)
}
