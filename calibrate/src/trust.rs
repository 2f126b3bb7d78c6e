//! Who may call a figure measured, and what its source line says.

use std::fmt::Write;

use vlbr_cpu::ledger::{Class, CostItem};

use crate::cycles::of_rows;
use crate::error::CalibrateError;
use crate::run::{Kind, Origin, Row, Run};

/// Core clocks that CPUID leaf 0 takes on hardware: published are 54 to 335, with room. Under a
/// hypervisor it always exits.
const CONTROL: (u32, u32) = (40, 1000);
/// Fewest samples whose quartiles are taken for a measurement.
const FEWEST: u32 = 100;

/// What was timed, as far as the readings show.
pub(crate) enum Trust {
    /// A processor.
    Hardware,
    /// Not a processor, or nothing shows that it was one; allowed by the caller.
    Allowed(String),
    /// A made-up text.
    Synthetic,
}

impl Trust {
    pub(crate) fn of(runs: &[Run], allow_virtual: bool) -> Result<Self, CalibrateError> {
        for run in runs {
            let (doubt, text) = match &run.origin {
                Origin::Synthetic => return Ok(Self::Synthetic),
                Origin::Virtual(name) => (
                    CalibrateError::Virtual(name.clone()),
                    format!("timed under {name}, not on hardware"),
                ),
                Origin::Hardware => match control(run) {
                    Ok(()) => continue,
                    Err(doubt) => (doubt, "nothing shows that hardware was timed".to_owned()),
                },
            };
            if !allow_virtual {
                return Err(doubt);
            }
            return Ok(Self::Allowed(text));
        }
        Ok(Self::Hardware)
    }

    /// How well a figure made of these rows is known.
    pub(crate) fn class(&self, item: CostItem, rows: &[(&Run, &Row)]) -> Class {
        let scaled = rows.iter().all(|(_, row)| row.ticks.clock.is_some());
        let enough = rows.iter().all(|(_, row)| row.ticks.count >= FEWEST);
        match self {
            Self::Hardware if scaled && enough && item == CostItem::AreaFixed => Class::D,
            Self::Hardware if scaled && enough => Class::H,
            _ => Class::E,
        }
    }

    /// First word of the model's name.
    pub(crate) const fn prefix(&self, best: Class) -> &'static str {
        match (self, best) {
            (Self::Hardware, Class::H | Class::D) => "measured",
            (Self::Hardware, Class::E) => "estimated",
            (Self::Allowed(_), _) => "virtual",
            (Self::Synthetic, _) => "synthetic",
        }
    }
}

/// Whether CPUID takes what it takes on hardware.
fn control(run: &Run) -> Result<(), CalibrateError> {
    let row = run.rows.iter().find(|row| row.kind == Kind::Cpuid(0));
    let range = row.and_then(|row| of_rows(&[row]));
    let range = range.ok_or(CalibrateError::NoControl)?;
    let cycles = range.cycles().map_or(u32::MAX, |(_, median, _)| median);
    let (low, high) = CONTROL;
    if (low..=high).contains(&cycles) {
        Ok(())
    } else {
        Err(CalibrateError::Control { cycles, low, high })
    }
}

/// The source line of a figure.
pub(crate) fn source(trust: &Trust, item: CostItem, rows: &[(&Run, &Row)]) -> String {
    let mut out = match trust {
        Trust::Hardware => "timed".to_owned(),
        Trust::Allowed(doubt) => doubt.clone(),
        Trust::Synthetic => "synthetic, nothing was timed".to_owned(),
    };
    let mut runs: Vec<&Run> = Vec::new();
    for (run, _) in rows {
        if !runs.contains(run) {
            runs.push(run);
        }
    }
    for (number, run) in runs.iter().enumerate() {
        if number == 0 {
            let _ = write!(out, ": {}", run.signature);
        }
        let _ = write!(
            out,
            "{} microcode {:#x}, {} ({}), TSC {} kHz by {}",
            if number == 0 { "," } else { ";" },
            run.microcode,
            run.system,
            run.program,
            run.tsc_khz,
            run.tsc_from
        );
    }
    let counts = || rows.iter().map(|(_, row)| row.ticks.count);
    let (fewest, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let what = match item {
        CostItem::AreaLoad | CostItem::AreaStore | CostItem::Field => {
            "slope over the number of them"
        }
        CostItem::AreaFixed => "what the slope leaves at none, less the round trip without",
        _ => "median and quartiles, empty timing subtracted",
    };
    let plural = if rows.len() == 1 { "" } else { "s" };
    let _ = write!(
        out,
        "; {what}; {} row{plural} of {}",
        rows.len(),
        span(fewest, most)
    );
    let _ = write!(out, " samples; {}", unit(rows));
    out
}

/// What a cycle of the figure is.
fn unit(rows: &[(&Run, &Row)]) -> String {
    let ratios: Option<Vec<u128>> = rows
        .iter()
        .map(|(_, row)| {
            let clock = row.ticks.clock?;
            let (aperf, mperf) = (u128::from(clock.aperf), u128::from(clock.mperf));
            Some((aperf * 1000 + mperf / 2) / mperf)
        })
        .collect();
    let decimal = |ratio: u128| format!("{}.{:03}", ratio / 1000, ratio % 1000);
    match ratios
        .as_deref()
        .map(|all| (all.iter().min(), all.iter().max()))
    {
        Some((Some(low), Some(high))) => format!(
            "core clocks: TSC ticks times APERF/MPERF, {}",
            span(decimal(*low), decimal(*high))
        ),
        _ => "TSC ticks, taken for core clocks: no APERF and MPERF".to_owned(),
    }
}

fn span<T: PartialEq + std::fmt::Display>(low: T, high: T) -> String {
    if low == high {
        low.to_string()
    } else {
        format!("{low} to {high}")
    }
}
