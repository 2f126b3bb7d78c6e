//! Clocks that have passed and that the counters have not been given, and what a step is to clocks and LBR.

use vlbr_arch::Cpl;
use vlbr_cpu::{Code, Exit, StepId};
use vlbr_lbr::{Lbr, Verdict};
use vlbr_pmu::{Increments, Selector, Source};

/// What a step is to the clocks and to the LBR.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind(u8);

impl Kind {
    const USER: u8 = 1;
    const IN_TX: u8 = 2;
    const BY_EVENT: u8 = 4;
    const PUSHES: u8 = 8;
    const UNSEEN: u8 = 16;

    /// That of step `id`; `lbr` stands as it is programmed.
    pub(super) fn of(code: &Code, id: StepId, lbr: &Lbr) -> Self {
        let (in_tx, by_event) = match code.step(id).exit {
            Exit::Taken { in_tx, .. } => (in_tx, false),
            Exit::Event { in_tx, .. } => (in_tx, true),
            Exit::Sequential | Exit::Gap => (false, false),
        };
        let (pushes, unseen) = match code.transfer(id) {
            None => (false, true),
            Some(transfer) if !lbr.is_plain(transfer) => (false, false),
            Some(transfer) => {
                let verdict = lbr.verdict(transfer);
                (verdict == Verdict::Push, verdict == Verdict::Ignore)
            }
        };
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        Self(
            bit(code.is_user(id), Self::USER)
                | bit(in_tx, Self::IN_TX)
                | bit(by_event, Self::BY_EVENT)
                | bit(pushes, Self::PUSHES)
                | bit(unseen, Self::UNSEEN),
        )
    }

    /// An LBR that stands as it is programmed records its transfer and does nothing more.
    pub(super) const fn pushes(self) -> bool {
        self.0 & Self::PUSHES != 0
    }

    /// An LBR that stands as it is programmed does nothing but record its transfer, if that.
    pub(super) const fn is_plain(self) -> bool {
        self.0 & (Self::PUSHES | Self::UNSEEN) != 0
    }

    /// An event leaves it.
    pub(super) const fn is_by_event(self) -> bool {
        self.0 & Self::BY_EVENT != 0
    }

    const fn cell(self) -> usize {
        (self.0 & (Self::USER | Self::IN_TX)) as usize
    }

    const fn cpl(self) -> Cpl {
        if self.0 & Self::USER == 0 {
            Cpl::Ring0
        } else {
            Cpl::Ring3
        }
    }
}

/// Core and reference clocks by level and transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    cells: [[u64; 2]; 4],
}

impl Passed {
    /// Those of one step, or of a part of it.
    #[inline]
    pub(super) fn of(kind: Kind, core: u64, reference: u64) -> Self {
        let mut this = Self::default();
        this.add(kind, core, reference);
        this
    }

    #[inline]
    pub(super) fn add(&mut self, kind: Kind, core: u64, reference: u64) {
        let [sum, sum_of_reference] = &mut self.cells[kind.cell()];
        *sum += core;
        *sum_of_reference += reference;
    }

    /// Core clocks at every level.
    pub(super) fn core(&self) -> u64 {
        self.cells.iter().map(|[core, _]| core).sum()
    }

    /// What `selector` sees of them.
    pub(super) fn amount(&self, selector: &Selector) -> u64 {
        let sources = [Source::CoreCycles, Source::ReferenceCycles];
        let mut amount = 0;
        for (number, cell) in self.cells.iter().enumerate() {
            let kind = Kind(number as u8);
            let user = kind.0 & Kind::USER != 0;
            let seen = if user { selector.user } else { selector.kernel }
                && (!selector.in_tx || kind.0 & Kind::IN_TX != 0);
            for (source, clocks) in sources.into_iter().zip(cell) {
                if seen && selector.sources.contains(source) {
                    amount += clocks;
                }
            }
        }
        amount
    }

    /// Adds clocks of a step of `kind` to what it retired.
    pub(super) fn increase(run: &mut Increments, kind: Kind, core: u64, reference: u64) {
        run.add(Source::CoreCycles, kind.cpl(), core);
        run.add(Source::ReferenceCycles, kind.cpl(), reference);
    }
}
