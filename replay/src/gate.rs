//! Steps that change what the LBR records, and the device that says what it records then.

use std::sync::Arc;

use vlbr_arch::{Cycles, Msr, Transfer};
use vlbr_cpu::run::{Gate, Op};
use vlbr_cpu::{Code, StepId};
use vlbr_lbr::{Lbr, Verdict};

use crate::device::ProgrammedLbr;

/// The steps of a trace whose transfers change the LBR's registers.
#[derive(Clone, Debug)]
pub struct GatedSteps {
    programmed: Lbr,
    /// `IA32_DEBUGCTL` and `IA32_LBR_CTL` as perf programmed them.
    enable: Arc<[(Msr, u64)]>,
    /// See [`ProgrammedLbr::rewritten_by_handler`].
    rewritten_by_handler: bool,
    /// By step id: its transfer, if it does something to the registers.
    steps: Arc<[Option<Transfer>]>,
}

impl GatedSteps {
    /// The steps of `code` that change the registers of `lbr`; `None` if there are none.
    #[must_use]
    pub fn new(code: &Code, lbr: &ProgrammedLbr) -> Option<Self> {
        let programmed = lbr.lbr();
        let steps: Arc<[Option<Transfer>]> = (0..code.steps().len() as u32)
            .map(|index| {
                code.transfer(StepId(index))
                    .copied()
                    .filter(|t| changes(programmed, t))
            })
            .collect();
        if steps.iter().all(Option::is_none) {
            return None;
        }
        let enable = [Msr::DEBUGCTL, Msr::LBR_CTL]
            .into_iter()
            .filter_map(|msr| Some((msr, programmed.rdmsr(msr).ok()?)))
            .collect();
        Some(Self {
            programmed: programmed.clone(),
            enable,
            rewritten_by_handler: lbr.rewritten_by_handler(),
            steps,
        })
    }

    /// Whether any of these steps is one.
    pub(crate) fn touches(&self, map: &[StepId]) -> bool {
        map.iter().any(|step| self.steps[step.0 as usize].is_some())
    }

    /// A device with its registers as programmed.
    pub(crate) fn gate(&self) -> LbrGate {
        LbrGate {
            lbr: self.programmed.clone(),
            steps: self.clone(),
        }
    }
}

/// Whether `transfer` leaves other control registers behind than it found: recording, and what
/// an RSM would restore.
fn changes(programmed: &Lbr, transfer: &Transfer) -> bool {
    use vlbr_arch::{BranchClass, FarKind};
    let BranchClass::Far(kind) = transfer.class else {
        return false;
    };
    if !matches!(kind, FarKind::DebugException | FarKind::Smi | FarKind::Rsm) {
        return false;
    }
    let controls = |lbr: &Lbr| {
        (
            [Msr::DEBUGCTL, Msr::LBR_CTL].map(|msr| lbr.rdmsr(msr).ok()),
            lbr.recording(),
        )
    };
    let mut lbr = programmed.clone();
    // RSM restores what SMI saved, so it matters where SMI does.
    let first = match kind {
        FarKind::Rsm => Transfer {
            class: BranchClass::Far(FarKind::Smi),
            ..*transfer
        },
        _ => *transfer,
    };
    lbr.retire(&first, Cycles::new(0));
    controls(&lbr) != controls(programmed)
}

/// A thread's device while its registers may differ from what perf programmed.
#[derive(Clone, Debug)]
pub(crate) struct LbrGate {
    lbr: Lbr,
    steps: GatedSteps,
}

impl LbrGate {
    /// Whether it records as planned again.
    pub(crate) fn is_as_programmed(&self) -> bool {
        self.steps
            .enable
            .iter()
            .all(|&(msr, value)| self.lbr.rdmsr(msr) == Ok(value))
            && self.lbr.recording()
    }
}

impl Gate for LbrGate {
    fn retire(&mut self, step: StepId, planned: Op) -> Op {
        match &self.steps.steps[step.0 as usize] {
            Some(transfer) => match self.lbr.retire(transfer, Cycles::new(0)) {
                Verdict::Push => Op::Push,
                Verdict::Pop => Op::Pop,
                Verdict::Ignore => Op::Ignore,
            },
            None if self.lbr.recording() => planned,
            None => Op::Ignore,
        }
    }

    fn sampled(&mut self) {
        if !self.steps.rewritten_by_handler {
            return;
        }
        for &(msr, value) in self.steps.enable.iter() {
            // The values were read from these registers.
            let _ = self.lbr.wrmsr(msr, value);
        }
    }
}
