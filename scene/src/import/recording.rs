//! A recording, event by event: sums of what its vCPUs and processors did.

use std::collections::{BTreeMap, HashMap};

use vlbr_arch::Msr;
use vlbr_arch::vmx::ExitReason;

use super::LineError;
use super::event::{Happened, Side};
use super::head::{Head, TextKind};
use super::host_cpu::{Current, HostCpu};
use super::vcpu::{Before, Thread, Vcpu};

/// Most vCPUs, as in a scene.
const MOST_VCPUS: usize = 4096;
/// Names of events that are counted each; the others are one.
const MOST_EVENTS: usize = 64;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Recording {
    pub(super) kind: Option<TextKind>,
    /// Times of the first and the last event, in nanoseconds.
    pub(super) span: Option<(u64, u64)>,
    pub(super) vcpus: Vec<Vcpu>,
    by_thread: HashMap<u32, usize>,
    pub(super) cpus: BTreeMap<u16, HostCpu>,
    /// Processors that the text says there are.
    pub(super) said_cpus: Option<u16>,
    pub(super) lines: u64,
    pub(super) events: u64,
    pub(super) switches: u64,
    pub(super) migrate_events: u64,
    pub(super) user_space_events: u64,
    pub(super) lost: u64,
    pub(super) frames: u64,
    /// Events that are left out, by name.
    pub(super) skipped: BTreeMap<String, u64>,
}

impl Recording {
    /// An event.
    ///
    /// # Errors
    /// It is earlier than the one before it on its processor or of its vCPU; there are too many.
    pub(super) fn take(
        &mut self,
        head: &Head<'_>,
        happened: Happened<'_>,
    ) -> Result<(), LineError> {
        let at = head.time;
        let start = self.span.map_or(at, |(start, _)| start);
        let end = self.span.map_or(at, |(_, end)| end.max(at));
        let cpu = self.cpus.entry(head.cpu).or_default();
        if at < cpu.last || at < start {
            return Err(LineError::Order {
                at,
                before: cpu.last.max(start),
                on: format!("cpu{}", head.cpu),
            });
        }
        if let Some(vcpu) = self.by_thread.get(&head.thread) {
            let before = self.vcpus[*vcpu].last;
            if at < before {
                return Err(LineError::Order {
                    at,
                    before,
                    on: format!("thread {}", head.thread),
                });
            }
            self.vcpus[*vcpu].last = at;
        }
        cpu.last = at;
        self.span = Some((start, end));
        self.events += 1;
        self.runs(head, start);
        match happened {
            Happened::Entry { vcpu } => {
                let n = self.vcpu(head, Some(vcpu))?;
                self.vcpus[n].entered(at);
            }
            Happened::Exit {
                vcpu,
                reason,
                failed,
            } => {
                let n = self.vcpu(head, vcpu)?;
                if failed {
                    self.vcpus[n].failed_entries += 1;
                } else {
                    self.vcpus[n].exited(reason, at);
                }
            }
            Happened::Msr { write, msr } => self.msr(head.thread, write, msr),
            Happened::UserSpace => {
                self.user_space_events += 1;
                if let Some(vcpu) = self.by_thread.get(&head.thread) {
                    self.vcpus[*vcpu].left_for_user_space();
                }
            }
            Happened::Switch { prev, ready, next } => {
                self.switches += 1;
                self.switch(head.cpu, at, (prev, ready), next);
            }
            Happened::Migrate => self.migrate_events += 1,
            Happened::Other => self.skip(head.event),
        }
        Ok(())
    }

    fn skip(&mut self, event: &str) {
        let known = self.skipped.contains_key(event) || self.skipped.len() < MOST_EVENTS;
        let name = if known { event } else { "others" };
        *self.skipped.entry(name.to_owned()).or_default() += 1;
    }

    /// The task of an event has the processor.
    fn runs(&mut self, head: &Head<'_>, start: u64) {
        let vcpu = self.by_thread.get(&head.thread).copied();
        let cpu = self.cpus.entry(head.cpu).or_default();
        let since = match &cpu.current {
            Some(current) if current.thread == head.thread => return,
            // Events were lost, or are none of the recording.
            Some(_) => {
                cpu.lose_track();
                head.time
            }
            // Nothing was seen of it before, so nobody else had it.
            None => start,
        };
        let before = cpu.current.take().and_then(|current| current.vcpu);
        cpu.current = Some(Current {
            thread: head.thread,
            since,
            vcpu,
        });
        if let Some(before) = before {
            // When it left is not known: its slice is not counted.
            self.vcpus[before].state = Thread::Off {
                cpu: head.cpu,
                since: head.time,
                asleep: None,
                over: true,
            };
            self.vcpus[before].inside = None;
        }
        let cpu = self.cpus.entry(head.cpu).or_default();
        match vcpu {
            Some(vcpu) => {
                self.vcpus[vcpu].state = Thread::On {
                    cpu: head.cpu,
                    since,
                }
            }
            None if head.thread != 0 => cpu.task_in(head.thread, head.task, false, since),
            None => {}
        }
        cpu.look(head.time);
    }

    /// The vCPU of an event's thread.
    fn vcpu(&mut self, head: &Head<'_>, number: Option<u32>) -> Result<usize, LineError> {
        let n = match self.by_thread.get(&head.thread) {
            Some(n) => *n,
            None => self.new_vcpu(head)?,
        };
        if let Some(is) = number {
            let was = *self.vcpus[n].number.get_or_insert(is);
            if was != is {
                return Err(LineError::Vcpu {
                    thread: head.thread,
                    was,
                    is,
                });
            }
        }
        Ok(n)
    }

    /// The thread is one of a vCPU.
    fn new_vcpu(&mut self, head: &Head<'_>) -> Result<usize, LineError> {
        if self.vcpus.len() == MOST_VCPUS {
            return Err(LineError::TooManyVcpus(MOST_VCPUS));
        }
        let n = self.vcpus.len();
        let cpu = self.cpus.entry(head.cpu).or_default();
        let mut since = head.time;
        if let Some(current) = &mut cpu.current {
            since = current.since;
            current.vcpu = Some(n);
        }
        cpu.forget_visit_of(head.thread);
        cpu.look(head.time);
        let mut vcpu = Vcpu::new(head.thread, head.process, head.task, head.cpu, since);
        vcpu.last = head.time;
        self.vcpus.push(vcpu);
        self.by_thread.insert(head.thread, n);
        Ok(n)
    }

    fn msr(&mut self, thread: u32, write: bool, msr: u32) {
        let Some(vcpu) = self.by_thread.get(&thread) else {
            return;
        };
        let vcpu = &mut self.vcpus[*vcpu];
        let count = match group(Msr::new(msr)) {
            Group::Lbr => &mut vcpu.lbr_accesses,
            Group::Pmu => &mut vcpu.pmu_accesses,
            Group::Other => &mut vcpu.other_accesses,
        };
        *count += 1;
        // The deadline of the local APIC's timer and its interrupt command, since 5.8.
        let quick = write && matches!(msr, 0x6e0 | 0x830);
        if quick && vcpu.open == Some(ExitReason::WRMSR) {
            vcpu.fast_path();
        }
    }

    fn switch(&mut self, n: u16, at: u64, (prev, ready): (Side<'_>, bool), next: Side<'_>) {
        let cpu = self.cpus.entry(n).or_default();
        let current = cpu.current.take();
        let known = current.filter(|current| current.thread == prev.thread);
        if known.is_none() {
            cpu.lose_track();
        }
        let to = self.by_thread.get(&next.thread).copied();
        let mut instead = false;
        if let Some(current) = known {
            let time = at.saturating_sub(current.since);
            match current.vcpu {
                Some(vcpu) => {
                    cpu.vcpu_ns = cpu.vcpu_ns.saturating_add(time);
                    self.vcpus[vcpu].switched_out(at, ready, to.is_some());
                    instead = ready;
                }
                None if prev.thread == 0 => cpu.idle_ns = cpu.idle_ns.saturating_add(time),
                None => {}
            }
        }
        cpu.current = Some(Current {
            thread: next.thread,
            since: at,
            vcpu: to,
        });
        if to.is_some() || next.thread == 0 {
            cpu.visit_ends(at);
        } else {
            cpu.task_in(next.thread, next.name, instead, at);
        }
        if instead {
            cpu.waits(true, at);
            cpu.rotations += u64::from(to.is_some());
        }
        if let Some(to) = to {
            let state = self.vcpus[to].state;
            if let Thread::Off {
                cpu: last,
                asleep: None,
                ..
            } = state
            {
                self.cpus.entry(last).or_default().waits(false, at);
            }
            let before = match instead {
                true => Before::ReadyVcpu,
                false if prev.thread == 0 => Before::Idle,
                false => Before::Other,
            };
            self.vcpus[to].switched_in(n, at, before);
            self.vcpus[to].last = self.vcpus[to].last.max(at);
        }
        self.cpus.entry(n).or_default().look(at);
    }

    /// The recording is over.
    pub(super) fn finish(&mut self) {
        let Some((_, end)) = self.span else {
            return;
        };
        for vcpu in &mut self.vcpus {
            vcpu.finish(end);
        }
        for cpu in self.cpus.values_mut() {
            cpu.visit_ends(end);
            cpu.look(end);
            let Some(current) = &cpu.current else {
                continue;
            };
            let time = end.saturating_sub(current.since);
            match current.vcpu {
                Some(_) => cpu.vcpu_ns = cpu.vcpu_ns.saturating_add(time),
                None if current.thread == 0 => cpu.idle_ns = cpu.idle_ns.saturating_add(time),
                None => {}
            }
        }
    }
}

/// Whose an MSR is.
enum Group {
    Lbr,
    Pmu,
    Other,
}

/// By number, whatever the part: SDM volume 4, tables of architectural MSRs and of the LBR stacks.
const fn group(msr: Msr) -> Group {
    match msr.value() {
        0x1c8
        | 0x1c9
        | 0x1d9
        | 0x1db..=0x1de
        | 0x40..=0x47
        | 0x60..=0x67
        | 0x680..=0x69f
        | 0x6c0..=0x6df
        | 0xdc0..=0xddf
        | 0x14ce
        | 0x14cf
        | 0x1200..=0x121f
        | 0x1500..=0x151f
        | 0x1600..=0x161f => Group::Lbr,
        0xc1..=0xc8
        | 0x186..=0x18d
        | 0x309..=0x30c
        | 0x345
        | 0x38d..=0x392
        | 0x3f1
        | 0x4c1..=0x4c8
        | 0x600 => Group::Pmu,
        _ => Group::Other,
    }
}
