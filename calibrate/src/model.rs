//! From readings to a cost model.

use std::collections::BTreeMap;
use std::fmt::Write;

use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;
use vlbr_cpu::ledger::{Class, Cost, CostItem, CostModel};

use crate::cycles::{Range, of_rows};
use crate::error::CalibrateError;
use crate::run::{Core, Kind, Row, Run};
use crate::sweep::{Line, Points};
use crate::text::{key, quoted};
use crate::trust::{Trust, source};

/// What a calibration is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Where figures come from that the readings lack.
    pub base: &'o CostModel,
    /// Readings from below a hypervisor or an emulator make figures of class E, in place of an error.
    pub allow_virtual: bool,
    /// Names of the processor, as profiles have them: the round trip becomes theirs as well.
    pub processors: &'o [&'o str],
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// Readings: so many rows.
    Readings(usize),
    /// The base model.
    Base,
}

/// A cost of the model made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it is the cost of.
    pub item: CostItem,
    /// The processor, for a round trip of its own.
    pub processor: Option<String>,
    /// The cost.
    pub cost: Cost,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// A cost model made of readings and a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    model: CostModel,
    base: String,
    figures: Vec<Figure>,
}

impl Calibration {
    /// The model.
    #[must_use]
    pub const fn model(&self) -> &CostModel {
        &self.model
    }

    /// Its figures: every item in the order of [`CostItem::NAMED`], then processors by name.
    #[must_use]
    pub fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// The model as [`CostModel::from_toml`] reads it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (name, share) = (self.model.name(), self.model.exit_share());
        toml(name, &self.base, share, &self.figures)
    }
}

/// One sample of a figure: a row, or the slope of several.
struct Reading<'r> {
    range: Range,
    rows: Vec<(&'r Run, &'r Row)>,
}

/// Rows of all runs that timed the same.
type Groups<'r> = BTreeMap<Kind, Vec<(&'r Run, &'r Row)>>;

/// Rows that differ in a count: of an area with a register in its entries, or of fields.
type Sweeps<'r> = BTreeMap<Option<(MsrArea, Msr)>, Vec<(u32, Reading<'r>)>>;

/// Makes a model: what was timed from `runs`, all else from the base.
///
/// The same row of several runs counts once, with the median of its medians and its outermost
/// quartiles; so do the rows of all registers that one cost stands for. The cost of an area entry or a
/// field is the slope over their number, that of an area that is not empty what the line has at 0
/// beyond the round trip without (class D at best).
///
/// # Errors
/// Runs of several processors or origins; readings not from hardware, unless allowed; readings too
/// noisy or too large; nothing that a model has a cost for.
pub fn calibrate(runs: &[Run], options: &Options<'_>) -> Result<Calibration, CalibrateError> {
    let first = runs.first().ok_or(CalibrateError::Empty)?;
    for run in runs {
        if run.signature != first.signature {
            let (a, b) = (&first.signature, &run.signature);
            return Err(CalibrateError::Machines(a.clone(), b.clone()));
        }
        if run.origin != first.origin {
            let (a, b) = (&first.origin, &run.origin);
            return Err(CalibrateError::Origins(a.clone(), b.clone()));
        }
    }
    let trust = Trust::of(runs, options.allow_virtual)?;
    let mut costs = BTreeMap::new();
    for (item, readings) in readings(runs)? {
        let ranges: Vec<_> = readings.iter().map(|reading| reading.range).collect();
        let cycles = Range::pool(&ranges).and_then(Range::cycles);
        let (low, default, high) = cycles.ok_or(CalibrateError::TooLarge(item))?;
        let rows: Vec<_> = readings
            .iter()
            .flat_map(|reading| reading.rows.iter().copied())
            .collect();
        let cost = Cost {
            low: Some(low),
            default,
            high: Some(high),
            class: trust.class(item, &rows),
            remembered: false,
            source: source(&trust, item, &rows),
        };
        costs.insert(item, (cost, rows.len()));
    }
    if costs.is_empty() {
        return Err(CalibrateError::NoFigure);
    }
    let best = costs.values().map(|(cost, _)| cost.class).min();
    let name = format!(
        "{}-{:02x}_{:02x}-{}{}",
        trust.prefix(best.unwrap_or(Class::E)),
        first.signature.family,
        first.signature.model,
        first.signature.stepping,
        match first.signature.core {
            Core::Only => "",
            Core::Atom => "-atom",
            Core::Core => "-core",
        }
    );
    let figures = figures(&costs, options);
    let base = options.base.name();
    let text = toml(&name, base, options.base.exit_share(), &figures);
    Ok(Calibration {
        model: CostModel::from_toml(&text)?,
        base: base.to_owned(),
        figures,
    })
}

/// What the runs say of each cost.
fn readings(runs: &[Run]) -> Result<BTreeMap<CostItem, Vec<Reading<'_>>>, CalibrateError> {
    let mut groups = Groups::new();
    for run in runs {
        for row in &run.rows {
            groups.entry(row.kind).or_default().push((run, row));
        }
    }
    let mut readings: BTreeMap<CostItem, Vec<Reading<'_>>> = BTreeMap::new();
    let mut sweeps = Sweeps::new();
    for (kind, rows) in groups {
        let only: Vec<_> = rows.iter().map(|(_, row)| *row).collect();
        let Some(range) = of_rows(&only) else {
            continue;
        };
        let reading = Reading { range, rows };
        let item = match kind {
            Kind::Cpuid(_) | Kind::Rdpmc(_) => continue,
            Kind::Rdmsr(msr) => CostItem::of_msr(msr, false),
            Kind::Wrmsr(msr) => CostItem::of_msr(msr, true),
            Kind::Fault => CostItem::Fault,
            Kind::Xsaves => CostItem::Xsaves,
            Kind::Xrstors => CostItem::Xrstors,
            Kind::Vmread | Kind::Vmwrite => CostItem::VmcsAccess,
            Kind::RoundTrip(_) => CostItem::RoundTrip,
            Kind::Area(area, msr, count) => {
                let sweep = sweeps.entry(Some((area, msr))).or_default();
                sweep.push((count, reading));
                continue;
            }
            Kind::Fields(count) => {
                sweeps.entry(None).or_default().push((count, reading));
                continue;
            }
        };
        readings.entry(item).or_default().push(reading);
    }
    for (of, sweep) in sweeps {
        let points: Points = sweep
            .iter()
            .map(|(n, reading)| (*n, reading.range))
            .collect();
        let rows: Vec<_> = sweep
            .into_iter()
            .flat_map(|(_, reading)| reading.rows)
            .collect();
        let (item, what, from) = match of {
            None => (CostItem::Field, "fields", 0),
            Some((MsrArea::EntryLoad, _)) => (CostItem::AreaLoad, "area list=entry-load", 1),
            Some((MsrArea::ExitLoad, _)) => (CostItem::AreaLoad, "area list=exit-load", 1),
            Some((MsrArea::ExitStore, _)) => (CostItem::AreaStore, "area list=exit-store", 1),
        };
        let line = Line::through(&points, from).ok_or(CalibrateError::Short(what))?;
        let range = line.each().ok_or(CalibrateError::Falling(what))?;
        if let (Some(_), Some(without)) = (of, points.get(&0)) {
            readings
                .entry(CostItem::AreaFixed)
                .or_default()
                .push(Reading {
                    range: line.fixed(without),
                    rows: rows.clone(),
                });
        }
        readings
            .entry(item)
            .or_default()
            .push(Reading { range, rows });
    }
    Ok(readings)
}

/// The readings' costs, and the base's where there are none.
fn figures(costs: &BTreeMap<CostItem, (Cost, usize)>, options: &Options<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (item, _) in CostItem::NAMED {
        let (cost, provenance) = match (costs.get(item), options.base.cost(*item)) {
            (Some((cost, rows)), _) => (cost.clone(), Provenance::Readings(*rows)),
            (None, Some(cost)) => (cost.clone(), Provenance::Base),
            (None, None) => continue,
        };
        figures.push(Figure {
            item: *item,
            processor: None,
            cost,
            provenance,
        });
    }
    let inherited = |cost: &Cost| (cost.clone(), Provenance::Base);
    let mut trips: BTreeMap<&str, (Cost, Provenance)> = options
        .base
        .processors()
        .map(|(name, cost)| (name, inherited(cost)))
        .collect();
    if let Some((cost, rows)) = costs.get(&CostItem::RoundTrip) {
        for name in options.processors {
            trips.insert(name, (cost.clone(), Provenance::Readings(*rows)));
        }
    }
    figures.extend(trips.into_iter().map(|(name, (cost, provenance))| Figure {
        item: CostItem::RoundTrip,
        processor: Some(name.to_owned()),
        cost,
        provenance,
    }));
    figures
}

fn toml(name: &str, base: &str, exit_share: u8, figures: &[Figure]) -> String {
    let mut out = String::new();
    // A string takes whatever is written to it.
    let _ = writeln!(
        out,
        "# Costs in core clock cycles, written by vlbr calibrate. Class: H measured, D derived from\n\
         # measurements, E estimate. What is marked as inherited is the base model's, with its class.\n\n\
         name = {}\nexit_share = {exit_share}",
        quoted(name)
    );
    for (table, single) in [("costs", false), ("vmexit_plus_entry", true)] {
        let mut before = None;
        for figure in figures {
            if figure.processor.is_some() != single {
                continue;
            }
            if before.is_none() {
                let _ = writeln!(out, "\n[{table}]");
            }
            let inherited = figure.provenance == Provenance::Base;
            if before.replace(inherited) != Some(inherited) {
                let _ = match inherited {
                    true => writeln!(out, "# Inherited from the model {}:", quoted(base)),
                    false => writeln!(out, "# From readings:"),
                };
            }
            let name = figure.processor.as_deref().map(key);
            let name = name.unwrap_or_else(|| figure.item.key().to_owned());
            let _ = writeln!(out, "{name} = {}", inline(&figure.cost));
        }
    }
    out
}

fn inline(cost: &Cost) -> String {
    let mut out = String::from("{ ");
    if let Some(low) = cost.low {
        let _ = write!(out, "low = {low}, ");
    }
    let _ = write!(out, "default = {}, ", cost.default);
    if let Some(high) = cost.high {
        let _ = write!(out, "high = {high}, ");
    }
    let _ = write!(out, "class = \"{:?}\", ", cost.class);
    if cost.remembered {
        out.push_str("remembered = true, ");
    }
    let _ = write!(out, "source = {} }}", quoted(&cost.source));
    out
}
