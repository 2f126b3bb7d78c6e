//! What was seen of a processor of the host.

use std::collections::BTreeMap;

use super::numbers::Durations;

/// Names of tasks that are told apart on a processor; the rest is one.
const MOST_NAMES: usize = 256;
/// What the rest is called.
const REST: &str = "others";

/// Who has the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) thread: u32,
    pub(super) since: u64,
    /// The vCPU whose thread it is.
    pub(super) vcpu: Option<usize>,
}

/// Tasks of the host, one after the other, between two times that a vCPU or nobody had it. To a
/// guest they are one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visit {
    /// The first task's thread and name.
    thread: u32,
    name: String,
    since: u64,
    /// It began in place of a vCPU that was ready to go on.
    instead: bool,
}

/// Visits that begin with tasks of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visits {
    /// In place of a vCPU that was ready.
    pub(super) instead: Durations,
    /// On a processor that no vCPU needed.
    pub(super) idle: Durations,
}

/// A processor.
#[derive(Clone, Debug, Default)]
pub(super) struct HostCpu {
    pub(super) current: Option<Current>,
    /// Time of its last event.
    pub(super) last: u64,
    visit: Option<Visit>,
    visits: BTreeMap<String, Visits>,
    /// Changes from task to task within a visit.
    pub(super) links: u64,
    pub(super) idle_ns: u64,
    pub(super) vcpu_ns: u64,
    /// vCPUs that wait here for their turn.
    waiting: u32,
    /// Since when one runs while others wait.
    contended: Option<u64>,
    pub(super) contended_ns: u64,
    /// From vCPU to vCPU, while the first was ready.
    pub(super) rotations: u64,
    /// Events that do not fit to the task that should run: events between were lost.
    pub(super) gaps: u64,
}

impl HostCpu {
    /// A task of the host gets it. `instead`: in place of a vCPU that is ready.
    pub(super) fn task_in(&mut self, thread: u32, name: &str, instead: bool, at: u64) {
        if self.visit.is_some() {
            self.links += 1;
            return;
        }
        self.visit = Some(Visit {
            thread,
            name: name.to_owned(),
            since: at,
            instead,
        });
    }

    /// A vCPU or nobody gets it.
    pub(super) fn visit_ends(&mut self, at: u64) {
        let Some(visit) = self.visit.take() else {
            return;
        };
        let known = self.visits.contains_key(&visit.name) || self.visits.len() < MOST_NAMES;
        let name = if known { visit.name } else { REST.to_owned() };
        let visits = self.visits.entry(name).or_default();
        let sums = match visit.instead {
            true => &mut visits.instead,
            false => &mut visits.idle,
        };
        sums.add(at.saturating_sub(visit.since));
    }

    /// What was taken for a visit of this thread is the slice of a vCPU.
    pub(super) fn forget_visit_of(&mut self, thread: u32) {
        if self
            .visit
            .as_ref()
            .is_some_and(|visit| visit.thread == thread)
        {
            self.visit = None;
        }
    }

    /// Whatever was going on is not known any more.
    pub(super) fn lose_track(&mut self) {
        self.visit = None;
        self.gaps += 1;
    }

    /// A vCPU begins or ceases to wait here.
    pub(super) fn waits(&mut self, more: bool, at: u64) {
        self.waiting = match more {
            true => self.waiting.saturating_add(1),
            false => self.waiting.saturating_sub(1),
        };
        self.look(at);
    }

    /// Counts the time in which a vCPU runs while another waits.
    pub(super) fn look(&mut self, at: u64) {
        if let Some(since) = self.contended.take() {
            self.contended_ns = self.contended_ns.saturating_add(at.saturating_sub(since));
        }
        let runs = self
            .current
            .as_ref()
            .is_some_and(|current| current.vcpu.is_some());
        self.contended = (runs && self.waiting != 0).then_some(at);
    }

    /// Visits by the name of their first task.
    pub(super) const fn visits(&self) -> &BTreeMap<String, Visits> {
        &self.visits
    }
}
