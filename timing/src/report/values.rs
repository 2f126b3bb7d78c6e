//! Names of the values that a chain runs through.

use iced_x86::Register;

use crate::dependence::Value;
use crate::lower::values::{BLOCKED, CARRY, COMMITTED, FIRST_STORE, STATUS};

/// The name of a value that stands between instructions.
pub(super) fn name(value: Value) -> String {
    let register = |first: Register, number: Value| {
        let register = Register::values().nth(first as usize + usize::from(number));
        register.map_or_else(
            || "register".to_owned(),
            |r| format!("{r:?}").to_lowercase(),
        )
    };
    match value {
        1..=16 => register(Register::RAX, value - 1),
        17..=48 => register(Register::XMM0, value - 17),
        49..=56 => register(Register::MM0, value - 49),
        CARRY => "carry flag".to_owned(),
        STATUS => "flags".to_owned(),
        BLOCKED => "a blocked load".to_owned(),
        COMMITTED => "stores in the cache".to_owned(),
        value if value >= FIRST_STORE => "memory".to_owned(),
        _ => "inside".to_owned(),
    }
}

/// Whether the value stands between instructions rather than between parts of one.
pub(super) fn is_visible(value: Value) -> bool {
    value <= STATUS || value == COMMITTED || value >= FIRST_STORE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::values::value_of;

    #[test]
    fn every_register_has_its_name() {
        for (register, expected) in [
            (Register::RAX, "rax"),
            (Register::ESP, "rsp"),
            (Register::R15, "r15"),
            (Register::YMM31, "xmm31"),
            (Register::MM7, "mm7"),
        ] {
            assert_eq!(name(value_of(register)), expected);
        }
    }
}
