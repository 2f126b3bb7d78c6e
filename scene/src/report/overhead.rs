//! All policies side by side, with a processor of the guest's own as the yardstick.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use vlbr_cpu::ledger::{Class, CostModel};
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Ideal, Policy};

use super::table::{aligned, figure, grouped};
use super::vm::{same_work, yardstick};
use super::{Costs, Cycles, Difference, LbrCounts, Letters, Models, Origin, PolicyTime, time};
use crate::{
    GuestSource, InputFile, OnViolation, Outcome, Scene, SceneError, SceneFile, SceneTime,
    Simulation, kernel,
};

/// What to compare.
#[derive(Debug)]
pub struct OverheadOptions<'a> {
    /// The policies.
    pub policies: Vec<Arc<dyn Policy>>,
    /// The cost model.
    pub model: &'a CostModel,
    /// The scenes to run, each with the value it stands for; `None`: the scene as it is.
    pub scenes: Option<Vec<(String, Scene)>>,
    /// The key that they differ in.
    pub key: Option<String>,
    /// Threads to use; 0 takes all cores.
    pub jobs: usize,
}

/// A policy in a scene.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyRow {
    /// Its name.
    pub policy: String,
    /// What it is.
    pub title: String,
    /// Linux of the host.
    pub kernel: String,
    /// Why it does not run there; everything below is 0 then.
    pub failed: Option<String>,
    /// The numbers the cost follows from.
    pub letters: Letters,
    /// Accesses to LBR MSRs, by whomever.
    pub counts: LbrCounts,
    /// Their cycles.
    pub lbr: Cycles,
    /// Cycles of all that the ledger holds.
    pub total: Cycles,
    /// LBR cycles beyond those with a processor of the guest's own on the same kernel.
    pub overhead: Cycles,
    /// Where the clocks went; `None` if time is nominal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<PolicyTime>,
    /// Worst class in it.
    pub class: Option<String>,
    /// A figure in it was remembered, not read again.
    pub remembered: bool,
    /// Overhead for a VM exit.
    pub per_exit: Option<f64>,
    /// Overhead for a switch out and in.
    pub per_switch: Option<f64>,
    /// LBR cycles against those of the yardstick.
    pub against_ideal: Option<f64>,
    /// Overhead against that of v8.
    pub against_v8: Option<f64>,
    /// The overhead by cost item.
    #[serde(skip)]
    pub(super) over: Difference,
}

/// A scene with all policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Value of the key that is swept.
    pub value: Option<String>,
    /// What the figures were made with; the kernel stands with each policy.
    pub models: Models,
    /// The policies.
    pub rows: Vec<PolicyRow>,
    /// Where the numbers come from.
    pub origins: Vec<Origin>,
    /// What the scene does not hold.
    pub lacks: Vec<String>,
}

/// Policies in a scene, or in a scene with several values of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overhead {
    /// The scene.
    pub scene: String,
    /// Version of this program.
    pub version: &'static str,
    /// Files that the result depends on.
    pub inputs: Vec<InputFile>,
    /// The key that is swept.
    pub key: Option<String>,
    /// The scenes.
    pub points: Vec<Point>,
}

/// What is kept of a run.
struct Run {
    letters: Letters,
    costs: Costs,
    time: Option<PolicyTime>,
    models: Models,
    origins: Vec<Origin>,
    lacks: Vec<String>,
}

impl Run {
    fn of(
        scene: &Scene,
        policy: &dyn Policy,
        outcome: &Outcome,
        (time, model): (&SceneTime, &CostModel),
    ) -> Result<Self, SceneError> {
        let mut costs = Costs::of(&outcome.machine, model)?;
        let passed = PolicyTime::of(outcome, &costs);
        costs.rows.clear();
        Ok(Self {
            letters: Letters::of(outcome),
            costs,
            time: passed,
            models: Models::of(scene, policy, outcome, (time, model))?,
            origins: Origin::of(scene, outcome),
            lacks: Origin::lacks(scene, outcome),
        })
    }
}

/// A scene, its guests, and a policy on a kernel.
struct Job<'a> {
    point: usize,
    policy: Arc<dyn Policy>,
    scene: &'a Scene,
    /// For the yardstick, the kernel it stands for.
    kernel: Option<String>,
}

/// A scene with what all its runs share.
struct Prepared {
    scene: Scene,
    guests: Vec<GuestSource>,
    time: SceneTime,
}

impl Prepared {
    /// Where costs take time, a guest executes the less in a time the more its policy costs. So guests
    /// execute under every policy what they execute on processors of their own until the scene ends.
    fn new(
        file: &SceneFile,
        scene: &Scene,
        options: &OverheadOptions<'_>,
    ) -> Result<Self, SceneError> {
        let guests = file.guests(scene)?;
        let time = SceneTime::of(scene, &guests, options.model)?;
        let mut scene = scene.clone();
        if time.describe().is_some() && scene.duration_us.is_some() {
            let ideal: Arc<dyn Policy> = Arc::new(Ideal);
            let own = Simulation::new(&scene, &guests, &time, &ideal, Checking::Off)?;
            let outcome = own.run(&mut |_| {})?;
            scene = same_work(&scene, &outcome);
        }
        Ok(Self {
            scene,
            guests,
            time,
        })
    }
}

impl Overhead {
    /// Runs every policy, on all cores. `progress` is told how many of how many runs are done.
    ///
    /// # Errors
    /// A trace is missing or damaged; a scene is wrong for every policy.
    pub fn run(
        file: &SceneFile,
        options: &OverheadOptions<'_>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Self, SceneError> {
        let own = [(String::new(), file.scene().clone())];
        let scenes = options.scenes.as_deref().unwrap_or(&own);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs);
        let pool = pool.build().map_err(SceneError::Threads)?;
        let prepared: Vec<Prepared> = pool
            .install(|| {
                let scenes = scenes.par_iter();
                scenes
                    .map(|(_, scene)| Prepared::new(file, scene, options))
                    .collect::<Result<_, _>>()
            })
            .map_err(|error: SceneError| error.within(file.path()))?;
        let values = scenes.iter().map(|(value, _)| value);
        let scenes: Vec<_> = values.zip(prepared.iter().map(|p| &p.scene)).collect();
        let mut jobs = Vec::new();
        let mut yardsticks = BTreeMap::new();
        for (point, (_, scene)) in scenes.iter().enumerate() {
            for policy in &options.policies {
                let kernel = kernel(scene, &**policy)?.to_string();
                yardsticks
                    .entry((point, kernel))
                    .or_insert(yardstick(scene, &**policy)?);
            }
        }
        for ((point, kernel), scene) in &yardsticks {
            jobs.push(Job {
                point: *point,
                policy: Arc::new(Ideal),
                scene,
                kernel: Some(kernel.clone()),
            });
        }
        for (point, (_, scene)) in scenes.iter().enumerate() {
            for policy in &options.policies {
                jobs.push(Job {
                    point,
                    policy: Arc::clone(policy),
                    scene,
                    kernel: None,
                });
            }
        }
        let (done, all) = (AtomicU64::new(0), jobs.len() as u64);
        let runs: Vec<_> = pool.install(|| {
            let runs = jobs.par_iter().map(|job| {
                let run = run(job, &prepared[job.point], options.model);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                run
            });
            runs.collect()
        });
        let mut ideals = BTreeMap::new();
        let mut points: Vec<Runs> = scenes.iter().map(|_| Vec::new()).collect();
        for (job, run) in jobs.into_iter().zip(runs) {
            match job.kernel {
                Some(kernel) => {
                    let run = run.map_err(|error| error.within(file.path()))?;
                    ideals.insert((job.point, kernel), run);
                }
                None => points[job.point].push((job.policy, run)),
            }
        }
        let mut result = Vec::new();
        for (n, ((value, scene), runs)) in scenes.iter().zip(points).enumerate() {
            let value = options.key.is_some().then(|| (*value).clone());
            result.push(point(value, scene, n, runs, &ideals)?);
        }
        Ok(Self {
            scene: file.scene().name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            inputs: file.inputs()?,
            key: options.key.clone(),
            points: result,
        })
    }
}

fn run(job: &Job<'_>, prepared: &Prepared, model: &CostModel) -> Result<Run, SceneError> {
    // A scene that a broken rule ends needs the rules checked; what is counted is the same.
    let checking = match job.scene.on_violation {
        OnViolation::Fail => Checking::On,
        OnViolation::Report => Checking::Off,
    };
    let Prepared { guests, time, .. } = prepared;
    let simulation = Simulation::new(job.scene, guests, time, &job.policy, checking)?;
    let outcome = simulation.run(&mut |_| {})?;
    Run::of(job.scene, &*job.policy, &outcome, (time, model))
}

type Runs = Vec<(Arc<dyn Policy>, Result<Run, SceneError>)>;

fn point(
    value: Option<String>,
    scene: &Scene,
    number: usize,
    runs: Runs,
    ideals: &BTreeMap<(usize, String), Run>,
) -> Result<Point, SceneError> {
    let mut rows = Vec::new();
    let mut yardstick = None;
    for (policy, run) in &runs {
        let kernel = kernel(scene, &**policy)?.to_string();
        let ideal = ideals.get(&(number, kernel.clone()));
        yardstick = yardstick.or(ideal);
        let mut row = PolicyRow {
            policy: policy.name().to_owned(),
            title: policy.title().to_owned(),
            kernel,
            failed: None,
            letters: Letters::default(),
            counts: LbrCounts::default(),
            lbr: Cycles::default(),
            total: Cycles::default(),
            overhead: Cycles::default(),
            time: None,
            class: None,
            remembered: false,
            per_exit: None,
            per_switch: None,
            against_ideal: None,
            against_v8: None,
            over: Difference::default(),
        };
        match (run, ideal) {
            (Ok(run), Some(ideal)) => fill(&mut row, run, ideal),
            (Err(error), _) => row.failed = Some(error.to_string()),
            (Ok(_), None) => {}
        }
        rows.push(row);
    }
    let v8 = rows.iter().find(|row| row.policy == "v8");
    let v8 = v8.map(|row| row.overhead.default).filter(|v8| *v8 > 0);
    for row in rows.iter_mut().filter(|row| row.failed.is_none()) {
        row.against_v8 = v8.map(|v8| row.overhead.default as f64 / v8 as f64);
    }
    // What the scene holds is the same under every policy; the yardstick always runs.
    let first = runs.iter().find_map(|(_, run)| run.as_ref().ok());
    let Some(shown) = first.or(yardstick) else {
        return Err(SceneError::value("policy", "none is given"));
    };
    Ok(Point {
        value,
        models: shown.models.clone(),
        rows,
        origins: shown.origins.clone(),
        lacks: shown.lacks.clone(),
    })
}

fn fill(row: &mut PolicyRow, run: &Run, ideal: &Run) {
    let costs = &run.costs;
    row.letters = run.letters;
    row.counts = costs.counts;
    row.lbr = costs.lbr_cycles();
    row.total = costs.total;
    row.time = run.time.map(|time| time.against(ideal.time.as_ref()));
    row.over = Difference::of(&costs.lbr, &ideal.costs.lbr);
    row.overhead = row.over.cycles();
    let worst: Option<Class> = costs.worst.max(ideal.costs.worst);
    row.class = worst.map(|class| class.to_string());
    row.remembered = costs.remembered;
    let over = row.overhead.default as f64;
    let per = |count: u64| (count != 0).then(|| over / count as f64);
    row.per_exit = per(row.letters.x);
    row.per_switch = per(row.letters.y);
    let whole = ideal.costs.lbr_cycles().default;
    row.against_ideal = (whole > 0).then(|| row.lbr.default as f64 / whole as f64);
}

impl Overhead {
    /// As a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for (n, point) in self.points.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            let at = match (&self.key, &point.value) {
                (Some(key), Some(value)) => format!(", {key} = {value}"),
                _ => String::new(),
            };
            let models = &point.models;
            writeln!(
                out,
                "scene {}{at}: {} (N = {}, E = {}), {}, costs {}",
                self.scene,
                models.part,
                models.entries,
                models.msrs_per_entry,
                models.time(),
                models.costs
            )?;
            out.push_str(&table(point));
            let clocks = time::table(point);
            if !clocks.is_empty() {
                writeln!(out, "\n{clocks}")?;
            }
            for row in point.rows.iter().filter(|row| row.failed.is_some()) {
                let reason = row.failed.as_deref().unwrap_or_default();
                writeln!(out, "{}: does not run: {reason}", row.policy)?;
            }
            writeln!(out, "ranking: {}", point.ranking())?;
            if n + 1 < self.points.len() {
                continue;
            }
            writeln!(out)?;
            if let Some(key) = &self.key {
                for crossing in self.crossings() {
                    writeln!(out, "{}", crossing.text(key))?;
                }
                writeln!(out)?;
            }
            for origin in &point.origins {
                writeln!(out, "{}: {}", origin.of, origin.from)?;
            }
            for note in &point.lacks {
                writeln!(out, "note: {note}")?;
            }
        }
        writeln!(
            out,
            "cycles: of LBR accesses, beyond those with a processor of the guest's own on the same kernel \
             (ideal). denied: accesses of the guest that were refused or had no effect. ranking: < decided \
             within the ranges of the cost model, ~ not, = the same, * refuses accesses"
        )?;
        if self.is_timed() {
            writeln!(out, "{}", time::LEGEND)?;
        }
        Ok(())
    }

    /// Whether time is a model's.
    pub(super) fn is_timed(&self) -> bool {
        let mut models = self.points.iter().map(|point| &point.models);
        models.any(|models| models.timing.is_some())
    }
}

fn table(point: &Point) -> String {
    let head = [
        "policy", "Linux", "x", "y", "u", "s", "d", "V", "denied", "rd", "wr", "moved", "exits",
        "low", "cycles", "high", "class", "/exit", "/switch", "/ideal", "/v8",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
    for row in point.rows.iter().filter(|row| row.failed.is_none()) {
        let (letters, counts) = (&row.letters, &row.counts);
        let mut cells = vec![row.policy.clone(), row.kernel.clone()];
        cells.extend([letters.x, letters.y, letters.u, letters.s, letters.d].map(grouped));
        cells.push(
            letters
                .v
                .map_or_else(|| "-".to_owned(), |v| format!("{v:.1}")),
        );
        let more = [
            letters.denied,
            counts.reads,
            counts.writes,
            counts.transfers,
            counts.exits,
        ];
        cells.extend(more.map(grouped));
        let cycles = row.overhead;
        cells.extend([cycles.low, cycles.default, cycles.high].map(grouped));
        cells.push(
            row.class
                .as_deref()
                .unwrap_or("-")
                .chars()
                .take(1)
                .collect(),
        );
        let ratios = [
            row.per_exit,
            row.per_switch,
            row.against_ideal,
            row.against_v8,
        ];
        cells.extend(ratios.map(optional));
        rows.push(cells);
    }
    aligned(&rows, 2)
}
