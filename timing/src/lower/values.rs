//! Numbers of the values that instructions read and write.

use iced_x86::{Register, RflagsBits};

use crate::dependence::{NO_VALUE, Value};

/// The carry flag.
pub(crate) const CARRY: Value = 57;
/// Overflow, sign, zero, adjust and parity, which are renamed together.
pub(crate) const STATUS: Value = 58;
/// What the load of the current instruction delivers.
pub(crate) const LOADED: Value = 59;
/// What the current instruction stores.
pub(crate) const STORED: Value = 60;
/// A load that waited for a store to leave the store buffer.
pub(crate) const BLOCKED: Value = 61;
/// Takes outputs that nothing reads.
pub(crate) const SINK: Value = 62;
/// The latest store leaving the store buffer, in order.
pub(crate) const COMMITTED: Value = 63;
/// All that came before an instruction that serializes.
pub(crate) const DRAINED: Value = 64;
/// The first store of the block.
pub(crate) const FIRST_STORE: Value = 65;
/// Registers and flags.
pub(super) const ARCHITECTURAL: core::ops::RangeInclusive<Value> = 1..=STATUS;
/// The stack pointer.
pub(crate) const STACK: Value = 5;

/// The renamed register that `register` is part of, or [`NO_VALUE`].
pub(crate) fn value_of(register: Register) -> Value {
    let full = register.full_register();
    if full.is_gpr64() {
        1 + full.number() as Value
    } else if full.is_vector_register() {
        17 + full.number() as Value
    } else if full.is_mm() || full.is_st() {
        49 + full.number() as Value
    } else {
        NO_VALUE
    }
}

/// The groups of flags that RFLAGS bits belong to.
pub(super) fn flag_values(bits: u32) -> impl Iterator<Item = Value> {
    const STATUS_BITS: u32 =
        RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::PF;
    [
        (bits & RflagsBits::CF != 0, CARRY),
        (bits & STATUS_BITS != 0, STATUS),
    ]
    .into_iter()
    .filter_map(|(has, value)| has.then_some(value))
}

/// Whether a write of `register` keeps the rest of the full register, so that it also reads it.
pub(super) fn merges(register: Register) -> bool {
    register.is_gpr8() || register.is_gpr16()
}
