//! Whole entries and stacks at once, as software reads and writes them MSR by MSR.

use super::config::{AddressCheck, Config};
use super::{Lbr, MAX_DEPTH};
use crate::ReservedWrite;

/// FROM, TO and INFO of a stack, each by the numbers of its MSRs.
pub type StackWords = [[u64; MAX_DEPTH]; 3];

/// What WRMSR takes, in one form for every check, so that many words are checked at once.
#[derive(Clone, Copy, Debug)]
struct Taken {
    left: u32,
    add: u64,
    right: u32,
    refused: u64,
}

impl Taken {
    /// Words without these bits.
    const fn without(refused: u64) -> Self {
        Self {
            left: 0,
            add: 0,
            right: 0,
            refused,
        }
    }

    const fn address(check: AddressCheck) -> Self {
        let (left, bits) = match check {
            AddressCheck::Canonical(bits) if bits < 64 => (0, bits as u32),
            AddressCheck::SignUpTo(high) if high > 47 => (63 - high as u32, 111 - high as u32),
            AddressCheck::Low32 => return Self::without(u64::MAX << 32),
            AddressCheck::Canonical(_) | AddressCheck::SignUpTo(_) | AddressCheck::Any => {
                return Self::without(0);
            }
        };
        // Half of the range is added: what is beyond either end of it does not fit the bits.
        Self {
            left,
            add: 1 << (bits - 1),
            right: bits,
            refused: u64::MAX,
        }
    }

    #[inline]
    const fn left_over(self, word: u64) -> u64 {
        (word << self.left).wrapping_add(self.add) >> self.right
    }

    #[inline]
    const fn takes(self, word: u64) -> bool {
        self.left_over(word) & self.refused == 0
    }

    fn takes_all(self, words: &[u64]) -> bool {
        let left_over = words.iter().map(|word| self.left_over(*word));
        left_over.fold(0, |all, bits| all | bits) & self.refused == 0
    }
}

/// What WRMSR makes of the words of an entry.
#[derive(Clone, Copy, Debug)]
struct Checks {
    from: Taken,
    to: Taken,
    info: Taken,
    /// Bits of INFO that are kept.
    kept: u64,
}

impl Checks {
    const fn of(config: &Config) -> Self {
        let defined = config.layout.info_defined;
        let (refused, kept) = match config.info_reserved {
            // INFO is ignored where there is none.
            _ if !config.has_info() => (0, 0),
            ReservedWrite::Fault => (!defined, u64::MAX),
            ReservedWrite::Keep => (0, u64::MAX),
            ReservedWrite::Drop => (0, defined),
        };
        Self {
            from: Taken::address(config.from_check),
            to: Taken::address(config.to_check),
            info: Taken::without(refused),
            kept,
        }
    }
}

impl Lbr {
    /// What RDMSR gives of FROM, TO and INFO of entry `n`, of a slot with the legacy interface; 0
    /// for an INFO that does not exist. `None` if one of them would fault, or Intel PT has taken
    /// the LBR away.
    #[must_use]
    #[inline]
    pub fn read_entry(&self, n: u32) -> Option<[u64; 3]> {
        let readable = n < self.depth && !self.control.locked_out;
        readable.then(|| {
            let slot = self.slot_of_msr(n);
            let info = if self.config.has_info() {
                self.info[slot]
            } else {
                0
            };
            [self.from[slot], self.to[slot], info]
        })
    }

    /// WRMSR of the registers of several entries. `None` if Intel PT has taken the LBR away.
    #[must_use]
    #[inline]
    pub fn write_entries(&mut self) -> Option<EntryWrites<'_>> {
        (!self.control.locked_out).then(|| EntryWrites {
            checks: Checks::of(&self.config),
            lbr: self,
        })
    }

    /// What [`Lbr::read_entry`] gives of every entry; 0 beyond the depth. `false` if Intel PT has
    /// taken the LBR away: nothing is read then.
    #[must_use]
    pub fn read_stack(&self, stack: &mut StackWords) -> bool {
        if self.control.locked_out {
            return false;
        }
        let with_info = self.config.has_info();
        if self.config.arch().is_none() {
            *stack = [self.from, self.to, self.info];
            if !with_info {
                stack[2].fill(0);
            }
            return true;
        }
        for n in 0..MAX_DEPTH as u32 {
            let words = self.read_entry(n).unwrap_or_default();
            for (array, word) in stack.iter_mut().zip(words) {
                array[n as usize] = word;
            }
        }
        true
    }

    /// WRMSR of FROM, TO and INFO of every entry up to the depth; INFO is ignored where there is
    /// none. `false` if one of them would fault, or Intel PT has taken the LBR away: nothing is
    /// written then.
    #[must_use]
    pub fn write_stack(&mut self, stack: &StackWords) -> bool {
        let depth = (self.depth as usize).min(MAX_DEPTH);
        let checks = Checks::of(&self.config);
        let [from, to, info] = stack.each_ref().map(|words| &words[..depth]);
        if self.control.locked_out
            || !checks.from.takes_all(from)
            || !checks.to.takes_all(to)
            || !checks.info.takes_all(info)
        {
            return false;
        }
        if self.config.arch().is_none() {
            self.from[..depth].copy_from_slice(from);
            self.to[..depth].copy_from_slice(to);
            if self.config.has_info() {
                for (slot, word) in self.info.iter_mut().zip(info) {
                    *slot = word & checks.kept;
                }
            }
        } else {
            for n in 0..depth {
                let slot = self.slot_of_msr(n as u32);
                self.from[slot] = from[n];
                self.to[slot] = to[n];
                self.info[slot] = info[n] & checks.kept;
            }
        }
        self.undo.clear();
        true
    }
}

/// Writes whole entries: what the part checks of every word is looked up once.
#[derive(Debug)]
pub struct EntryWrites<'l> {
    lbr: &'l mut Lbr,
    checks: Checks,
}

impl EntryWrites<'_> {
    /// WRMSR of FROM, TO and INFO of entry `n`; INFO is ignored where there is none. `false` if one
    /// of them would fault: nothing is written then.
    #[must_use]
    #[inline]
    pub fn write(&mut self, n: u32, [from, to, info]: [u64; 3]) -> bool {
        let Self { lbr, checks } = self;
        let taken = checks.from.takes(from) && checks.to.takes(to) && checks.info.takes(info);
        if n >= lbr.depth || !taken {
            return false;
        }
        let slot = lbr.slot_of_msr(n);
        lbr.from[slot] = from;
        lbr.to[slot] = to;
        if lbr.config.has_info() {
            lbr.info[slot] = info & checks.kept;
        }
        lbr.undo.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::msr::Word;
    use super::*;
    use crate::{Options, Profile};

    /// Words around every border of the checks, with single bits and their complements.
    fn words() -> impl Iterator<Item = u64> {
        (0..64).flat_map(|bit: u32| {
            let one = 1u64 << bit;
            let border = one.wrapping_neg();
            [
                one,
                !one,
                border,
                !border,
                border.wrapping_sub(1),
                border | 1 << 60,
                0xffff_8000_0000_0000 ^ one,
                0x1234_5678 ^ one,
            ]
        })
    }

    #[test]
    fn one_form_says_what_wrmsr_of_the_word_says() {
        for profile in Profile::all() {
            for reserved in [
                ReservedWrite::Fault,
                ReservedWrite::Keep,
                ReservedWrite::Drop,
            ] {
                let options = Options {
                    legacy_info_reserved: reserved,
                    arch_info_reserved: reserved,
                    ..Options::default()
                };
                let lbr = Lbr::new(profile, options);
                let checks = Checks::of(&lbr.config);
                for word in words() {
                    let says = |which| lbr.config.check_word(which, word);
                    let name = profile.name();
                    assert_eq!(checks.from.takes(word), says(Word::From).is_ok(), "{name}");
                    assert_eq!(checks.to.takes(word), says(Word::To).is_ok(), "{name}");
                    if lbr.config.has_info() {
                        let taken = checks.info.takes(word).then_some(word & checks.kept);
                        assert_eq!(taken, says(Word::Info).ok(), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_stack_is_written_and_read_as_its_entries_are() {
        for profile in Profile::all() {
            let mut whole = Lbr::new(profile, Options::default());
            let mut single = whole.clone();
            for from in 1..=5 {
                for lbr in [&mut whole, &mut single] {
                    let jump = vlbr_arch::Transfer::near(
                        vlbr_arch::BranchClass::NearRelJmp,
                        from * 16,
                        from * 32,
                        vlbr_arch::Cpl::Ring3,
                    );
                    let enable = match lbr.config.arch() {
                        Some(_) => (vlbr_arch::Msr::LBR_CTL, 0x7f_000f),
                        None => (vlbr_arch::Msr::DEBUGCTL, 1),
                    };
                    lbr.wrmsr(enable.0, enable.1).unwrap();
                    lbr.retire(&jump, vlbr_arch::Cycles::new(from));
                }
            }
            let mut stack = [[7; MAX_DEPTH]; 3];
            assert!(whole.read_stack(&mut stack));
            for n in 0..MAX_DEPTH as u32 {
                let words = stack.map(|array| array[n as usize]);
                assert_eq!(words, single.read_entry(n).unwrap_or_default());
            }
            let depth = whole.depth;
            for n in 0..depth {
                let words = [u64::from(n) + 1, u64::from(n) << 4, u64::from(n)];
                for (array, word) in stack.iter_mut().zip(words) {
                    array[n as usize] = word;
                }
                assert!(single.write_entries().unwrap().write(n, words));
            }
            assert!(whole.write_stack(&stack));
            assert_eq!(whole, single, "{}", profile.name());
            // The last word of all is refused: nothing is written.
            let refused = |word: &u64| whole.config.check_word(Word::To, *word).is_err();
            if let Some(word) = words().find(refused) {
                stack[0][0] = 99;
                stack[1][depth as usize - 1] = word;
                assert!(!whole.write_stack(&stack));
                assert_eq!(whole, single, "{}", profile.name());
            }
        }
    }
}
