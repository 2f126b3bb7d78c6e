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
    /// Neither of the last two.
    const ODD: u8 = 32;
    /// Of no step.
    const NEVER: u8 = 64;

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
                | bit(unseen, Self::UNSEEN)
                | bit(!pushes && !unseen, Self::ODD),
        )
    }

    /// An LBR that stands as it is programmed records its transfer and does nothing more.
    pub(super) const fn pushes(self) -> bool {
        self.0 & Self::PUSHES != 0
    }

    /// An LBR that stands as it is programmed does nothing but record its transfer, if that.
    pub(super) const fn is_plain(self) -> bool {
        self.0 & Self::ODD == 0
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

/// What is usual: the level of the steps and whether they are in a transaction, and that an LBR does nothing but
/// record their transfers, if that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual(Kind);

impl Usual {
    /// Nothing is.
    pub(super) const NOTHING: Self = Self(Kind(Kind::NEVER));

    /// Whether a step of `kind` is as usual.
    #[inline(always)]
    pub(super) const fn is(self, kind: Kind) -> bool {
        (self.0.0 ^ kind.0) & (Kind::USER | Kind::IN_TX | Kind::ODD | Kind::NEVER) == 0
    }

    /// From now on level and transaction of `kind` are. `defers`: records may wait for the LBR.
    pub(super) const fn set(&mut self, kind: Kind, defers: bool) {
        let never = if defers { 0 } else { Kind::NEVER };
        self.0 = Kind(kind.cell() as u8 | never);
    }

    /// Level and transaction of the steps that were.
    pub(super) const fn kind(self) -> Kind {
        Kind(self.0.0 & !Kind::NEVER)
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
