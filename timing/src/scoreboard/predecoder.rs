//! Cycles of the predecoder, as far as they follow from where the code lies.

use iced_x86::Instruction;

use crate::lower::Layout;
use crate::microarchitecture::Parameters;

/// The predecoder, which a block passes from its first instruction on.
///
/// A window takes a cycle for every so many instructions that end in it, or have their opcode in it and end
/// in the next. A length-changing prefix stalls, but what the window before took beyond its first cycle hides part of
/// that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predecoder {
    width: u32,
    lcp: u32,
    shift: u32,
    window: u64,
    /// Instructions of this cycle, and cycles of this window.
    count: u32,
    cycles: u32,
    /// Cycles that still hide a stall.
    hidden: u32,
}

impl Predecoder {
    /// A block at `address`, behind an instruction that ends there.
    pub(super) fn new(address: u64, parameters: &Parameters) -> Self {
        let shift = parameters.fetch.trailing_zeros();
        Self {
            width: parameters.predecode,
            lcp: parameters.lcp,
            shift,
            window: address.wrapping_sub(1) >> shift,
            count: 0,
            cycles: 1,
            hidden: 0,
        }
    }

    /// Cycles between the instruction before it and `instruction`.
    pub(super) fn take(&mut self, instruction: &Instruction, layout: &Layout) -> u8 {
        let opcode = instruction.ip().wrapping_add(u64::from(layout.opcode));
        let last = instruction.next_ip().wrapping_sub(1);
        let mut passed = 0;
        for window in [opcode >> self.shift, last >> self.shift] {
            if window != self.window {
                passed += 1;
                self.window = window;
                self.count = 0;
                self.hidden = core::mem::replace(&mut self.cycles, 1) - 1;
            }
        }
        if self.count == self.width {
            passed += 1;
            self.cycles += 1;
            self.count = 0;
        }
        self.count += 1;
        if layout.length_changing {
            passed += self.lcp.saturating_sub(self.hidden);
            self.hidden = self.hidden.saturating_sub(self.lcp);
        }
        passed.min(u8::MAX.into()) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::tests::skylake;
    use iced_x86::{Decoder, DecoderOptions};

    fn cycles(address: u64, bytes: &[u8], prefixes: &[bool]) -> Vec<u8> {
        let mut predecoder = Predecoder::new(address, &skylake().parameters);
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        let mut prefixes = prefixes.iter().copied().chain(core::iter::repeat(false));
        core::iter::from_fn(|| decoder.can_decode().then(|| decoder.decode()))
            .map(|instruction| {
                let layout = Layout {
                    length_changing: prefixes.next().unwrap_or_default(),
                    ..Layout::default()
                };
                predecoder.take(&instruction, &layout)
            })
            .collect()
    }

    #[test]
    fn five_instructions_of_a_window_take_a_cycle() {
        // Sixteen NOPs of a byte fill a window.
        let expected = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
        assert_eq!(cycles(0x1000, &[0x90; 17], &[]), expected);
        // Behind an instruction that ends in the same window.
        assert_eq!(cycles(0x100e, &[0x90; 3], &[]), [0, 0, 1]);
    }

    #[test]
    fn cycles_of_the_window_before_hide_a_length_changing_prefix() {
        let lcp = skylake().parameters.lcp as u8;
        assert_eq!(cycles(0x1000, &[0x90; 2], &[true]), [1 + lcp, 0]);
        let mut prefixes = [false; 17];
        prefixes[16] = true;
        // The window before took four cycles.
        let taken = cycles(0x1000, &[0x90; 17], &prefixes);
        assert_eq!(taken[16], 1 + lcp.saturating_sub(3));
    }
}
