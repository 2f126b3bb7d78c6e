//! What was counted of a recording, and what became of it in the scene.

use std::fmt::Write as _;

use serde::Serialize;

use super::numbers::Durations;
use super::recording::Recording;
use super::vcpu::Vcpu;
use super::write::Rates;
use crate::exit_names::exit_name;
use crate::report::{aligned, grouped};

/// Exits of one reason of a vCPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExitSummary {
    /// As Linux names it.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// For each second of the recording.
    pub per_second: f64,
    /// What the scene has: for a million instructions, less those that its switches make anyway.
    pub per_million: f64,
    /// Of them in the fast path, as far as MSR and reason tell.
    pub fast_path: u64,
    /// Of them out to user space, as far as the recording tells.
    pub user_space: u64,
    /// After so many the thread slept.
    pub sleeps: u64,
    /// How long.
    pub slept: Durations,
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VcpuSummary {
    /// Its VM in the scene.
    pub vm: String,
    /// Its number in its VM, if it is known.
    pub number: Option<u32>,
    /// Its thread.
    pub thread: u32,
    /// The name of its thread.
    pub name: String,
    /// Processors it ran on.
    pub cpus: Vec<u16>,
    /// Its exits.
    pub exits: Vec<ExitSummary>,
    /// All exits.
    pub exit_count: u64,
    /// VM entries.
    pub entries: u64,
    /// VM entries that failed: not in the scene.
    pub failed_entries: u64,
    /// Time on a processor.
    pub on_ns: u64,
    /// Of that in the guest, between entry and exit.
    pub guest_ns: u64,
    /// Millions of instructions that the scene has for that time.
    pub million_instructions: f64,
    /// Time slices that ended.
    pub slices: Durations,
    /// Switched out while it was ready, and for how long.
    pub preempted: u64,
    /// How long it waited then.
    pub waited: Durations,
    /// How long it slept.
    pub slept: Durations,
    /// Sleeps before which no exit was seen: not in the scene.
    pub sleeps_without_exit: u64,
    /// Woken on another processor.
    pub woken_elsewhere: u64,
    /// Went on on another processor without having slept.
    pub moved: u64,
    /// RDMSR and WRMSR that KVM handled, of LBR and `IA32_DEBUGCTL`.
    pub lbr_accesses: u64,
    /// Those of counters.
    pub pmu_accesses: u64,
    /// Those of other MSRs.
    pub other_accesses: u64,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuSummary {
    /// Its number.
    pub cpu: u16,
    /// So much of the time nobody had it.
    pub idle: f64,
    /// So much of the time vCPUs had it.
    pub vcpus: f64,
    /// From vCPU to vCPU that were both ready.
    pub rotations: u64,
    /// Switches between tasks of the host with no vCPU between: one task in the scene.
    pub links: u64,
    /// Events that do not fit to the task that should run.
    pub gaps: u64,
}

/// Tasks of the host that come to a processor, by the first of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskSummary {
    /// The name.
    pub name: String,
    /// The processor.
    pub cpu: u16,
    /// In place of a vCPU that was ready, or where none was.
    pub instead_of_vcpu: bool,
    /// How often and how long.
    pub visits: Durations,
    /// From one to the next in the scene.
    pub every_us: u64,
    /// How long in the scene.
    pub for_us: u64,
}

/// A recording in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImportSummary {
    /// Whose text it is.
    pub kind: String,
    /// Lines.
    pub lines: u64,
    /// Events that were read.
    pub events: u64,
    /// Other events, by name.
    pub skipped: Vec<(String, u64)>,
    /// Lines of call chains.
    pub frames: u64,
    /// Events that the recording says it lost.
    pub lost: u64,
    /// From the first event to the last.
    pub span_us: f64,
    /// Processors of the scene.
    pub processors: u16,
    /// Context switches.
    pub switches: u64,
    /// Events of `sched:sched_migrate_task`.
    pub migrate_events: u64,
    /// vCPUs.
    pub vcpus: Vec<VcpuSummary>,
    /// Processors with events.
    pub cpus: Vec<CpuSummary>,
    /// Tasks of the host.
    pub tasks: Vec<TaskSummary>,
    /// `slice-us` of the scene.
    pub slice_us: u64,
    /// `duration-us` of the scene.
    pub duration_us: u64,
    /// Clocks a microsecond.
    pub mhz: u32,
    /// Instructions a clock.
    pub ipc: f64,
    /// What the scene does not hold, or takes for granted.
    pub dropped: Vec<String>,
}

impl VcpuSummary {
    pub(super) fn of(vcpu: &Vcpu, vm: &str, rates: &Rates) -> Self {
        let exits = vcpu.exits.iter().map(|(reason, exits)| ExitSummary {
            reason: exit_name(*reason),
            count: exits.count,
            per_second: rates.per_second(exits.count),
            per_million: rates.of(*reason).unwrap_or(0.0),
            fast_path: exits.fast_path,
            user_space: exits.user_space,
            sleeps: exits.sleeps,
            slept: exits.slept,
        });
        Self {
            vm: vm.to_owned(),
            number: vcpu.number,
            thread: vcpu.thread,
            name: vcpu.name.clone(),
            cpus: vcpu.cpus.iter().copied().collect(),
            exits: exits.collect(),
            exit_count: vcpu.all_exits(),
            entries: vcpu.entries,
            failed_entries: vcpu.failed_entries,
            on_ns: vcpu.on_ns,
            guest_ns: vcpu.guest_ns,
            million_instructions: rates.million_instructions,
            slices: vcpu.slices,
            preempted: vcpu.preempted,
            waited: vcpu.waited,
            slept: vcpu.slept,
            sleeps_without_exit: vcpu.other_sleeps,
            woken_elsewhere: vcpu.woken_elsewhere,
            moved: vcpu.moved,
            lbr_accesses: vcpu.lbr_accesses,
            pmu_accesses: vcpu.pmu_accesses,
            other_accesses: vcpu.other_accesses,
        }
    }

    fn sum(&self, of: impl Fn(&ExitSummary) -> u64) -> u64 {
        self.exits.iter().map(of).sum()
    }
}

impl ImportSummary {
    /// What the scene does not hold.
    pub(super) fn find_dropped(&mut self, recording: &Recording) {
        let mut notes = Vec::new();
        let sum = |of: fn(&VcpuSummary) -> u64| self.vcpus.iter().map(of).sum::<u64>();
        let mut note = |count: u64, text: &str| {
            if count != 0 {
                notes.push(format!("{} {text}", grouped(count)));
            }
        };
        note(
            self.lost,
            "events lost by the recording: rates are too low by them",
        );
        note(
            self.cpus.iter().map(|cpu| cpu.gaps).sum(),
            "events do not follow from the switches before: slices between are not counted",
        );
        note(
            self.cpus.iter().map(|cpu| cpu.links).sum(),
            "switches between tasks of the host: what comes in a row is one task of the scene",
        );
        note(sum(|v| v.failed_entries), "failed VM entries");
        note(
            sum(|v| v.sleeps_without_exit),
            "sleeps of vCPUs before their first exit",
        );
        note(
            sum(|v| v.lbr_accesses),
            "MSR accesses of guests to the LBR: exits of any MSR in the scene; give the guest a session \
             (guest-perf) instead",
        );
        note(
            sum(|v| v.pmu_accesses),
            "MSR accesses of guests to counters: exits of any MSR in the scene",
        );
        if recording.switches == 0 {
            notes.push(
                "no sched:sched_switch: vCPUs run without pause; slices, sleeps, migrations, tasks and \
                 idle time are not known"
                    .to_owned(),
            );
        }
        if recording.user_space_events == 0 {
            notes.push(
                "no kvm:kvm_userspace_exit: no exit goes out to user space in the scene".to_owned(),
            );
        }
        if self.vcpus.iter().any(|v| v.sum(|exit| exit.fast_path) != 0) {
            notes.push(
                "the fast path is assumed for WRMSR of 0x6e0 and 0x830 and for the preemption timer, as \
                 Linux 5.8 and later have it"
                    .to_owned(),
            );
        }
        notes.push(
            "means only: no distribution of slices, sleeps or gaps between exits, and no share of time by \
             processor of vCPUs that migrate"
                .to_owned(),
        );
        notes.push(
            "not recorded: instructions of guests (loops stand for them), the part, C-states (none is \
             deep in the scene)"
                .to_owned(),
        );
        self.dropped = notes;
    }

    /// As tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{}: {} lines, {} events in {:.3} ms; {} processors, {} vCPUs, {} context switches{}",
            self.kind,
            grouped(self.lines),
            grouped(self.events),
            self.span_us / 1000.0,
            self.processors,
            self.vcpus.len(),
            grouped(self.switches),
            match self.migrate_events {
                0 => String::new(),
                count => format!(", {} sched_migrate_task", grouped(count)),
            }
        )?;
        if !self.skipped.is_empty() {
            let names = self.skipped.iter();
            let names: Vec<_> = names
                .map(|(name, count)| format!("{name} {}", grouped(*count)))
                .collect();
            writeln!(out, "other events, left out: {}", names.join(", "))?;
        }
        writeln!(out, "\n{}", self.vcpu_table())?;
        writeln!(out, "{}", self.exit_table())?;
        writeln!(
            out,
            "per 1M: for a million instructions at IPC {} and {} MHz, where a vCPU's time on a processor is its \
             guest's;\n  EXTERNAL_INTERRUPT without those that take the processor away, which the scene makes itself\n",
            self.ipc, self.mhz
        )?;
        writeln!(out, "{}", self.cpu_table())?;
        if !self.tasks.is_empty() {
            writeln!(out, "{}", self.task_table())?;
        }
        writeln!(
            out,
            "scene: {} us, slices of {} us",
            grouped(self.duration_us),
            grouped(self.slice_us)
        )?;
        for note in &self.dropped {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }

    fn vcpu_table(&self) -> String {
        let head = [
            "vcpu",
            "vm",
            "number",
            "thread",
            "name",
            "cpus",
            "exits",
            "entries",
            "on %",
            "guest %",
            "slices",
            "mean us",
            "preempted",
            "sleeps",
            "mean us",
            "migrations",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let share = |ns: u64| format!("{:.1}", ns as f64 / (self.span_us * 10.0));
        let mean = |of: &Durations| of.mean_us().map_or_else(|| "-".to_owned(), grouped);
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            let cpus: Vec<_> = vcpu.cpus.iter().map(u16::to_string).collect();
            rows.push(vec![
                format!("vcpu{n}"),
                vcpu.vm.clone(),
                vcpu.number
                    .map_or_else(|| "-".to_owned(), |n| n.to_string()),
                vcpu.thread.to_string(),
                vcpu.name.clone(),
                cpus.join(","),
                grouped(vcpu.exit_count),
                grouped(vcpu.entries),
                share(vcpu.on_ns),
                share(vcpu.guest_ns),
                grouped(vcpu.slices.count),
                mean(&vcpu.slices),
                grouped(vcpu.preempted),
                grouped(vcpu.slices.count - vcpu.preempted),
                mean(&vcpu.slept),
                grouped(vcpu.woken_elsewhere + vcpu.moved),
            ]);
        }
        aligned(&rows, 2)
    }

    fn exit_table(&self) -> String {
        let head = [
            "vcpu",
            "reason",
            "exits",
            "per s",
            "per 1M",
            "fast path",
            "user space",
            "sleeps",
            "mean us",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            for exit in &vcpu.exits {
                rows.push(vec![
                    format!("vcpu{n}"),
                    exit.reason.clone(),
                    grouped(exit.count),
                    format!("{:.1}", exit.per_second),
                    format!("{:.4}", exit.per_million),
                    grouped(exit.fast_path),
                    grouped(exit.user_space),
                    grouped(exit.sleeps),
                    exit.slept.mean_us().map_or_else(|| "-".to_owned(), grouped),
                ]);
            }
        }
        aligned(&rows, 2)
    }

    fn cpu_table(&self) -> String {
        let head = ["cpu", "idle %", "vCPUs %", "rotations"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for cpu in &self.cpus {
            rows.push(vec![
                format!("cpu{}", cpu.cpu),
                format!("{:.1}", cpu.idle * 100.0),
                format!("{:.1}", cpu.vcpus * 100.0),
                grouped(cpu.rotations),
            ]);
        }
        aligned(&rows, 1)
    }

    fn task_table(&self) -> String {
        let head = [
            "task", "cpu", "when", "visits", "mean us", "every us", "for us",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for task in &self.tasks {
            let when = match task.instead_of_vcpu {
                true => "in place of a vCPU",
                false => "no vCPU there",
            };
            rows.push(vec![
                task.name.clone(),
                format!("cpu{}", task.cpu),
                when.to_owned(),
                grouped(task.visits.count),
                task.visits
                    .mean_us()
                    .map_or_else(|| "-".to_owned(), grouped),
                grouped(task.every_us),
                grouped(task.for_us),
            ]);
        }
        aligned(&rows, 3)
    }
}
