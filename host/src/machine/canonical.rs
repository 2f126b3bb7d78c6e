//! States of a machine that no later input can tell apart.

use core::hash::{Hash, Hasher};

use vlbr_cpu::processor::LogicalProcessor;

use super::{Findings, Host, Machine};
use crate::kvm::Vcpu;
use crate::perf::EventId;

/// What later inputs can tell apart of a machine, for whoever explores its states: its host with
/// perf's numbers given anew, and the processor that each guest would have for itself. Results are
/// no part of it: the ledger, the journal and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    host: Host,
    own: Vec<LogicalProcessor>,
}

impl Hash for Canonical {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.own.hash(state);
    }
}

impl Machine {
    /// The state without what no later input can tell apart. Two things more are taken as equal than
    /// the kernel does: a stamp of an event's last counter that is out of date is never found
    /// again, though it could be after 2^32 more; and counts of `lbr_callstack_users` of which more than
    /// two were never given back, or taken twice, are one and the same.
    ///
    /// `named` are events that somebody has names for: with the state come the numbers that they have in
    /// it.
    #[must_use]
    pub fn canonical(&self, named: &[Option<EventId>]) -> (Canonical, Vec<Option<EventId>>) {
        let mut host = self.host.clone();
        let (perf, numbers) = host.perf.canonical();
        host.perf = perf;
        for vcpu in &mut host.vcpus {
            for event in events(vcpu) {
                *event = numbers.get(*event);
            }
        }
        let named = named
            .iter()
            .map(|event| event.map(|event| numbers.get(event)));
        let canonical = Canonical {
            host,
            own: self.own.clone(),
        };
        (canonical, named.collect())
    }

    /// What was found so far, which is forgotten; so are ledger and journal, so that a machine that
    /// is copied often stays small.
    pub fn take_results(&mut self) -> Findings {
        self.host.hardware.forget_accesses();
        self.host.journal = crate::kvm::Journal::default();
        self.differences = [0; 4];
        self.compared = 0;
        core::mem::take(&mut self.findings)
    }
}

/// Every event that a vCPU names.
fn events(vcpu: &mut Vcpu) -> impl Iterator<Item = &mut EventId> {
    let counters = vcpu.pmu.gp.iter_mut().chain(&mut vcpu.pmu.fixed);
    let counters = counters.filter_map(|counter| counter.event.as_mut());
    vcpu.lbr.event.as_mut().into_iter().chain(counters)
}
