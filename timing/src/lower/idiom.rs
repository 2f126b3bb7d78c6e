//! Instructions that the renamer finishes without an execution port.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::microarchitecture::Parameters;

/// How the renamer treats an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idiom {
    /// It executes.
    None,
    /// It sets its destination to zero.
    Zero,
    /// It sets every bit of its destination. It executes, but waits for nothing.
    Ones,
    /// It renames its destination to its source.
    Move,
}

/// What the renamer makes of `instruction`. It sees nothing special in one with a mask.
pub(crate) fn idiom(instruction: &Instruction, parameters: &Parameters) -> Idiom {
    if instruction.has_op_mask() {
        Idiom::None
    } else if is_zero(instruction) {
        Idiom::Zero
    } else if is_ones(instruction) {
        Idiom::Ones
    } else if is_eliminated_move(instruction, parameters) {
        Idiom::Move
    } else {
        Idiom::None
    }
}

fn registers(instruction: &Instruction, count: u32) -> bool {
    instruction.op_count() == count
        && (0..count).all(|op| instruction.op_kind(op) == OpKind::Register)
}

/// A vector register compared for equality with itself.
fn is_ones(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let count = instruction.op_count();
    registers(instruction, count)
        && count >= 2
        && instruction.op_register(count - 1) == instruction.op_register(count - 2)
        && match instruction.mnemonic() {
            M::Pcmpeqb | M::Pcmpeqw | M::Pcmpeqd => instruction.op0_register().is_xmm(),
            M::Vpcmpeqb | M::Vpcmpeqw | M::Vpcmpeqd | M::Vpcmpeqq => {
                !instruction.op0_register().is_k()
            }
            _ => false,
        }
}

/// A register combined with itself where the result does not depend on it.
fn is_zero(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let sources = match instruction.op_count() {
        2 if registers(instruction, 2) => (instruction.op0_register(), instruction.op1_register()),
        3 if registers(instruction, 3) => (instruction.op1_register(), instruction.op2_register()),
        _ => return false,
    };
    if sources.0 != sources.1 {
        return false;
    }
    match instruction.mnemonic() {
        M::Xor | M::Sub => sources.0.is_gpr32() || sources.0.is_gpr64(),
        M::Pxor | M::Psubb | M::Psubw | M::Psubd | M::Psubq => sources.0.is_xmm(),
        M::Pcmpgtb | M::Pcmpgtw | M::Pcmpgtd | M::Pcmpgtq => sources.0.is_xmm(),
        M::Xorps | M::Xorpd | M::Vxorps | M::Vxorpd => true,
        M::Vpxor | M::Vpxord | M::Vpxorq => true,
        M::Vpsubb | M::Vpsubw | M::Vpsubd | M::Vpsubq => true,
        // Into a mask register they are comparisons as any other.
        M::Vpcmpgtb | M::Vpcmpgtw | M::Vpcmpgtd | M::Vpcmpgtq => !instruction.op0_register().is_k(),
        _ => false,
    }
}

fn is_eliminated_move(instruction: &Instruction, parameters: &Parameters) -> bool {
    use Mnemonic as M;
    if !registers(instruction, 2) {
        return false;
    }
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    // A move of a register to itself executes.
    if to.full_register() == from.full_register() {
        return false;
    }
    match instruction.mnemonic() {
        M::Mov => parameters.eliminate && (to.is_gpr32() || to.is_gpr64()) && from.is_gpr(),
        // Only from the low byte.
        M::Movzx => {
            parameters.eliminate
                && matches!(
                    instruction.code(),
                    Code::Movzx_r32_rm8 | Code::Movzx_r64_rm8
                )
                && !is_high_byte(from)
        }
        M::Movaps | M::Movapd | M::Movups | M::Movupd | M::Movdqa | M::Movdqu => {
            parameters.eliminate_vector
        }
        M::Vmovaps | M::Vmovapd | M::Vmovups | M::Vmovupd | M::Vmovdqa | M::Vmovdqu => {
            parameters.eliminate_vector
        }
        M::Vmovdqa32 | M::Vmovdqa64 => parameters.eliminate_vector,
        M::Vmovdqu8 | M::Vmovdqu16 | M::Vmovdqu32 | M::Vmovdqu64 => parameters.eliminate_vector,
        _ => false,
    }
}

/// AH, CH, DH or BH.
pub(super) fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::tests::{decode, skylake};

    #[test]
    fn what_the_renamer_finishes() {
        for (bytes, expected) in [
            (&[0x31, 0xc0][..], Idiom::Zero),                     // xor eax, eax
            (&[0x66, 0x31, 0xc0], Idiom::None),                   // xor ax, ax
            (&[0x19, 0xc0], Idiom::None),                         // sbb eax, eax
            (&[0xc5, 0xf8, 0x57, 0xc0], Idiom::Zero),             // vxorps xmm0, xmm0, xmm0
            (&[0x66, 0x0f, 0x76, 0xc0], Idiom::Ones),             // pcmpeqd xmm0, xmm0
            (&[0x48, 0x89, 0xd8], Idiom::Move),                   // mov rax, rbx
            (&[0x66, 0x89, 0xd8], Idiom::None),                   // mov ax, bx
            (&[0x0f, 0xb6, 0xc3], Idiom::Move),                   // movzx eax, bl
            (&[0x0f, 0xb6, 0xc0], Idiom::None),                   // movzx eax, al
            (&[0x0f, 0xb6, 0xc7], Idiom::None),                   // movzx eax, bh
            (&[0x0f, 0xb7, 0xc3], Idiom::None),                   // movzx eax, bx
            (&[0x0f, 0x28, 0xc1], Idiom::Move),                   // movaps xmm0, xmm1
            (&[0x66, 0x0f, 0x38, 0x37, 0xc0], Idiom::Zero),       // pcmpgtq xmm0, xmm0
            (&[0x62, 0xf1, 0x7d, 0x08, 0xef, 0xc0], Idiom::Zero), // vpxord xmm0, xmm0, xmm0
            (&[0x62, 0xf1, 0x7d, 0x09, 0xef, 0xc0], Idiom::None), // the same with mask k1
            (&[0x62, 0xf1, 0x7d, 0x08, 0x66, 0xc0], Idiom::None), // vpcmpgtd k0, xmm0, xmm0
            (&[0x62, 0xf1, 0x7d, 0x08, 0x76, 0xc0], Idiom::None), // vpcmpeqd k0, xmm0, xmm0
            (&[0x62, 0xf1, 0x7d, 0x48, 0x6f, 0xc1], Idiom::Move), // vmovdqa32 zmm0, zmm1
            (&[0x62, 0xf1, 0x7d, 0x49, 0x6f, 0xc1], Idiom::None), // the same with mask k1
            // uops.info, MOV and MOVAPS with one register: a port is used.
            (&[0x89, 0xc0], Idiom::None),             // mov eax, eax
            (&[0x48, 0x89, 0xc0], Idiom::None),       // mov rax, rax
            (&[0x0f, 0x28, 0xc0], Idiom::None),       // movaps xmm0, xmm0
            (&[0xc5, 0xfc, 0x28, 0xc0], Idiom::None), // vmovaps ymm0, ymm0
        ] {
            let instruction = decode(bytes);
            let found = idiom(&instruction, &skylake().parameters);
            assert_eq!(found, expected, "{instruction}");
        }
    }
}
