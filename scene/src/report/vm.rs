//! One policy in full.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use serde::Serialize;
use vlbr_cpu::ledger::{Actor, Class, CostItem, CostModel, Event};
use vlbr_host::machine::{Checking, Rule};
use vlbr_host::policy::{Ideal, Policy};

use super::costs::CostRow;
use super::table::{aligned, grouped};
use super::{Costs, Cycles, Letters, MonitorRow, Origin, SampleFidelity, TimeReport};
use crate::{GuestSource, Outcome, Scene, SceneError, SceneTime, Simulation, VcpuTally, kernel};

/// Violations that are shown of each rule.
const SHOWN: usize = 3;

/// What the figures were made with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Models {
    /// The processor.
    pub part: String,
    /// Entries of its LBR: N.
    pub entries: u32,
    /// MSRs of an entry: E.
    pub msrs_per_entry: u32,
    /// Linux of the host.
    pub kernel: String,
    /// Instructions a clock: of guests without a timing model, and of the host.
    pub ipc: f64,
    /// The timing model of guests; `None`: time is instructions over `ipc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
    /// Clocks a microsecond.
    pub mhz: u32,
    /// Name of the cost model.
    pub costs: String,
}

impl Models {
    pub(super) fn of(
        scene: &Scene,
        policy: &dyn Policy,
        outcome: &Outcome,
        (time, model): (&SceneTime, &CostModel),
    ) -> Result<Self, SceneError> {
        let msrs = outcome.machine.host().lbr_msrs();
        Ok(Self {
            part: scene.part.clone(),
            entries: msrs.nr,
            msrs_per_entry: msrs.words(),
            kernel: kernel(scene, policy)?.to_string(),
            ipc: scene.ipc,
            timing: time.describe().map(str::to_owned),
            mhz: scene.mhz,
            costs: model.name().to_owned(),
        })
    }

    /// What tells the time.
    pub(super) fn time(&self) -> String {
        match &self.timing {
            None => format!("IPC {} at {} MHz (no timing model)", self.ipc, self.mhz),
            Some(timing) => format!("time by {timing}, at {} MHz", self.mhz),
        }
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct VmOptions<'a> {
    /// The policy.
    pub policy: &'a Arc<dyn Policy>,
    /// The cost model.
    pub model: &'a CostModel,
    /// Whether rules are checked.
    pub checking: Checking,
}

/// Rows of the ledger with one actor, kind and cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerRow {
    /// Who.
    pub actor: String,
    /// What, without the register; with it if every row is wanted.
    pub event: String,
    /// The cost that applies.
    pub cost: &'static str,
    /// How well it is known.
    pub class: String,
    /// How often.
    pub count: u64,
    /// Cycles.
    pub cycles: Cycles,
}

/// Violations of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

/// Reads of LBR MSRs by guests against those on a processor of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadFidelity {
    /// Reads compared.
    pub compared: u64,
    /// The same value.
    pub equal: u64,
    /// Another of the guest's own values.
    pub stale: u64,
    /// Somebody else's.
    pub foreign: u64,
    /// 0.
    pub zero: u64,
    /// A fault.
    pub missing: u64,
}

/// A run of a scene under a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmReport {
    /// The scene.
    pub scene: String,
    /// Name of the policy.
    pub policy: String,
    /// What it is.
    pub title: String,
    /// What the figures were made with.
    pub models: Models,
    /// From begin to end, in microseconds of the model.
    pub duration_us: f64,
    /// Where the clocks went; `None` if time is nominal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeReport>,
    /// Each vCPU.
    pub vcpus: Vec<VcpuTally>,
    /// Sums.
    pub letters: Letters,
    /// Where they come from.
    pub origins: Vec<Origin>,
    /// What the scene does not hold.
    pub lacks: Vec<String>,
    /// Samples that host events took.
    pub host_samples: u64,
    /// The ledger, summed over MSRs.
    pub ledger: Vec<LedgerRow>,
    /// Every row of it.
    pub rows: Vec<LedgerRow>,
    /// Cycles of the whole ledger.
    pub total: Cycles,
    /// Cycles of its LBR part.
    pub lbr: Cycles,
    /// Worst class in the LBR part.
    pub class: Option<String>,
    /// What KVM did beside accesses, by vCPU.
    pub journal: Vec<(String, String, u64)>,
    /// Rules that do not hold; `None` if they were not checked.
    pub findings: Option<Vec<Finding>>,
    /// What guests read; `None` if it was not checked.
    pub reads: Option<ReadFidelity>,
    /// What guests sampled.
    pub samples: SampleFidelity,
    /// What user space did to vCPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitor: Vec<MonitorRow>,
}

impl VmReport {
    /// Runs a scene under a policy, and on a processor of each guest's own to compare samples with.
    ///
    /// # Errors
    /// The scene does not fit; a trace is damaged; a violation that ends the run.
    pub fn run(
        scene: &Scene,
        guests: &[GuestSource],
        options: VmOptions<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, SceneError> {
        Self::run_drawn(scene, guests, options, None, progress)
    }

    /// The same, with a timeline as JSON trace events, which ui.perfetto.dev shows.
    ///
    /// # Errors
    /// Those of [`Self::run`]; the timeline cannot be written.
    pub fn run_drawn(
        scene: &Scene,
        guests: &[GuestSource],
        options: VmOptions<'_>,
        timeline: Option<&mut dyn Write>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, SceneError> {
        let policy = options.policy;
        let time = SceneTime::of(scene, guests, options.model)?;
        let mut simulation = Simulation::new(scene, guests, &time, policy, options.checking)?;
        if let Some(timeline) = timeline {
            simulation.set_timeline(timeline);
        }
        let outcome = simulation.run(&mut *progress)?;
        let samples = if outcome.samples.iter().all(Vec::is_empty)
            && scene.vcpu.iter().all(|vcpu| vcpu.guest_perf.is_none())
        {
            SampleFidelity::default()
        } else {
            let mut yardstick = yardstick(scene, &**policy)?;
            if outcome.time.is_some() {
                yardstick = same_work(&yardstick, &outcome);
            }
            let ideal: Arc<dyn Policy> = Arc::new(Ideal);
            let ideal =
                Simulation::new(&yardstick, guests, &time, &ideal, Checking::Off)?.run(progress)?;
            let both = outcome.samples.iter().zip(&ideal.samples);
            both.fold(SampleFidelity::default(), |sum, (taken, ideal)| {
                sum.plus(SampleFidelity::of(taken, ideal))
            })
        };
        Self::of(scene, options, &time, &outcome, samples)
    }

    fn of(
        scene: &Scene,
        options: VmOptions<'_>,
        time: &SceneTime,
        outcome: &Outcome,
        samples: SampleFidelity,
    ) -> Result<Self, SceneError> {
        let (policy, model) = (options.policy, options.model);
        let costs = Costs::of(&outcome.machine, model)?;
        let checked = options.checking == Checking::On;
        let journal = outcome.machine.host().journal();
        Ok(Self {
            scene: scene.name.clone(),
            policy: policy.name().to_owned(),
            title: policy.title().to_owned(),
            models: Models::of(scene, &**policy, outcome, (time, model))?,
            duration_us: outcome.cycles as f64 / f64::from(scene.mhz),
            time: TimeReport::of(outcome, &costs),
            vcpus: outcome.vcpus.clone(),
            letters: Letters::of(outcome),
            origins: Origin::of(scene, outcome),
            lacks: Origin::lacks(scene, outcome),
            host_samples: outcome.host_samples,
            ledger: summed(&costs.rows),
            rows: costs.rows.iter().map(row).collect(),
            total: costs.total,
            lbr: costs.lbr_cycles(),
            class: costs.worst.map(|class| class.to_string()),
            journal: journal
                .rows()
                .map(|(vcpu, note, count)| (vcpu.to_string(), note.to_string(), count))
                .collect(),
            findings: checked.then(|| findings(outcome)),
            reads: checked.then(|| read_fidelity(outcome)),
            samples,
            monitor: MonitorRow::all(scene, outcome),
        })
    }

    /// As a table; with `verbose` every row of the ledger.
    #[must_use]
    pub fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out, verbose);
        out
    }

    fn write(&self, out: &mut String, verbose: bool) -> std::fmt::Result {
        let models = &self.models;
        writeln!(
            out,
            "scene {}: policy {}, {}",
            self.scene, self.policy, self.title
        )?;
        writeln!(
            out,
            "models: {} (N = {}, E = {}), Linux {}, {}, costs {}{}",
            models.part,
            models.entries,
            models.msrs_per_entry,
            models.kernel,
            models.time(),
            models.costs,
            worst(self.class.as_deref())
        )?;
        writeln!(
            out,
            "time: {:.1} us; samples by the host's PMIs, those of guests' counters among them: {}\n",
            self.duration_us, self.host_samples
        )?;
        if let Some(time) = &self.time {
            writeln!(out, "{}", time.text())?;
        }
        out.push_str(&self.vcpu_table());
        writeln!(out)?;
        for origin in &self.origins {
            writeln!(out, "{}: {}", origin.of, origin.from)?;
        }
        for note in &self.lacks {
            writeln!(out, "note: {note}")?;
        }
        writeln!(out)?;
        out.push_str(&ledger_table(if verbose {
            &self.rows
        } else {
            &self.ledger
        }));
        for (name, cycles) in [("all", self.total), ("LBR", self.lbr)] {
            writeln!(
                out,
                "cycles, {name}: {} ({} to {})",
                grouped(cycles.default),
                grouped(cycles.low),
                grouped(cycles.high)
            )?;
        }
        writeln!(out)?;
        for row in &self.monitor {
            writeln!(out, "{}", row.text())?;
        }
        for (vcpu, note, count) in &self.journal {
            writeln!(out, "{vcpu}: {note}: {}", grouped(*count))?;
        }
        writeln!(out)?;
        self.write_findings(out)?;
        let samples = &self.samples;
        writeln!(
            out,
            "guest samples compared with an own processor's: {}: {} equal, {} stale, {} foreign, {} zero, {} \
             missing; {} extra",
            samples.compared,
            samples.equal,
            samples.stale,
            samples.foreign,
            samples.zero,
            samples.missing,
            samples.extra
        )
    }

    fn vcpu_table(&self) -> String {
        let head = [
            "vcpu",
            "instructions",
            "exits x",
            "switches y",
            "disturbed u",
            "migrations",
            "slices s",
            "DEBUGCTL d",
            "LBR",
            "PMU",
            "samples",
            "saves",
            "mean V",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            let saved = vcpu.saved;
            let mean = match saved.saves {
                0 => "-".to_owned(),
                saves => format!("{:.1}", saved.entries as f64 / saves as f64),
            };
            let counts = [
                vcpu.instructions,
                vcpu.exits.total,
                vcpu.switches.pairs,
                vcpu.switches.disturbed,
                vcpu.switches.migrations,
                vcpu.slices_with_lbr,
                vcpu.debugctl_accesses,
                vcpu.lbr_accesses,
                vcpu.pmu_accesses,
                vcpu.samples,
                saved.saves,
            ];
            let mut row = vec![format!("vcpu{n}")];
            row.extend(counts.map(grouped));
            row.push(mean);
            rows.push(row);
        }
        aligned(&rows, 1)
    }

    fn write_findings(&self, out: &mut String) -> std::fmt::Result {
        let (Some(findings), Some(reads)) = (&self.findings, &self.reads) else {
            return writeln!(out, "rules: not checked");
        };
        if findings.is_empty() {
            writeln!(out, "rules: every one holds")?;
        }
        for finding in findings {
            writeln!(
                out,
                "rule {}: {} violations",
                finding.rule,
                grouped(finding.count)
            )?;
            for first in &finding.first {
                writeln!(out, "  {first}")?;
            }
        }
        writeln!(
            out,
            "guest reads compared with an own processor's: {}: {} equal, {} stale, {} foreign, {} zero, {} missing",
            reads.compared, reads.equal, reads.stale, reads.foreign, reads.zero, reads.missing
        )
    }
}

/// The scene on the policy's kernel, for a processor of the guest's own.
pub(super) fn yardstick(scene: &Scene, policy: &dyn Policy) -> Result<Scene, SceneError> {
    let mut scene = scene.clone();
    scene.kernel = Some(kernel(&scene, policy)?.to_string());
    Ok(scene)
}

/// The scene with as much for every guest to execute as in a run, however long that takes.
pub(super) fn same_work(scene: &Scene, outcome: &Outcome) -> Scene {
    let mut scene = scene.clone();
    scene.duration_us = None;
    for (vcpu, done) in scene.vcpu.iter_mut().zip(&outcome.vcpus) {
        vcpu.instructions = Some(done.instructions);
    }
    scene
}

pub(super) fn worst(class: Option<&str>) -> String {
    class.map_or_else(String::new, |class| format!(" (worst class {class})"))
}

fn ledger_table(rows: &[LedgerRow]) -> String {
    let head = [
        "actor", "access", "cost", "class", "count", "low", "default", "high",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let class = row.class.chars().next().unwrap_or(' ').to_string();
        table.push(vec![
            row.actor.clone(),
            row.event.clone(),
            row.cost.to_owned(),
            class,
            grouped(row.count),
            grouped(row.cycles.low),
            grouped(row.cycles.default),
            grouped(row.cycles.high),
        ]);
    }
    aligned(&table, 4)
}

/// The kind of an access, without its register.
fn kind(event: Event) -> String {
    match event {
        Event::Rdmsr(_) => "RDMSR".to_owned(),
        Event::RdmsrFault(_) => "RDMSR: #GP".to_owned(),
        Event::Wrmsr(_) => "WRMSR".to_owned(),
        Event::WrmsrFault(_) => "WRMSR: #GP".to_owned(),
        Event::Vmread(_) => "VMREAD".to_owned(),
        Event::Vmwrite(_) => "VMWRITE".to_owned(),
        Event::VmExit { reason, .. } => format!("VM exit: {reason}"),
        Event::Transfer(area, _) => format!("{area} entry"),
        Event::FieldLoad(_) => "load from a VMCS field".to_owned(),
        Event::FieldSave(_) => "save to a VMCS field".to_owned(),
        Event::FieldClear(_) => "clear by VM exit".to_owned(),
        event => event.to_string(),
    }
}

fn row(row: &CostRow) -> LedgerRow {
    LedgerRow {
        actor: row.actor.to_string(),
        event: row.event.to_string(),
        cost: row.item.key(),
        class: row.class.to_string(),
        count: row.count,
        cycles: row.cycles,
    }
}

fn summed(rows: &[CostRow]) -> Vec<LedgerRow> {
    let mut sums: BTreeMap<(Actor, CostItem, String), (u64, Cycles, Class)> = BTreeMap::new();
    for row in rows {
        let key = (row.actor, row.item, kind(row.event));
        let sum = sums.entry(key).or_insert((0, Cycles::default(), row.class));
        sum.0 += row.count;
        sum.1 = sum.1.plus(row.cycles);
        sum.2 = sum.2.max(row.class);
    }
    let sums = sums.into_iter();
    sums.map(|((actor, item, event), (count, cycles, class))| LedgerRow {
        actor: actor.to_string(),
        event,
        cost: item.key(),
        class: class.to_string(),
        count,
        cycles,
    })
    .collect()
}

fn findings(outcome: &Outcome) -> Vec<Finding> {
    let found = outcome.machine.findings();
    let rules = Rule::NAMED.iter().map(|(rule, _)| *rule);
    let broken = rules.filter(|rule| found.count(*rule) != 0);
    broken
        .map(|rule| {
            let of_rule = found.violations().iter().filter(|v| v.rule == rule);
            Finding {
                rule: rule.to_string(),
                count: found.count(rule),
                first: of_rule.take(SHOWN).map(ToString::to_string).collect(),
            }
        })
        .collect()
}

/// What guests read against what they would have read on a processor of their own.
pub(crate) fn read_fidelity(outcome: &Outcome) -> ReadFidelity {
    let (compared, [stale, foreign, zero, missing]) = outcome.machine.fidelity();
    let different = stale.1 + foreign.1 + zero.1 + missing.1;
    ReadFidelity {
        compared,
        equal: compared - different,
        stale: stale.1,
        foreign: foreign.1,
        zero: zero.1,
        missing: missing.1,
    }
}
