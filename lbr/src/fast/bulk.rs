//! Whole entries at once, as software reads and writes them MSR by MSR.

use super::Lbr;
use super::msr::Word;

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

    /// WRMSR of FROM, TO and INFO of entry `n`; INFO is ignored where there is none. `false` if one
    /// of them would fault, or Intel PT has taken the LBR away: nothing is written then.
    #[must_use]
    #[inline]
    pub fn write_entry(&mut self, n: u32, [from, to, info]: [u64; 3]) -> bool {
        if n >= self.depth || self.control.locked_out {
            return false;
        }
        let config = &self.config;
        let info = if config.has_info() {
            config.check_word(Word::Info, info)
        } else {
            Ok(0)
        };
        let words = (
            config.check_word(Word::From, from),
            config.check_word(Word::To, to),
            info,
        );
        let (Ok(from), Ok(to), Ok(info)) = words else {
            return false;
        };
        let slot = self.slot_of_msr(n);
        self.from[slot] = from;
        self.to[slot] = to;
        if self.config.has_info() {
            self.info[slot] = info;
        }
        self.undo.clear();
        true
    }
}
