//! XSAVE component 15. SDM volume 1, "LBR State"; ISE, "XSAVE Support".

use vlbr_arch::{CPUID_LEAF_XSTATE, CpuidResult, LbrCtl, Msr, XSTATE_LBR_SIZE};

use super::msr::{Word, check_ctl};
use super::{Lbr, MAX_DEPTH};
use crate::{Access, GpFault, GpReason};

/// Words before the entries: CTL, DEPTH, LER FROM, LER TO, LER INFO.
const HEAD: usize = 5;
const WORDS: usize = HEAD + 3 * MAX_DEPTH;
const _: () = assert!(WORDS * 8 == XSTATE_LBR_SIZE);
const _: () = assert!(CPUID_LEAF_XSTATE == 0xd);

impl Lbr {
    pub(super) fn save(&self, image: &mut [u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        if self.config.arch().is_none() {
            return Err(GpFault {
                access: Access::Xsaves,
                reason: GpReason::NoArchLbr,
            });
        }
        let mut words = [0; WORDS];
        words[0] = self.control.ctl.bits();
        words[1] = u64::from(self.depth);
        words[2..HEAD].copy_from_slice(&self.ler);
        for k in 0..self.depth {
            let at = HEAD + 3 * k as usize;
            words[at..at + 3].copy_from_slice(&self.words(self.slot(k)));
        }
        for (bytes, word) in image.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, image: &[u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        let fault = |at, reason| GpFault {
            access: Access::Xrstors(at),
            reason,
        };
        let Some(arch) = self.config.arch() else {
            return Err(fault(None, GpReason::NoArchLbr));
        };
        let mut words = [0u64; WORDS];
        for (word, bytes) in words.iter_mut().zip(image.chunks_exact(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        let ctl = check_ctl(arch, words[0])
            .map_err(|reason| fault(Some((Msr::LBR_CTL, words[0])), reason))?;
        if words[1] != u64::from(self.depth) {
            self.control.ctl = ctl;
            self.ler = [0; 3];
            self.clear_entries();
            self.refresh();
            return Ok(());
        }
        const KINDS: [Word; 3] = [Word::From, Word::To, Word::Info];
        let names = [Msr::LER_FROM, Msr::LER_TO, Msr::LER_INFO];
        for ((word, name), kind) in words[2..HEAD].iter_mut().zip(names).zip(KINDS) {
            *word = self
                .config
                .check_ler(kind, *word)
                .map_err(|reason| fault(Some((name, *word)), reason))?;
        }
        let bases = [Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Msr::LBR_0_INFO];
        for k in 0..self.depth {
            let at = HEAD + 3 * k as usize;
            for ((word, base), kind) in words[at..at + 3].iter_mut().zip(bases).zip(KINDS) {
                *word = self
                    .config
                    .check_word(kind, *word)
                    .map_err(|reason| fault(Some((base.plus(k), *word)), reason))?;
            }
        }
        self.control.ctl = ctl;
        self.ler.copy_from_slice(&words[2..HEAD]);
        for k in 0..self.depth {
            let at = HEAD + 3 * k as usize;
            self.set_words(self.slot(k), [words[at], words[at + 1], words[at + 2]]);
        }
        self.refresh();
        Ok(())
    }

    pub(super) fn restore_init(&mut self) -> Result<(), GpFault> {
        if self.config.arch().is_none() {
            let access = Access::Xrstors(None);
            return Err(GpFault {
                access,
                reason: GpReason::NoArchLbr,
            });
        }
        self.control.ctl = LbrCtl::default();
        self.ler = [0; 3];
        self.clear_entries();
        self.refresh();
        Ok(())
    }

    pub(super) fn leaf_1c(&self) -> CpuidResult {
        self.config
            .arch()
            .map_or_else(CpuidResult::default, |arch| CpuidResult {
                eax: arch.eax,
                ebx: arch.ebx,
                ecx: arch.ecx,
                edx: 0,
            })
    }

    pub(super) fn leaf_d_15(&self) -> CpuidResult {
        self.config
            .arch()
            .map_or_else(CpuidResult::default, |_| CpuidResult {
                eax: XSTATE_LBR_SIZE as u32,
                ebx: 0,
                // A supervisor component, selected by IA32_XSS.
                ecx: 1,
                edx: 0,
            })
    }
}
