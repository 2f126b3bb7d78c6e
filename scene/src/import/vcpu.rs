//! What was seen of a vCPU.

use std::collections::{BTreeMap, BTreeSet};

use vlbr_arch::vmx::ExitReason;

use super::numbers::Durations;

/// Where a vCPU's thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    /// On a processor, since then.
    On { cpu: u16, since: u64 },
    /// Off the processor that it was on last.
    Off {
        cpu: u16,
        since: u64,
        /// It sleeps, and this exit was its last one.
        asleep: Option<Option<ExitReason>>,
        /// It gave way to another vCPU, or sleeps: its slice is over.
        over: bool,
    },
}

/// Who had a processor before a vCPU got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nobody.
    Idle,
    /// Another vCPU, which is ready to go on.
    ReadyVcpu,
    /// A task of the host, or a vCPU that sleeps now.
    Other,
}

/// Exits of one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exits {
    pub(super) count: u64,
    pub(super) fast_path: u64,
    pub(super) user_space: u64,
    /// After so many of them the thread slept.
    pub(super) sleeps: u64,
    /// How long, of those that ended.
    pub(super) slept: Durations,
    /// How long, of those that ended on an idle processor: with no wait for it.
    pub(super) slept_only: Durations,
}

/// A vCPU.
#[derive(Clone, Debug)]
pub(super) struct Vcpu {
    pub(super) thread: u32,
    pub(super) process: Option<u32>,
    pub(super) name: String,
    /// Its number in its VM.
    pub(super) number: Option<u32>,
    pub(super) state: Thread,
    pub(super) cpus: BTreeSet<u16>,
    /// Time of its last event.
    pub(super) last: u64,
    pub(super) exits: BTreeMap<ExitReason, Exits>,
    pub(super) failed_entries: u64,
    pub(super) entries: u64,
    /// The exit that is being handled.
    pub(super) open: Option<ExitReason>,
    pub(super) last_exit: Option<ExitReason>,
    /// Sleeps before which no exit was seen.
    pub(super) other_sleeps: u64,
    /// In the guest since then.
    pub(super) inside: Option<u64>,
    pub(super) guest_ns: u64,
    /// Time slices that have ended.
    pub(super) slices: Durations,
    /// Time on a processor, in slices ended or not.
    pub(super) on_ns: u64,
    /// How long it ran in its slice so far, tasks of the host in between left out.
    slice_ns: u64,
    /// The slice began while another vCPU was ready to go on there.
    contended: bool,
    /// Slices that such began with and ended with.
    pub(super) contended_slices: Durations,
    /// Switched out while it was ready.
    pub(super) preempted: u64,
    pub(super) waited: Durations,
    pub(super) slept: Durations,
    /// Switched in after a sleep on another processor.
    pub(super) woken_elsewhere: u64,
    /// Switched in again on another processor without having slept.
    pub(super) moved: u64,
    pub(super) lbr_accesses: u64,
    pub(super) pmu_accesses: u64,
    pub(super) other_accesses: u64,
}

impl Vcpu {
    pub(super) fn new(thread: u32, process: Option<u32>, name: &str, cpu: u16, since: u64) -> Self {
        Self {
            thread,
            process,
            name: name.to_owned(),
            number: None,
            state: Thread::On { cpu, since },
            cpus: BTreeSet::from([cpu]),
            last: since,
            exits: BTreeMap::new(),
            failed_entries: 0,
            entries: 0,
            open: None,
            last_exit: None,
            other_sleeps: 0,
            inside: None,
            guest_ns: 0,
            slices: Durations::default(),
            on_ns: 0,
            slice_ns: 0,
            contended: false,
            contended_slices: Durations::default(),
            preempted: 0,
            waited: Durations::default(),
            slept: Durations::default(),
            woken_elsewhere: 0,
            moved: 0,
            lbr_accesses: 0,
            pmu_accesses: 0,
            other_accesses: 0,
        }
    }

    /// Its thread gets a processor.
    pub(super) fn switched_in(&mut self, cpu: u16, at: u64, before: Before) {
        let was_idle = before == Before::Idle;
        if let Thread::Off {
            cpu: last,
            since,
            asleep,
            over,
        } = self.state
        {
            if over {
                self.slice_ns = 0;
                self.contended = before == Before::ReadyVcpu;
            }
            let gone = at.saturating_sub(since);
            let elsewhere = u64::from(cpu != last);
            match asleep {
                Some(reason) => {
                    self.slept.add(gone);
                    self.woken_elsewhere += elsewhere;
                    if let Some(exits) = reason.and_then(|reason| self.exits.get_mut(&reason)) {
                        exits.slept.add(gone);
                        if was_idle {
                            exits.slept_only.add(gone);
                        }
                    }
                }
                None => {
                    self.waited.add(gone);
                    self.moved += elsewhere;
                }
            }
        }
        self.cpus.insert(cpu);
        self.state = Thread::On { cpu, since: at };
    }

    /// It loses it, to another vCPU or not.
    pub(super) fn switched_out(&mut self, at: u64, ready: bool, to_vcpu: bool) {
        let Thread::On { cpu, since } = self.state else {
            return;
        };
        let slice = at.saturating_sub(since);
        self.slices.add(slice);
        self.on_ns = self.on_ns.saturating_add(slice);
        self.slice_ns = self.slice_ns.saturating_add(slice);
        self.left_guest(at);
        if ready {
            self.preempted += 1;
            if to_vcpu && self.contended {
                self.contended_slices.add(self.slice_ns);
            }
        } else {
            match self
                .last_exit
                .and_then(|reason| self.exits.get_mut(&reason))
            {
                Some(exits) => exits.sleeps += 1,
                None => self.other_sleeps += 1,
            }
        }
        self.state = Thread::Off {
            cpu,
            since: at,
            asleep: (!ready).then_some(self.last_exit),
            over: to_vcpu || !ready,
        };
    }

    pub(super) fn entered(&mut self, at: u64) {
        self.entries += 1;
        self.open = None;
        self.inside = Some(at);
    }

    pub(super) fn exited(&mut self, reason: ExitReason, at: u64) {
        self.left_guest(at);
        self.exits.entry(reason).or_default().count += 1;
        self.open = Some(reason);
        self.last_exit = Some(reason);
        // Linux handles it before the run loop, since 5.8.
        if reason == ExitReason::PREEMPTION_TIMER {
            self.fast_path();
        }
    }

    /// The exit that is being handled took the fast path, as far as that can be told.
    pub(super) fn fast_path(&mut self) {
        if let Some(exits) = self.open.and_then(|reason| self.exits.get_mut(&reason)) {
            exits.fast_path = (exits.fast_path + 1).min(exits.count);
        }
    }

    pub(super) fn left_for_user_space(&mut self) {
        // Once an exit: the next KVM_RUN may return as well.
        if let Some(exits) = self
            .open
            .take()
            .and_then(|reason| self.exits.get_mut(&reason))
        {
            exits.user_space += 1;
        }
    }

    fn left_guest(&mut self, at: u64) {
        if let Some(since) = self.inside.take() {
            self.guest_ns = self.guest_ns.saturating_add(at.saturating_sub(since));
        }
    }

    /// The recording ends.
    pub(super) fn finish(&mut self, at: u64) {
        if let Thread::On { since, .. } = self.state {
            self.on_ns = self.on_ns.saturating_add(at.saturating_sub(since));
            self.left_guest(at);
        }
    }

    /// How long it sleeps after exits of a reason, in microseconds. When it was woken is not known:
    /// what it waited for its processor counts only if no sleep ended on an idle one.
    pub(super) fn sleep_us(&self, exits: &Exits) -> Option<u64> {
        let means = [exits.slept_only, exits.slept, self.slept];
        means.iter().find_map(Durations::mean_us)
    }

    /// All exits.
    pub(super) fn all_exits(&self) -> u64 {
        self.exits.values().map(|exits| exits.count).sum()
    }
}
