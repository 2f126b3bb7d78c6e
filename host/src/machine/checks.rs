//! Ownership: what must hold in every run, and what was found not to.

use core::fmt;

use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;

use super::Host;
use crate::hardware::{LbrRegister, Word};
use crate::kvm::Place;
use crate::perf::{GuestLbr, PmiSample, StackState};
use crate::{CpuId, Owner, VcpuId};

/// Most violations of a rule that are kept with their particulars; all are counted.
const KEPT: u64 = 128;

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Nobody reads what another owner caused.
    Leak,
    /// Records of a guest are not lost while somebody else acts.
    Loss,
    /// A guest that was told it has LBR is not refused: no `#GP`, no write that is dropped, no 0
    /// from an exit where it has a record or a value.
    Denial,
    /// A guest reads what it would read on a processor of its own.
    Fidelity,
    /// The host does not touch records while the guest has the LBR, but to save, restore, reset
    /// and handle exits. Looked at where an input acts on one processor, while the same guest has its
    /// LBR before and after; else while the same guests have the LBR of every processor.
    HostAccess,
    /// After VM entry the LBR MSRs pass only if the guest's event is active on this processor, or its
    /// LBR is lent to it here: [`crate::policy::Standing`].
    PassThrough,
    /// References return to 0 when all events with a branch stack are gone.
    References,
}

impl Rule {
    /// Every rule with its name.
    pub const NAMED: &'static [(Self, &'static str)] = &[
        (Self::Leak, "leak"),
        (Self::Loss, "loss"),
        (Self::Denial, "denial"),
        (Self::Fidelity, "fidelity"),
        (Self::HostAccess, "host access"),
        (Self::PassThrough, "pass-through"),
        (Self::References, "references"),
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMED[*self as usize].1)
    }
}

/// How what a guest read differs from what it would read on a processor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    /// Another of its own values.
    Stale,
    /// Somebody else's value.
    Foreign,
    /// 0.
    Zero,
    /// A fault instead of a value.
    Missing,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// At which input, counted from 0.
    pub input: u64,
    /// Where.
    pub cpu: Option<CpuId>,
    /// Whose state it is.
    pub owner: Owner,
    /// Who reads, writes or is refused.
    pub actor: Owner,
    /// The register, if of one.
    pub msr: Option<Msr>,
    /// By which way, in words.
    pub path: String,
}

impl Violation {
    /// Where, by which way, and who, without the number of the input.
    #[must_use]
    pub fn particulars(&self) -> String {
        let cpu = self.cpu.map(|cpu| format!("on {cpu}: "));
        let msr = self.msr.map(|msr| format!(", {msr}"));
        format!(
            "{}{}{}; of {}, by {}",
            cpu.unwrap_or_default(),
            self.path,
            msr.unwrap_or_default(),
            self.owner,
            self.actor
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.cpu.is_some() { " " } else { ": " };
        let particulars = self.particulars();
        write!(
            f,
            "{} at input {}{between}{particulars}",
            self.rule, self.input
        )
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    kept: Vec<Violation>,
    counts: std::collections::BTreeMap<Rule, u64>,
}

impl Findings {
    /// The violations, of each rule the first 128; [`Findings::count`] has them all.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.kept
    }

    /// How many of a rule.
    #[must_use]
    pub fn count(&self, rule: Rule) -> u64 {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    /// Whether every rule holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.rule).or_default();
        *count += 1;
        if *count <= KEPT {
            self.kept.push(violation);
        }
    }
}

/// A sample of the host that holds branches of guests.
pub(super) fn foreign_entry(sample: &PmiSample) -> Option<Owner> {
    let stack = sample.branches.as_ref().filter(|_| !sample.stale)?;
    let owners = stack.records.iter().map(|record| record.from.owner);
    owners.into_iter().find(|owner| owner.guest().is_some())
}

impl Host {
    fn saved_by_perf(&self, task: crate::TaskId) -> Option<Vec<crate::hardware::Entry>> {
        let context = self.perf.lbr_context(task)?;
        (context.stack_state() == StackState::Valid).then(|| {
            let mut entries = context.entries();
            // Of architectural LBR nobody counts them: it is restored up to the first empty one.
            let valid = match self.lbr_msrs().arch {
                true => entries.iter().take_while(|e| e.from().value != 0).count(),
                false => context.valid_lbrs() as usize,
            };
            entries.truncate(valid);
            entries
        })
    }

    /// The processor in which the guest's registers are, or would be if it went on.
    fn holds_lbr_of(&self, vcpu: VcpuId) -> Option<CpuId> {
        let state = self.vcpu(vcpu);
        let mut cpus = (0..self.hardware.cpus()).map(|cpu| CpuId(cpu as u16));
        let cached = cpus
            .clone()
            .find(|cpu| self.perf.lbr_cpu(*cpu).guest == Some(vcpu));
        // User space may have loaded the vCPU elsewhere since: the guest goes on where its thread is.
        let on = cpus.find(|cpu| self.current(*cpu) == Some(state.thread));
        cached.or(state.cpu).or(on).or(state.active_on)
    }

    /// How many records a vCPU's guest would find if it were let: in the processor while its state
    /// is there, else in the copy that stands for it.
    #[must_use]
    pub fn records_of(&self, vcpu: VcpuId) -> usize {
        let owner = Owner::Guest(vcpu);
        let state = self.vcpu(vcpu);
        let own = |from: crate::Owned| from.owner == owner && from.value != 0;
        if let Some(saved) = state.lbr.saved.as_ref().or(self.perf.guest_lbr(vcpu)) {
            let entries = saved.entries.entries(self.lbr_msrs().nr);
            return entries.filter(|entry| own(entry.from())).count();
        }
        if state.lbr.armed && state.place != Place::Guest {
            // VM exit has stored them.
            let stored = (0..self.lbr_msrs().nr).filter_map(|n| {
                let from = self.lbr_msrs().entry(Word::From, n)?;
                self.area_entry(vcpu, MsrArea::ExitStore, from)
            });
            return stored.filter(|from| *from != 0).count();
        }
        // A host event of the thread has a saved stack too.
        let cached = |cpu| self.perf.lbr_cpu(CpuId(cpu as u16)).guest == Some(vcpu);
        let cached = (0..self.hardware.cpus()).any(cached);
        if let Some(saved) = self.saved_by_perf(state.thread).filter(|_| !cached) {
            return saved.iter().filter(|e| own(e.from())).count();
        }
        let Some(cpu) = self.holds_lbr_of(vcpu) else {
            return 0;
        };
        let lbr = self.perf.lbr_cpu(cpu);
        if lbr.of_guest && lbr.guest != Some(vcpu) {
            // Nobody will read them any more: its vCPU was reset.
            return 0;
        }
        let by_event = self.perf.behaviour().guest_lbr != GuestLbr::None;
        if by_event && lbr.users() != 0 && !self.perf.guest_owns_lbr(cpu) {
            // They are in the stack of an event of the host, and the guest's is not restored from there.
            return 0;
        }
        let processor = self.hardware.cpu(cpu);
        let msrs = processor.lbr_msrs();
        let owned = |n: &u32| {
            processor.owners().of(LbrRegister::Entry(Word::From, *n)) == owner
                && (processor.logical().lbr().read_entry(*n)).is_some_and(|words| words[0] != 0)
        };
        (0..msrs.nr).filter(owned).count()
    }
}
