//! The hash of a final state.

use core::fmt::Write;

use sha2::{Digest, Sha256};
use vlbr_arch::Msr;

use super::hex;
use super::undefined::Masks;

/// The registers of a logical processor in ascending order, `None` where RDMSR gives `#GP`.
pub(super) type State = Vec<(Msr, Option<u64>)>;

/// The text whose SHA-256 is the hash: a line `CPU MSR VALUE MASK` per register. VALUE has undefined
/// bits as 0; a register that faults reads `gp`, unless another could read it.
fn canonical(states: &[State], masks: &[Masks]) -> String {
    let mut text = String::new();
    for (cpu, (state, masks)) in states.iter().zip(masks).enumerate() {
        for (n, (msr, value)) in state.iter().enumerate() {
            let mask = !masks.mask(n);
            // Writing to a String cannot fail.
            let _ = match value {
                None if mask != 0 => writeln!(text, "{cpu} {:#x} gp {mask:#x}", msr.value()),
                _ => {
                    let value = value.unwrap_or(0) & mask;
                    writeln!(text, "{cpu} {:#x} {value:#x} {mask:#x}", msr.value())
                }
            };
        }
    }
    text
}

/// SHA-256 of the canonical text, in hexadecimal.
pub(super) fn hash(states: &[State], masks: &[Masks]) -> String {
    hex::bytes(&Sha256::digest(canonical(states, masks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: Option<u64>) -> State {
        vec![(Msr::LBR_SELECT, Some(3)), (Msr::DEBUGCTL, value)]
    }

    #[test]
    fn undefined_bits_do_not_count_and_faults_do() {
        let mut masks = Masks::default();
        masks.add_differences(&state(Some(0x801)), &state(Some(0x800)), "option x");
        let masks = [masks];
        let text = canonical(&[state(Some(0x801))], &masks);
        assert_eq!(
            text,
            "0 0x1c8 0x3 0xffffffffffffffff\n0 0x1d9 0x800 0xfffffffffffffffe\n"
        );
        assert_eq!(text, canonical(&[state(Some(0x800))], &masks));
        assert_ne!(text, canonical(&[state(Some(0x001))], &masks));
        assert_eq!(
            canonical(&[state(None)], &masks),
            "0 0x1c8 0x3 0xffffffffffffffff\n0 0x1d9 gp 0xfffffffffffffffe\n"
        );
    }

    #[test]
    fn a_register_that_may_fault_or_not_is_undefined_as_a_whole() {
        let mut masks = Masks::default();
        masks.add_differences(&state(None), &state(Some(1)), "option x");
        let masks = [masks];
        let text = "0 0x1c8 0x3 0xffffffffffffffff\n0 0x1d9 0x0 0x0\n";
        assert_eq!(canonical(&[state(None)], &masks), text);
        assert_eq!(canonical(&[state(Some(7))], &masks), text);
    }
}
