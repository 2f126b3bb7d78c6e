//! A scene of what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::BufRead;
use std::path::Path;

use vlbr_arch::vmx::ExitReason;

use super::head::{Line, parse};
use super::numbers::{Durations, per_million, rounded_us};
use super::recording::Recording;
use super::vcpu::Vcpu;
use super::{
    CpuSummary, ImportError, ImportSummary, LineError, TaskSummary, TextKind, VcpuSummary, event,
    lines,
};
use crate::exit_names::exit_name;
use crate::{GuestPerf, Scene, SceneError, Scheduling};

/// Longest time that a scene has without being told, in microseconds.
const LONG_ENOUGH_US: u64 = 100_000;
/// Most tasks that a scene has with a name of their own.
const MOST_TASKS: usize = 512;
/// Most exits in a million instructions that a scene takes.
const MOST_PER_MILLION: f64 = 500_000.0;
/// Longest text of a scene.
const LONGEST: usize = 1 << 20;

/// What a recording does not say.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Name of the scene.
    pub name: String,
    /// The processor.
    pub part: String,
    /// Clocks a microsecond.
    pub mhz: u32,
    /// Instructions a clock.
    pub ipc: f64,
    /// How long the scene runs; as long as the recording, but no longer than 100 ms, without.
    pub duration_us: Option<u64>,
    /// A perf session for every guest.
    pub guest_perf: Option<String>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            name: "imported".to_owned(),
            part: "skylake-server".to_owned(),
            mhz: 3000,
            ipc: 1.0,
            duration_us: None,
            guest_perf: None,
        }
    }
}

/// A recording that is being read.
#[derive(Clone, Debug, Default)]
pub struct Import {
    kind: Option<TextKind>,
    recording: Recording,
}

/// A scene, and what it was made of.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its text.
    pub text: String,
    /// What was counted.
    pub summary: ImportSummary,
}

impl Import {
    /// Nothing read yet. Whose text it is is found out if `kind` does not say.
    #[must_use]
    pub fn new(kind: Option<TextKind>) -> Self {
        Self {
            kind,
            recording: Recording::default(),
        }
    }

    /// Reads a text to its end. A second text goes on where the first ended.
    ///
    /// # Errors
    /// Reading fails; a line is none of the tool's: file, line and reason.
    pub fn read(&mut self, path: &Path, reader: &mut dyn BufRead) -> Result<(), ImportError> {
        let (mut bytes, mut number) = (Vec::new(), 0);
        let mut kind = self.kind;
        loop {
            let line = lines::next(reader, &mut bytes).map_err(|error| ImportError::Read {
                path: path.to_owned(),
                error,
            })?;
            let Some(line) = line else {
                return Ok(());
            };
            number += 1;
            line.and_then(|()| self.line(&bytes, &mut kind))
                .map_err(|error| ImportError::Line {
                    path: path.to_owned(),
                    line: number,
                    error,
                })?;
        }
    }

    fn line(&mut self, bytes: &[u8], kind: &mut Option<TextKind>) -> Result<(), LineError> {
        let recording = &mut self.recording;
        recording.lines += 1;
        let line = String::from_utf8_lossy(bytes);
        match parse(&line, *kind)? {
            Line::Nothing => {}
            Line::Frame => recording.frames += 1,
            Line::Cpus(cpus) => {
                recording.said_cpus = Some(recording.said_cpus.unwrap_or(0).max(cpus));
            }
            Line::Lost(count) => recording.lost = recording.lost.saturating_add(count),
            Line::Event(head) => {
                *kind = Some(head.kind);
                recording.kind.get_or_insert(head.kind);
                let happened = event::parse(&head)?;
                recording.take(&head, happened)?;
            }
        }
        Ok(())
    }

    /// The scene.
    ///
    /// # Errors
    /// There is no exit in what was read; the options fit no scene.
    pub fn finish(mut self, options: &ImportOptions) -> Result<Imported, ImportError> {
        self.recording.finish();
        let recording = self.recording;
        if recording.vcpus.iter().all(|vcpu| vcpu.all_exits() == 0) {
            return Err(ImportError::NoExit);
        }
        let span = recording.span.map_or(0, |(start, end)| end - start);
        if span == 0 {
            return Err(ImportError::NoTime);
        }
        check(options)?;
        let plan = Plan::of(&recording, options, span);
        let text = plan.text(options);
        if text.len() > LONGEST {
            let error = SceneError::Text(format!("the scene is longer than {LONGEST} bytes"));
            return Err(error.into());
        }
        Scene::from_toml(&text)?;
        let mut summary = plan.summary;
        summary.find_dropped(&recording);
        Ok(Imported { text, summary })
    }
}

fn check(options: &ImportOptions) -> Result<(), SceneError> {
    let lbr = vlbr_lbr::Profile::named(&options.part)
        .map_err(|error| SceneError::value("part", error.to_string()))?;
    if let Some(session) = &options.guest_perf {
        let pmu = vlbr_pmu::Profile::named(lbr.name())
            .map_err(|error| SceneError::value("part", error.to_string()))?;
        GuestPerf::parse(session, lbr, pmu, &vlbr_pmu::Options::default())?;
    }
    if !(options.ipc.is_finite() && options.ipc > 0.0 && options.mhz > 0) {
        return Err(SceneError::value("ipc", "and mhz are not above 0"));
    }
    Ok(())
}

/// Rates of a vCPU for a million instructions.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    seconds: f64,
    /// Millions of instructions in its time on a processor.
    pub(super) million_instructions: f64,
    rates: BTreeMap<ExitReason, f64>,
}

impl Rates {
    fn of_vcpu(vcpu: &Vcpu, options: &ImportOptions, span: u64) -> Self {
        let clocks = vcpu.on_ns as f64 / 1000.0 * f64::from(options.mhz);
        let millions = clocks * options.ipc / 1e6;
        let rates = vcpu.exits.iter().map(|(reason, exits)| {
            // A switch makes a guest that runs exit.
            let own = match *reason {
                ExitReason::EXTERNAL_INTERRUPT => exits.count.saturating_sub(vcpu.preempted),
                _ => exits.count,
            };
            let rate = if millions > 0.0 {
                own as f64 / millions
            } else {
                0.0
            };
            (*reason, six_digits(rate.min(MOST_PER_MILLION)))
        });
        Self {
            seconds: span as f64 / 1e9,
            million_instructions: millions,
            rates: rates.collect(),
        }
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    pub(super) fn of(&self, reason: ExitReason) -> Option<f64> {
        self.rates.get(&reason).copied()
    }
}

/// Rounded to six digits, so that the text is short.
fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// What the scene will say.
struct Plan<'r> {
    /// vCPUs in the scene's order, with their VM.
    vcpus: Vec<(&'r Vcpu, String, Rates)>,
    vms: usize,
    summary: ImportSummary,
}

impl<'r> Plan<'r> {
    fn of(recording: &'r Recording, options: &ImportOptions, span: u64) -> Self {
        let (grouped, vms) = by_vm(&recording.vcpus);
        let vcpus = grouped.into_iter().map(|(vcpu, vm)| {
            let rates = Rates::of_vcpu(vcpu, options, span);
            (vcpu, vm, rates)
        });
        let vcpus: Vec<_> = vcpus.collect();
        let last = recording.cpus.keys().last().copied().unwrap_or(0);
        let processors = recording.said_cpus.unwrap_or(0).max(last + 1);
        let span_us = span as f64 / 1000.0;
        let summary = ImportSummary {
            kind: recording
                .kind
                .map_or_else(String::new, |kind| kind.to_string()),
            lines: recording.lines,
            events: recording.events,
            skipped: recording.skipped.clone().into_iter().collect(),
            frames: recording.frames,
            lost: recording.lost,
            span_us,
            processors,
            switches: recording.switches,
            migrate_events: recording.migrate_events,
            vcpus: vcpus
                .iter()
                .map(|(vcpu, vm, rates)| VcpuSummary::of(vcpu, vm, rates))
                .collect(),
            cpus: cpus(recording, span),
            tasks: tasks(recording, span),
            slice_us: slice_us(recording),
            duration_us: options
                .duration_us
                .unwrap_or_else(|| rounded_us(span).min(LONG_ENOUGH_US)),
            mhz: options.mhz,
            ipc: options.ipc,
            dropped: Vec::new(),
        };
        Self {
            vcpus,
            vms,
            summary,
        }
    }

    fn text(&self, options: &ImportOptions) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out, options);
        out
    }

    fn write(&self, out: &mut String, options: &ImportOptions) -> std::fmt::Result {
        let summary = &self.summary;
        let exits: u64 = summary.vcpus.iter().map(|vcpu| vcpu.exit_count).sum();
        writeln!(out, "name = {}", quoted(&options.name))?;
        writeln!(
            out,
            "description = \"Imported: {exits} exits and {} switches in {:.3} ms\"",
            summary.switches,
            summary.span_us / 1000.0
        )?;
        writeln!(out, "part = {}", quoted(&options.part))?;
        writeln!(out, "cpus = {}", summary.processors)?;
        writeln!(out, "ipc = {}", options.ipc)?;
        writeln!(out, "mhz = {}", options.mhz)?;
        writeln!(out, "duration-us = {}", summary.duration_us)?;
        writeln!(out, "\n[scheduling]\nslice-us = {}", summary.slice_us)?;
        for vm in 0..self.vms {
            writeln!(out, "\n[[vm]]\nname = \"vm{vm}\"")?;
        }
        for (vcpu, vm, rates) in &self.vcpus {
            write_vcpu(out, vcpu, vm, rates, options)?;
        }
        for (n, task) in summary.tasks.iter().enumerate() {
            write_task(out, n as u64, task)?;
        }
        Ok(())
    }
}

fn write_vcpu(
    out: &mut String,
    vcpu: &Vcpu,
    vm: &str,
    rates: &Rates,
    options: &ImportOptions,
) -> std::fmt::Result {
    writeln!(out, "\n[[vcpu]] # thread {}\nvm = \"{vm}\"", vcpu.thread)?;
    let cpus: Vec<_> = vcpu.cpus.iter().map(u16::to_string).collect();
    writeln!(out, "cpus = [{}]", cpus.join(", "))?;
    let woken = per_million(vcpu.woken_elsewhere, vcpu.slept.count);
    writeln!(out, "migrations-per-million = {woken}")?;
    if vcpu.moved != 0 {
        let moved = per_million(vcpu.moved, vcpu.waited.count);
        writeln!(out, "preempted-migrations-per-million = {moved}")?;
    }
    if let Some(session) = &options.guest_perf {
        writeln!(out, "guest-perf = {}", quoted(session))?;
    }
    writeln!(out, "loop = {{}}")?;
    for (reason, exits) in &vcpu.exits {
        let rate = rates.of(*reason).unwrap_or(0.0);
        if rate <= 0.0 {
            continue;
        }
        writeln!(out, "\n[[vcpu.exit]]\nreason = \"{}\"", exit_name(*reason))?;
        writeln!(out, "per-million = {rate}")?;
        let slow = exits.count - exits.fast_path;
        let keys = [
            ("fast-path", per_million(exits.fast_path, exits.count)),
            ("user-space", per_million(exits.user_space, slow)),
            ("sleeps", per_million(exits.sleeps, slow)),
        ];
        for (key, chance) in keys {
            if chance != 0 {
                writeln!(out, "{key}-per-million = {chance}")?;
            }
        }
        if let Some(us) = vcpu.sleep_us(exits).filter(|_| exits.sleeps != 0) {
            writeln!(out, "sleep-us = {us}")?;
        }
    }
    Ok(())
}

fn write_task(out: &mut String, n: u64, task: &TaskSummary) -> std::fmt::Result {
    writeln!(
        out,
        "\n[[task]]\nname = {}\ncpu = {}",
        quoted(&task.name),
        task.cpu
    )?;
    if is_kernel_thread(&task.name) {
        writeln!(out, "kernel-thread = true")?;
    }
    // So that not all of them come at once.
    let from = task.every_us / 17 * (n % 16 + 1);
    writeln!(out, "from-us = {from}\nevery-us = {}", task.every_us)?;
    let when = match task.instead_of_vcpu {
        true => "vcpu-runs",
        false => "no-vcpu-runs",
    };
    writeln!(out, "for-us = {}\nwhen = \"{when}\"", task.for_us)
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// By the beginnings of their names: a recording does not say it.
fn is_kernel_thread(name: &str) -> bool {
    const BEGINNINGS: [&str; 18] = [
        "kworker/",
        "ksoftirqd/",
        "migration/",
        "rcu",
        "kthreadd",
        "khugepaged",
        "kswapd",
        "watchdog",
        "cpuhp/",
        "irq/",
        "kcompactd",
        "jbd2/",
        "vhost-",
        "kvm-",
        "ksmd",
        "idle_inject",
        "kauditd",
        "nvme",
    ];
    BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
}

/// vCPUs in the scene's order, with the names of their VMs, and how many of these there are. A VM is
/// a process; where the recording names none, threads whose vCPU numbers ascend with them.
fn by_vm(vcpus: &[Vcpu]) -> (Vec<(&Vcpu, String)>, usize) {
    let mut sorted: Vec<_> = vcpus.iter().collect();
    sorted.sort_by_key(|vcpu| {
        (
            vcpu.process,
            vcpu.number.filter(|_| vcpu.process.is_some()),
            vcpu.thread,
        )
    });
    let (mut vms, mut numbers, mut process) = (0, BTreeSet::new(), None);
    let mut named = Vec::with_capacity(sorted.len());
    for vcpu in sorted {
        let another = match (vcpu.process, process) {
            _ if vms == 0 => true,
            (Some(own), process) => process != Some(own),
            (None, Some(_)) => true,
            (None, None) => {
                let taken = |number: u32| numbers.last().is_some_and(|last| *last >= number);
                vcpu.number.is_some_and(taken)
            }
        };
        if another {
            vms += 1;
            numbers.clear();
        }
        numbers.extend(vcpu.number);
        process = vcpu.process;
        named.push((vcpu, format!("vm{}", vms - 1)));
    }
    (named, vms)
}

/// How long a vCPU runs until another gets its processor: of slices that began and ended so, or, if
/// there are none, of all time in which one ran and another waited.
fn slice_us(recording: &Recording) -> u64 {
    let slices = recording.vcpus.iter().map(|vcpu| vcpu.contended_slices);
    let slices = slices.fold(Durations::default(), |mut sum, slices| {
        sum.merge(&slices);
        sum
    });
    let cpus = recording.cpus.values();
    let contended = cpus.fold(Durations::default(), |mut sum, cpu| {
        sum.count += cpu.rotations;
        sum.sum_ns = sum.sum_ns.saturating_add(cpu.contended_ns);
        sum
    });
    let known = slices.mean_us().or_else(|| contended.mean_us());
    known.unwrap_or(Scheduling::default().slice_us)
}

fn cpus(recording: &Recording, span: u64) -> Vec<CpuSummary> {
    let cpus = recording.cpus.iter().map(|(number, cpu)| CpuSummary {
        cpu: *number,
        idle: cpu.idle_ns as f64 / span as f64,
        vcpus: cpu.vcpu_ns as f64 / span as f64,
        rotations: cpu.rotations,
        links: cpu.links,
        gaps: cpu.gaps,
    });
    cpus.collect()
}

/// What comes to processors beside vCPUs. Those in place of a vCPU come so often in the time that
/// vCPUs run there, the others in the rest.
fn tasks(recording: &Recording, span: u64) -> Vec<TaskSummary> {
    let mut all: Vec<(u16, String, bool, Durations)> = Vec::new();
    for (number, cpu) in &recording.cpus {
        for (name, visits) in cpu.visits() {
            for (instead, visits) in [(true, visits.instead), (false, visits.idle)] {
                if visits.count != 0 {
                    all.push((*number, name.clone(), instead, visits));
                }
            }
        }
    }
    if all.len() > MOST_TASKS {
        all = merged(all);
    }
    let tasks = all.into_iter().map(|(number, name, instead, visits)| {
        let busy = recording
            .cpus
            .get(&number)
            .map_or(0, |cpu| cpu.vcpu_ns.min(span));
        let time = if instead { busy } else { span - busy };
        let every_us = rounded_us(time / visits.count);
        let for_us = visits.mean_us().unwrap_or(1);
        TaskSummary {
            name,
            cpu: number,
            instead_of_vcpu: instead,
            visits,
            every_us,
            for_us: if instead {
                for_us
            } else {
                for_us.min(every_us)
            },
        }
    });
    tasks.collect()
}

/// Those that come most often, and the rest of each processor as one.
fn merged(mut all: Vec<(u16, String, bool, Durations)>) -> Vec<(u16, String, bool, Durations)> {
    all.sort_by_key(|task| std::cmp::Reverse((task.3.count, task.3.sum_ns)));
    let rest = all.split_off(MOST_TASKS);
    let mut sums: BTreeMap<(u16, bool), Durations> = BTreeMap::new();
    for (cpu, _, instead, visits) in rest {
        sums.entry((cpu, instead)).or_default().merge(&visits);
    }
    all.extend(
        sums.into_iter()
            .map(|((cpu, instead), visits)| (cpu, "others".to_owned(), instead, visits)),
    );
    all.sort_by(|a, b| (a.0, &a.1, b.2).cmp(&(b.0, &b.1, a.2)));
    all
}
