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
    if serializes(instruction) {
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

/// Whether what is behind `instruction` begins only when it is done, and it begins when all before it is: the
/// serializing instructions of SDM vol. 3A, "Serializing instructions", and LFENCE.
pub(crate) fn serializes(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
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
        | M::Wrmsr
        | M::Lfence => true,
        // To a control or debug register; CR8 does not.
        M::Mov => {
            matches!(
                instruction.code(),
                Code::Mov_cr_r64 | Code::Mov_cr_r32 | Code::Mov_dr_r64 | Code::Mov_dr_r32
            ) && instruction.op0_register() != iced_x86::Register::CR8
        }
        _ => false,
    }
}
