//! What instructions do to the contents of registers, as far as addresses need it.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::lower::memory::content::{Content, Registers};

/// What an instruction left.
pub(super) struct Outcome {
    /// Registers as its addresses saw them.
    pub(super) before: Registers,
    /// What it stored, if known.
    pub(super) stored: Option<Content>,
}

/// Runs `instruction`, which writes the registers `written` and loaded `loaded`.
pub(super) fn follow(
    instruction: &Instruction,
    written: u16,
    loaded: Option<Content>,
    registers: &mut Registers,
) -> Outcome {
    let before = *registers;
    let stack = instruction.is_stack_instruction()
        && !matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter);
    let result = result(instruction, loaded, registers);
    for number in 0..16 {
        if written & 1 << number != 0 {
            registers.set(Register::RAX + number as u32, None);
        }
    }
    // POP RSP leaves what it loaded.
    let replaced =
        instruction.mnemonic() == Mnemonic::Pop && instruction.op0_register() == Register::RSP;
    if stack && !replaced {
        let step = Content::number(i64::from(instruction.stack_pointer_increment()));
        let moved = before.full(Register::RSP).and_then(|c| c.plus(step));
        registers.set(Register::RSP, moved);
    }
    let mut stored = None;
    if instruction.mnemonic() == Mnemonic::Push {
        stored = result;
    } else if instruction.op_count() > 0 {
        match instruction.op0_kind() {
            OpKind::Register if written != 0 && result.is_some() => {
                let to = instruction.op0_register();
                let merged = before.full(to);
                if to.size() < 4 {
                    registers.set(to.full_register(), merged);
                }
                registers.set(to, result);
            }
            OpKind::Memory => stored = result,
            _ => {}
        }
    }
    Outcome { before, stored }
}

/// The value that `instruction` writes to its first operand, or pushes.
fn result(
    instruction: &Instruction,
    loaded: Option<Content>,
    registers: &Registers,
) -> Option<Content> {
    use Mnemonic as M;
    let operand = |op: u32| -> Option<Content> {
        match instruction.op_kind(op) {
            OpKind::Register => registers.get(instruction.op_register(op)),
            OpKind::Memory => loaded,
            kind if kind >= OpKind::Immediate8 && kind <= OpKind::Immediate32to64 => {
                Some(Content::number(instruction.immediate(op) as i64))
            }
            _ => None,
        }
    };
    let number = |op: u32| operand(op).and_then(Content::as_number);
    let size = |op: u32| match instruction.op_kind(op) {
        OpKind::Register => instruction.op_register(op).size() as u32,
        OpKind::Memory => instruction.memory_size().size() as u32,
        _ => 8,
    };
    let signed = |op: u32| {
        let unused = 64 - 8 * size(op).min(8);
        number(op).map(|n| n << unused >> unused)
    };
    let done = |n: i64| Content::number(n).low_bytes(i64::from(size(0)));
    let same = instruction.op_count() == 2
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    match instruction.mnemonic() {
        M::Mov | M::Movzx => operand(1),
        M::Movsx | M::Movsxd => done(signed(1)?),
        M::Push => operand(0),
        M::Pop => loaded,
        M::Xor | M::Sub if same => Some(Content::number(0)),
        M::Lea => {
            let mut sum = Content::number(instruction.memory_displacement64() as i64);
            for (register, scale) in [
                (instruction.memory_base(), 1),
                (instruction.memory_index(), instruction.memory_index_scale()),
            ] {
                if register == Register::None {
                    continue;
                }
                sum = sum.plus(registers.get(register)?.times(i64::from(scale))?)?;
            }
            sum.low_bytes(i64::from(size(0)))
        }
        M::Add => operand(0)?.plus(operand(1)?)?.low_bytes(i64::from(size(0))),
        M::Sub => operand(0)?
            .plus(Content::number(number(1)?.wrapping_neg()))?
            .low_bytes(i64::from(size(0))),
        M::Inc => operand(0)?
            .plus(Content::number(1))?
            .low_bytes(i64::from(size(0))),
        M::Dec => operand(0)?
            .plus(Content::number(-1))?
            .low_bytes(i64::from(size(0))),
        M::And => done(number(0)? & number(1)?),
        M::Or => done(number(0)? | number(1)?),
        M::Xor => done(number(0)? ^ number(1)?),
        M::Not => done(!number(0)?),
        M::Neg => done(number(0)?.wrapping_neg()),
        M::Shl => done(number(0)?.checked_shl(count(number(1)?, size(0)))?),
        M::Shr => done((number(0)? as u64).checked_shr(count(number(1)?, size(0)))? as i64),
        M::Sar => done(signed(0)?.checked_shr(count(number(1)?, size(0)))?),
        M::Imul if instruction.op_count() == 2 => done(signed(0)?.wrapping_mul(signed(1)?)),
        M::Imul if instruction.op_count() == 3 => done(signed(1)?.wrapping_mul(signed(2)?)),
        _ => None,
    }
}

/// A shift count as the instruction takes it.
fn count(number: i64, size: u32) -> u32 {
    (number & if size == 8 { 63 } else { 31 }) as u32
}
