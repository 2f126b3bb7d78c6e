//! What an instruction waits for and what waits for it.

use iced_x86::{Instruction, InstructionInfo, Mnemonic, OpKind, Register, UsedMemory};

use crate::dependence::{Dependences, NO_VALUE, Value};
use crate::forms::{Form, Role};
use crate::lower::idiom::{Idiom, is_high_byte};
use crate::lower::string::pointers;
use crate::lower::values::{LOADED, STORED, flag_values, merges, value_of};
use crate::lower::{memory_role, reads, writes};
use crate::microarchitecture::Parameters;

/// An instruction without its loads and stores.
pub(crate) struct Operation<'a> {
    pub(crate) instruction: &'a Instruction,
    pub(crate) info: &'a InstructionInfo,
    pub(crate) form: &'a Form,
    pub(crate) idiom: Idiom,
    /// The stack engine keeps its RSP.
    pub(crate) stack: bool,
    pub(crate) loads: bool,
    pub(crate) stores: bool,
    pub(crate) slow_lea: Option<f32>,
}

impl Operation<'_> {
    fn latency(&self, role: Role) -> f32 {
        match (self.idiom, self.slow_lea) {
            (Idiom::None | Idiom::Ones, Some(latency)) => latency,
            (Idiom::None | Idiom::Ones, None) => self.form.from(role),
            _ => 0.0,
        }
    }

    /// Pushes what the operation waits for.
    pub(crate) fn inputs(&self, to: &mut Dependences) {
        if matches!(self.idiom, Idiom::Zero | Idiom::Ones) {
            return;
        }
        let instruction = self.instruction;
        for op in 0..instruction.op_count() {
            let access = self.info.op_access(op);
            if instruction.op_kind(op) != OpKind::Register {
                continue;
            }
            let register = instruction.op_register(op);
            let merging = writes(access) && merges(register);
            if reads(access) || merging || (op == 0 && self.form.reads_destination) {
                push(
                    to,
                    value_of(register),
                    self.latency(Role::Operand(op as u8)),
                );
            }
        }
        if instruction.mnemonic() == Mnemonic::Lea {
            for register in [instruction.memory_base(), instruction.memory_index()] {
                push(to, value_of(register), self.latency(Role::Operand(1)));
            }
        } else {
            self.implicit(|register, access| {
                if reads(access) || merges(register) {
                    push(to, value_of(register), self.latency(Role::Implicit));
                }
            });
        }
        for flags in flag_values(instruction.rflags_read()) {
            push(to, flags, self.latency(Role::Flags));
        }
        if self.keeps_flags() {
            for flags in flag_values(instruction.rflags_modified()) {
                push(to, flags, self.latency(Role::Flags));
            }
        }
        if self.loads {
            push(to, LOADED, self.latency(memory_role(instruction)));
        }
    }

    /// Pushes what waits for the operation.
    pub(crate) fn outputs(&self, to: &mut Dependences) {
        let instruction = self.instruction;
        for op in 0..instruction.op_count() {
            if instruction.op_kind(op) == OpKind::Register && writes(self.info.op_access(op)) {
                let value = value_of(instruction.op_register(op));
                if value != NO_VALUE {
                    to.output(value, self.form.to(Role::Operand(op as u8)));
                }
            }
        }
        self.implicit(|register, access| {
            if writes(access) && value_of(register) != NO_VALUE {
                let role = match register.full_register() {
                    Register::RDX => Role::High,
                    _ => Role::Implicit,
                };
                to.output(value_of(register), self.form.to(role));
            }
        });
        for flags in flag_values(instruction.rflags_modified()) {
            to.output(flags, self.form.to(Role::Flags));
        }
        if self.stores {
            to.output(STORED, self.form.to(memory_role(instruction)));
        }
    }

    /// Registers that are neither explicit operands nor part of an address.
    fn implicit(&self, mut each: impl FnMut(Register, iced_x86::OpAccess)) {
        let instruction = self.instruction;
        let pointers = pointers(instruction);
        for used in self.info.used_registers() {
            let register = used.register();
            let full = register.full_register();
            if self.stack && full == Register::RSP || pointers.contains(&full) {
                continue;
            }
            let explicit = (0..instruction.op_count()).any(|op| {
                instruction.op_kind(op) == OpKind::Register
                    && instruction.op_register(op).full_register() == full
            });
            let address =
                !writes(used.access())
                    && self.info.used_memory().iter().any(|m| {
                        m.base().full_register() == full || m.index().full_register() == full
                    });
            if !explicit && !address {
                each(register, used.access());
            }
        }
    }

    /// A shift or rotate by CL leaves the flags as they were if the count is zero.
    fn keeps_flags(&self) -> bool {
        use Mnemonic as M;
        let by_register = self.instruction.op_count() == 2
            && self.instruction.op1_kind() == OpKind::Register
            && self.instruction.op1_register() == Register::CL;
        by_register
            && matches!(
                self.instruction.mnemonic(),
                M::Shl | M::Shr | M::Sar | M::Rol | M::Ror
            )
    }
}

fn push(to: &mut Dependences, value: Value, latency: f32) {
    if value != NO_VALUE {
        to.input(value, latency);
    }
}

/// The latency of an LEA that adds three things; of another instruction none.
pub(crate) fn slow_lea(instruction: &Instruction, parameters: &Parameters) -> Option<f32> {
    is_slow_lea(instruction).then(|| match instruction.memory_index_scale() {
        1 => parameters.slow_lea,
        _ => parameters.slow_lea_scaled,
    })
}

/// An LEA that adds three things.
pub(crate) fn is_slow_lea(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Lea
        && instruction.memory_base() != Register::None
        && instruction.memory_index() != Register::None
        && instruction.memory_displ_size() != 0
}

/// From address to loaded value.
pub(crate) fn load_latency(
    instruction: &Instruction,
    memory: &UsedMemory,
    loaded: u16,
    parameters: &Parameters,
) -> f32 {
    if let Some(latency) = vector_load_latency(instruction, parameters) {
        return latency;
    }
    let base = memory.base().full_register();
    let fast = memory.index() == Register::None
        && base.is_gpr64()
        && loaded & 1 << base.number() != 0
        && memory.displacement() < 2048;
    if fast {
        parameters.load_fast
    } else {
        parameters.load
    }
}

/// From address to a value in a vector register, if the instruction has one.
pub(crate) fn vector_load_latency(
    instruction: &Instruction,
    parameters: &Parameters,
) -> Option<f32> {
    (0..instruction.op_count())
        .filter(|&op| instruction.op_kind(op) == OpKind::Register)
        .map(|op| instruction.op_register(op))
        .find(|r| r.is_vector_register())
        .map(|register| {
            if register.is_ymm() || register.is_zmm() {
                parameters.load_wide
            } else {
                parameters.load_vector
            }
        })
}

/// The bit of the general-purpose register that a load into `register` fills.
pub(crate) fn loads_whole(register: Register) -> u16 {
    let full = register.full_register();
    if full.is_gpr64() && !merges(register) {
        1 << full.number()
    } else {
        0
    }
}

/// General-purpose registers, one bit each, that an instruction reads as a whole, writes as a whole, and of which it
/// writes the high byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HighBytes {
    reads: u16,
    writes: u16,
    apart: u16,
}

impl HighBytes {
    pub(crate) fn of(info: &InstructionInfo) -> Self {
        let bit = |register: Register| match register.full_register() {
            full if full.is_gpr64() => 1_u16 << full.number(),
            _ => 0,
        };
        let mut masks = Self::default();
        for used in info.used_registers() {
            let register = used.register();
            if is_high_byte(register) {
                if writes(used.access()) {
                    masks.apart |= bit(register);
                }
                continue;
            }
            if reads(used.access()) && !register.is_gpr8() {
                masks.reads |= bit(register);
            }
            if writes(used.access()) && register.size() >= 4 {
                masks.writes |= bit(register);
            }
        }
        masks
    }

    /// Whether it writes the high byte of a register.
    pub(crate) fn writes_apart(self) -> bool {
        self.apart != 0
    }

    /// Which registers have a high byte that is renamed apart (`high`, one bit each): how many must be joined
    /// before the instruction can read them, and which remain.
    #[inline]
    pub(crate) fn follow(self, high: u16) -> (u32, u16) {
        let joined = self.reads & high;
        (
            joined.count_ones(),
            high & !joined & !self.writes | self.apart,
        )
    }
}

/// General-purpose registers that an instruction writes, one bit each.
pub(crate) fn written(info: &InstructionInfo) -> u16 {
    info.used_registers()
        .iter()
        .filter(|used| writes(used.access()) && used.register().full_register().is_gpr64())
        .fold(0, |bits, used| {
            bits | 1 << used.register().full_register().number()
        })
}
