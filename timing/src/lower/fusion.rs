//! Micro-fusion, its undoing at rename, and macro-fusion.

use iced_x86::{ConditionCode, Instruction, InstructionInfo, Mnemonic, OpAccess, OpKind, Register};

use crate::forms::Form;
use crate::microarchitecture::Parameters;

/// Bytes.
const CACHE_LINE: u64 = 64;

/// Fused micro-operations of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fused {
    /// As the decoders deliver them.
    pub(crate) decoded: u16,
    /// As they are renamed.
    pub(crate) issued: u16,
}

/// How the memory operations of an instruction join its other micro-operations.
pub(crate) fn fuse(
    instruction: &Instruction,
    info: &InstructionInfo,
    form: &Form,
    loads: u16,
    stores: u16,
    parameters: &Parameters,
) -> Fused {
    // A load joins an operation, a store address its data.
    let decoded = (form.slots + stores + loads.saturating_sub(form.slots.min(1))).max(1);
    let mut issued = decoded;
    if instruction.memory_index() != Register::None {
        let joined = form.slots > 0 && loads > 0;
        if joined && (stores > 0 || !keeps_index(instruction, info, parameters)) {
            issued += 1;
        }
        if stores > 0 && !(parameters.fuse_indexed_store && loads == 0) {
            issued += 1;
        }
    }
    Fused { decoded, issued }
}

/// Whether an indexed load stays with its operation: two operands, of which the first is a
/// register that is read and written.
fn keeps_index(instruction: &Instruction, info: &InstructionInfo, parameters: &Parameters) -> bool {
    parameters.fuse_indexed
        && instruction.op_count() == 2
        && instruction.op0_kind() == OpKind::Register
        && info.op0_access() == OpAccess::ReadWrite
}

/// Whether some conditional branch would become one micro-operation with `first`.
pub(crate) fn may_fuse(first: &Instruction) -> bool {
    let immediate = (0..first.op_count()).any(|op| first.op_kind(op) >= OpKind::Immediate8);
    let memory = (0..first.op_count()).any(|op| first.op_kind(op) == OpKind::Memory);
    let writes_memory = memory && first.op0_kind() == OpKind::Memory;
    match first.mnemonic() {
        Mnemonic::Test | Mnemonic::Cmp => !(memory && immediate),
        Mnemonic::And | Mnemonic::Add | Mnemonic::Sub => !writes_memory,
        Mnemonic::Inc | Mnemonic::Dec => !memory,
        _ => false,
    }
}

/// [`macro_fuses`] of instructions whose addresses are known: not if the branch begins a cache line (optimization
/// manual, "Macro-Fusion").
pub(crate) fn macro_fuses_at(first: &Instruction, second: &Instruction) -> bool {
    !second.ip().is_multiple_of(CACHE_LINE) && macro_fuses(first, second)
}

/// Whether `first` and the conditional branch `second` become one micro-operation.
pub(crate) fn macro_fuses(first: &Instruction, second: &Instruction) -> bool {
    use ConditionCode as C;
    if !may_fuse(first) || !(second.is_jcc_short() || second.is_jcc_near()) {
        return false;
    }
    let condition = second.condition_code();
    let carry = matches!(condition, C::b | C::ae | C::be | C::a);
    let rare = matches!(condition, C::s | C::ns | C::p | C::np | C::o | C::no);
    match first.mnemonic() {
        Mnemonic::Test | Mnemonic::And => true,
        Mnemonic::Inc | Mnemonic::Dec => !rare && !carry,
        _ => !rare,
    }
}
