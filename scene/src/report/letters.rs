//! The numbers that the cost of a policy follows from, and where they come from.

use serde::Serialize;
use vlbr_host::kvm::Note;
use vlbr_host::machine::Machine;

use crate::{Outcome, Scene, VcpuTally};

/// Sums over all vCPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Letters {
    /// VM exits.
    pub x: u64,
    /// Times a vCPU's thread was switched out and in again.
    pub y: u64,
    /// Those of them after which a saved stack had to be written again.
    pub u: u64,
    /// Time slices in which a guest accessed an LBR MSR.
    pub s: u64,
    /// Accesses of guests to `IA32_DEBUGCTL`.
    pub d: u64,
    /// Leading valid entries that perf found at a switch out, on average; `None` if it saved no
    /// stack of a guest.
    pub v: Option<f64>,
    /// Accesses of guests to LBR MSRs that were refused, answered with 0 or dropped.
    pub denied: u64,
}

impl Letters {
    /// Those of a run.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let sum = |of: fn(&VcpuTally) -> u64| outcome.vcpus.iter().map(of).sum::<u64>();
        let saves = sum(|vcpu| vcpu.saved.saves);
        let entries = sum(|vcpu| vcpu.saved.entries);
        Self {
            x: sum(|vcpu| vcpu.exits.total),
            y: sum(|vcpu| vcpu.switches.pairs),
            u: sum(|vcpu| vcpu.switches.disturbed),
            s: sum(|vcpu| vcpu.slices_with_lbr),
            d: sum(|vcpu| vcpu.debugctl_accesses),
            v: (saves != 0).then(|| entries as f64 / saves as f64),
            denied: denied(&outcome.machine),
        }
    }
}

fn denied(machine: &Machine) -> u64 {
    let journal = machine.host().journal();
    let notes = [Note::Gp, Note::DummyRead, Note::DummyWrite];
    notes.iter().map(|note| journal.total(*note)).sum()
}

/// Where a number comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The letter.
    pub of: &'static str,
    /// `recorded`, `derived`, `assumed`, or several with their counts.
    pub from: String,
}

impl Origin {
    /// Where the letters of a run of a scene come from.
    #[must_use]
    pub fn of(scene: &Scene, outcome: &Outcome) -> Vec<Self> {
        let sum = |of: fn(&VcpuTally) -> u64| outcome.vcpus.iter().map(of).sum::<u64>();
        let (recorded, assumed) = (sum(|v| v.exits.recorded), sum(|v| v.exits.assumed));
        let derived = sum(|v| v.exits.derived());
        let session = scene.vcpu.iter().any(|vcpu| vcpu.guest_perf.is_some());
        let listed = scene.vcpu.iter().any(|vcpu| !vcpu.access.is_empty());
        let mut accesses = match session {
            true => "derived: accesses of the guest's perf session and of the traces",
            false => "recorded: accesses in the traces",
        }
        .to_owned();
        if listed {
            accesses.push_str("; assumed: those that the scene lists");
        }
        let origins = [
            (
                "x",
                format!(
                    "{recorded} recorded (instructions and interrupts of traces), {assumed} assumed (the \
                     scene's rates), {derived} derived (MSR accesses, PMIs, interrupts of the host)"
                ),
            ),
            (
                "y",
                "assumed: slices, sleeps and tasks are the scene's".to_owned(),
            ),
            (
                "u",
                "derived: which users of the LBR, C-states and migrations came between".to_owned(),
            ),
            ("s", accesses.clone()),
            ("d", accesses),
            ("V", "derived: entries found at each save".to_owned()),
        ];
        let origins = origins.into_iter();
        origins.map(|(of, from)| Self { of, from }).collect()
    }

    /// What a scene does not hold, one line each.
    #[must_use]
    pub fn lacks(scene: &Scene, outcome: &Outcome) -> Vec<String> {
        let mut notes = Vec::new();
        for (n, (vcpu, tally)) in scene.vcpu.iter().zip(&outcome.vcpus).enumerate() {
            if let Some(trace) = vcpu.trace.as_ref().filter(|_| tally.exits.recorded == 0) {
                let trace = trace.display();
                notes.push(format!("vcpu{n}: {trace} holds nothing that exits"));
            }
            if tally.switches.pairs == 0 {
                notes.push(format!(
                    "vcpu{n}: its thread is never switched out and in again"
                ));
            }
            if vcpu.guest_perf.is_none() && tally.lbr_accesses + tally.debugctl_accesses == 0 {
                notes.push(format!("vcpu{n}: the guest does not use LBR"));
            }
        }
        notes
    }
}
