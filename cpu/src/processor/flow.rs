//! What happens to a logical processor beside MSR accesses, each in one documented order.

use vlbr_arch::{Cycles, Transfer};
use vlbr_lbr::{Reset, Verdict};
use vlbr_pmu::{Increments, Interrupt, Outcome, PmiCause, Source};

use super::around::{Bus, Nothing};
use super::{LogicalProcessor, Surroundings};

/// One boundary: what retired since the last one.
#[derive(Clone, Copy, Debug)]
pub struct Boundary<'a> {
    /// What it adds up to.
    pub run: &'a Increments,
    /// The transfer it ended with, if it was taken.
    pub transfer: Option<&'a Transfer>,
    /// Core clocks at it.
    pub now: Cycles,
}

/// What a boundary led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// What the transfer did to the LBR stack.
    pub verdict: Option<Verdict>,
    /// What the counters came to.
    pub counted: Outcome,
}

impl<L: vlbr_lbr::Device, P: vlbr_pmu::Device> LogicalProcessor<L, P> {
    pub(super) fn bus<'a, S: ?Sized>(
        &'a mut self,
        around: &'a mut S,
    ) -> (&'a mut P, Bus<'a, L, S>) {
        let bus = Bus {
            lbr: &mut self.lbr,
            around,
        };
        (&mut self.pmu, bus)
    }

    /// The LBR sees a transfer: what it did, and how far the event LBR_INSERTS moved, if the PMU
    /// is told of it.
    fn record(&mut self, transfer: &Transfer, now: Cycles) -> (Verdict, u64) {
        let told = self.pmu.options().feeds.contains(Source::LbrInserts)
            && self.pmu.watches(Source::LbrInserts);
        let before = self.lbr.lbr_inserts().filter(|_| told);
        let verdict = self.lbr.retire(transfer, now);
        let after = self.lbr.lbr_inserts();
        let moved = before.zip(after).map(|(from, to)| to.wrapping_sub(from));
        (verdict, moved.unwrap_or(0))
    }

    /// A boundary: first the LBR records the transfer, then the PMU counts. The branch that
    /// overflows a counter stands in the LBR before the overflow freezes it.
    ///
    /// Where the PMU is fed [`Source::LbrInserts`], what the LBR did is added to the run.
    pub fn retire<S: Surroundings>(&mut self, boundary: Boundary<'_>, around: &mut S) -> Retired {
        let Some(transfer) = boundary.transfer else {
            return self.count(None, boundary.run, around);
        };
        let (verdict, inserts) = self.record(transfer, boundary.now);
        if inserts == 0 {
            return self.count(Some(verdict), boundary.run, around);
        }
        let mut run = boundary.run.clone();
        run.add(Source::LbrInserts, transfer.cpl_before, inserts);
        self.count(Some(verdict), &run, around)
    }

    fn count<S: Surroundings>(
        &mut self,
        verdict: Option<Verdict>,
        run: &Increments,
        around: &mut S,
    ) -> Retired {
        let (pmu, mut bus) = self.bus(around);
        Retired {
            verdict,
            counted: pmu.retire(run, &mut bus),
        }
    }

    /// A transfer that is no instruction: an interrupt, an exception, a `#DB`. The LBR alone is
    /// told, and of counters those of LBR_INSERTS.
    pub fn transfer<S: Surroundings>(
        &mut self,
        transfer: &Transfer,
        now: Cycles,
        around: &mut S,
    ) -> Verdict {
        let (verdict, inserts) = self.record(transfer, now);
        if inserts != 0 {
            let mut run = Increments::new();
            run.add(Source::LbrInserts, transfer.cpl_before, inserts);
            self.count(Some(verdict), &run, around);
        }
        verdict
    }

    /// Another logical processor of the core retired a run: counters with AnyThread count it.
    pub fn retire_sibling<S: Surroundings>(&mut self, run: &Increments, around: &mut S) -> Outcome {
        let (pmu, mut bus) = self.bus(around);
        pmu.retire_sibling(run, &mut bus)
    }

    /// A transaction aborts: counter 2 takes back what `IN_TXCP` says, then the LBR records it.
    pub fn abort_transaction<S: Surroundings>(
        &mut self,
        transfer: &Transfer,
        now: Cycles,
        around: &mut S,
    ) -> Verdict {
        self.pmu.abort_transaction();
        self.transfer(transfer, now, around)
    }

    /// The BTS buffer reached its threshold: the LBR freezes, the counters freeze, the PMI goes to
    /// the APIC.
    pub fn raise_pmi(&mut self, cause: PmiCause) {
        let mut nothing = Nothing;
        let (pmu, mut bus) = self.bus(&mut nothing);
        pmu.raise(cause, &mut bus);
    }

    /// At a boundary at which the core takes interrupts: the PMI, if one is due. The LVT entry is
    /// masked by that; freezing was done when it was raised. What the interrupt does is the
    /// caller's: [`LogicalProcessor::transfer`], [`LogicalProcessor::smi`] or
    /// [`LogicalProcessor::reset`] follows.
    pub fn deliver(&mut self) -> Option<Interrupt> {
        self.pmu.deliver()
    }

    /// An SMI is taken: the counters stop while `IA32_DEBUGCTL` still says whether they shall, then
    /// the LBR sees the transfer and saves and clears its controls.
    pub fn smi(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        let mut nothing = Nothing;
        let (pmu, bus) = self.bus(&mut nothing);
        pmu.smi(&bus);
        self.lbr.retire(transfer, now)
    }

    /// RSM: the LBR gets its controls back and records it, the counters count it as they stand in
    /// SMM, then they get theirs back.
    pub fn rsm<S: Surroundings>(&mut self, boundary: Boundary<'_>, around: &mut S) -> Retired {
        let retired = self.retire(boundary, around);
        self.pmu.rsm();
        retired
    }

    /// RESET or INIT. INIT is recorded where the part does that, by
    /// [`LogicalProcessor::transfer`] before.
    pub fn reset(&mut self, reset: Reset) {
        self.lbr.reset(reset);
        self.pmu.reset(match reset {
            Reset::Init => vlbr_pmu::Reset::Init,
            Reset::Cold | Reset::Warm | Reset::WarmInC6 => vlbr_pmu::Reset::Reset,
        });
        self.registers.reset(reset);
    }

    /// Leaves a C-state deeper than C1 that resets the LBR. Counters keep their values.
    pub fn deep_c_state(&mut self) {
        self.lbr.deep_c_state();
    }
}

impl<L: vlbr_lbr::Device> LogicalProcessor<L, vlbr_pmu::Pmu> {
    /// A run inside the horizon, given as what each active counter counts: see
    /// [`vlbr_pmu::Pmu::retire_amounts`]. The LBR has been given its transfers.
    ///
    /// # Errors
    /// The amounts do not tell enough. Nothing is changed then.
    pub fn retire_amounts(
        &mut self,
        amounts: &[u64],
        instructions: u64,
        cycles: u64,
    ) -> Result<Outcome, vlbr_pmu::AmountsError> {
        let mut bus = Bus {
            lbr: &mut self.lbr,
            around: &mut Nothing,
        };
        self.pmu
            .retire_amounts(amounts, instructions, cycles, &mut bus)
    }
}
