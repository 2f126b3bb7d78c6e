//! XSAVES and XRSTORS of component 15 with the owners of what it holds.

use vlbr_arch::XSTATE_LBR_SIZE;
use vlbr_cpu::ledger::{Actor, Ledger};
use vlbr_lbr::{Device, GpFault};

use super::{Entry, LbrRegister, Processor, Word};
use crate::{Owned, Owner};

/// A saved state of architectural LBR: the image in memory, and whose each entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LbrImage {
    image: [u8; XSTATE_LBR_SIZE],
    entries: Vec<[Owner; 3]>,
    filter: Owner,
    ler: [Owner; 3],
}

/// Offset of the entries: CTL, DEPTH and the three words of LER come first.
const ENTRIES: usize = 40;

impl LbrImage {
    /// The entries, youngest first, as many as the depth was.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let words = self.image[ENTRIES..].chunks_exact(8);
        let words: Vec<u64> = words
            .map(|word| {
                word.iter()
                    .rev()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            })
            .collect();
        self.entries.iter().enumerate().map(move |(n, owners)| {
            let word = |at: Word| {
                let value = words.get(3 * n + at as usize).copied().unwrap_or(0);
                Owned::new(value, owners[at as usize])
            };
            Entry::new(word(Word::From), word(Word::To), word(Word::Info))
        })
    }
}

impl Processor {
    /// XSAVES of the LBR state.
    ///
    /// # Errors
    /// The part has no architectural LBR.
    pub fn xsaves(&mut self, ledger: &mut Ledger, actor: Actor) -> Result<LbrImage, GpFault> {
        let mut image = [0; XSTATE_LBR_SIZE];
        ledger.xsaves(actor, || self.logical().lbr().xsaves(&mut image))?;
        let owners = self.owners();
        Ok(LbrImage {
            image,
            entries: (0..self.lbr_msrs().nr).map(|n| owners.entry(n)).collect(),
            filter: owners.of(LbrRegister::Filter),
            ler: [Word::From, Word::To, Word::Info].map(|word| owners.of(LbrRegister::Ler(word))),
        })
    }

    /// XRSTORS of a saved state: what it holds stays whose it was.
    ///
    /// # Errors
    /// The part has no architectural LBR, or WRMSR would refuse a word of the image.
    pub fn xrstors(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        saved: &LbrImage,
    ) -> Result<(), GpFault> {
        let lbr = self.logical_mut().lbr_mut();
        ledger.xrstors(actor, || lbr.xrstors(&saved.image))?;
        for (n, owners) in (0u32..).zip(&saved.entries) {
            for (word, owner) in [Word::From, Word::To, Word::Info].into_iter().zip(owners) {
                self.set_owner(LbrRegister::Entry(word, n), *owner);
            }
        }
        self.set_owner(LbrRegister::Filter, saved.filter);
        for (word, owner) in [Word::From, Word::To, Word::Info]
            .into_iter()
            .zip(saved.ler)
        {
            self.set_owner(LbrRegister::Ler(word), owner);
        }
        Ok(())
    }
}
