//! What a run's ledger costs, and which part of it is the LBR's.

use std::collections::BTreeMap;

use serde::Serialize;
use vlbr_arch::vmx::{MsrArea, VmcsField};
use vlbr_cpu::ledger::{
    Actor, Bound, Class, CostItem, CostModel, Estimate, EstimateError, EstimateRow, Event,
};
use vlbr_host::hardware::LbrMsrs;
use vlbr_host::machine::Machine;

/// Core clock cycles with the lowest, usual and highest figures of the cost model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cycles {
    /// With the lowest figures.
    pub low: i64,
    /// With the usual ones.
    pub default: i64,
    /// With the highest.
    pub high: i64,
}

impl Cycles {
    /// The three figures of every row added up.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            default: self.default.saturating_add(other.default),
            high: self.high.saturating_add(other.high),
        }
    }

    fn at(rows: &[Estimate; 3], index: usize) -> Self {
        let cycles = |n: usize| to_i64(rows[n].rows[index].cycles);
        Self {
            low: cycles(0),
            default: cycles(1),
            high: cycles(2),
        }
    }
}

fn to_i64(cycles: u128) -> i64 {
    i64::try_from(cycles).unwrap_or(i64::MAX)
}

/// The LBR's accesses by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LbrCounts {
    /// RDMSR.
    pub reads: u64,
    /// WRMSR.
    pub writes: u64,
    /// Moved by the processor: entries of MSR areas, VMCS fields, XSAVES and XRSTORS.
    pub transfers: u64,
    /// VM exits for accesses to LBR MSRs.
    pub exits: u64,
}

/// What a run costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Every row of the ledger with its cycles.
    pub rows: Vec<CostRow>,
    /// All rows together.
    pub total: Cycles,
    /// The LBR's part of it, by the cost that applies.
    pub lbr: BTreeMap<CostItem, Cycles>,
    /// Worst class in the LBR's part.
    pub worst: Option<Class>,
    /// A figure in it was remembered, not read again.
    pub remembered: bool,
    /// The accesses of the LBR's part.
    pub counts: LbrCounts,
}

/// A row of the ledger with its cycles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRow {
    /// Who.
    pub actor: Actor,
    /// What.
    pub event: Event,
    /// How often.
    pub count: u64,
    /// The cost it falls under.
    pub item: CostItem,
    /// How well that is known.
    pub class: Class,
    /// Cycles, all together.
    pub cycles: Cycles,
}

impl Costs {
    /// What the ledger of a machine costs.
    ///
    /// # Errors
    /// The model lacks a cost.
    pub fn of(machine: &Machine, model: &CostModel) -> Result<Self, EstimateError> {
        let hardware = machine.host().hardware();
        let part = hardware.fresh().lbr().profile().name().to_owned();
        let ledger = machine.ledger();
        let at = |bound| model.estimate(ledger, &part, bound);
        let estimates = [at(Bound::Low)?, at(Bound::Default)?, at(Bound::High)?];
        let msrs = machine.host().lbr_msrs();
        let areas = lists_lbr(&estimates[1].rows, msrs);
        let exits = |of_lbr: bool| {
            let rows = estimates[1].rows.iter();
            let rows = rows.filter(|row| matches!(row.event, Event::VmExit { .. }));
            rows.filter(|row| !of_lbr || is_lbr(row.event, msrs, &areas))
                .map(|row| row.count)
                .sum::<u64>()
        };
        let (lbr_exits, all_exits) = (exits(true), exits(false));
        let mut costs = Self {
            rows: Vec::with_capacity(estimates[1].rows.len()),
            total: Cycles::default(),
            lbr: BTreeMap::new(),
            worst: None,
            remembered: estimates[1].remembered,
            counts: LbrCounts {
                exits: lbr_exits,
                ..LbrCounts::default()
            },
        };
        for (index, row) in estimates[1].rows.iter().enumerate() {
            let cycles = Cycles::at(&estimates, index);
            costs.total = costs.total.plus(cycles);
            costs.rows.push(CostRow {
                actor: row.actor,
                event: row.event,
                count: row.count,
                item: row.item,
                class: row.class,
                cycles,
            });
            // The entry after an exit for an access is part of that access.
            let share = match row.event {
                Event::VmEntry => (lbr_exits, all_exits),
                event => (u64::from(is_lbr(event, msrs, &areas)), 1),
            };
            if share.0 == 0 || share.1 == 0 {
                continue;
            }
            let part = |cycles: i64| {
                let part = i128::from(cycles) * i128::from(share.0) / i128::from(share.1);
                i64::try_from(part).unwrap_or(i64::MAX)
            };
            let cycles = Cycles {
                low: part(cycles.low),
                default: part(cycles.default),
                high: part(cycles.high),
            };
            let sum = costs.lbr.entry(row.item).or_default();
            *sum = sum.plus(cycles);
            costs.worst = costs.worst.max(Some(row.class));
            let counts = &mut costs.counts;
            match row.event {
                Event::Rdmsr(_) | Event::RdmsrFault(_) => counts.reads += row.count,
                Event::Wrmsr(_) | Event::WrmsrFault(_) => counts.writes += row.count,
                Event::Transfer(..)
                | Event::FieldLoad(_)
                | Event::FieldSave(_)
                | Event::FieldClear(_)
                | Event::Xsaves
                | Event::Xrstors => counts.transfers += row.count,
                _ => {}
            }
        }
        Ok(costs)
    }

    /// The LBR's part.
    #[must_use]
    pub fn lbr_cycles(&self) -> Cycles {
        let sums = self.lbr.values();
        sums.fold(Cycles::default(), |sum, cycles| sum.plus(*cycles))
    }
}

/// By cost item, what one run of the LBR costs more than another. Each item's range is the range of
/// its cost; the sum of the ranges is what the difference may be, whatever the costs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference(BTreeMap<CostItem, (i64, i64, i64)>);

impl Difference {
    /// `a` less `b`, both with the lowest, the usual and the highest figure of each item.
    #[must_use]
    pub fn of(a: &BTreeMap<CostItem, Cycles>, b: &BTreeMap<CostItem, Cycles>) -> Self {
        let mut items: BTreeMap<CostItem, (i64, i64, i64)> = BTreeMap::new();
        for (sign, costs) in [(1, a), (-1, b)] {
            for (item, cycles) in costs {
                let sum = items.entry(*item).or_default();
                sum.0 = sum.0.saturating_add(sign * cycles.low);
                sum.1 = sum.1.saturating_add(sign * cycles.default);
                sum.2 = sum.2.saturating_add(sign * cycles.high);
            }
        }
        Self(items)
    }

    /// This difference less another.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        let mut items = self.0.clone();
        for (item, (low, default, high)) in &other.0 {
            let sum = items.entry(*item).or_default();
            sum.0 = sum.0.saturating_sub(*low);
            sum.1 = sum.1.saturating_sub(*default);
            sum.2 = sum.2.saturating_sub(*high);
        }
        Self(items)
    }

    /// What it may be.
    #[must_use]
    pub fn cycles(&self) -> Cycles {
        let items = self.0.values();
        let ranges = items.map(|&(low, default, high)| Cycles {
            low: low.min(high),
            default,
            high: low.max(high),
        });
        ranges.fold(Cycles::default(), Cycles::plus)
    }
}

/// Areas that hold an LBR register.
fn lists_lbr(rows: &[EstimateRow], msrs: &LbrMsrs) -> Vec<MsrArea> {
    let listed = rows.iter().filter_map(|row| match row.event {
        Event::Transfer(area, msr) if msrs.register(msr).is_some() => Some(area),
        _ => None,
    });
    listed.collect()
}

fn is_lbr(event: Event, msrs: &LbrMsrs, areas: &[MsrArea]) -> bool {
    match event {
        Event::Rdmsr(msr)
        | Event::RdmsrFault(msr)
        | Event::Wrmsr(msr)
        | Event::WrmsrFault(msr)
        | Event::VmExit { msr: Some(msr), .. }
        | Event::Transfer(_, msr)
        | Event::FieldLoad(msr)
        | Event::FieldSave(msr)
        | Event::FieldClear(msr) => msrs.register(msr).is_some(),
        Event::Area(area) => areas.contains(&area),
        Event::Vmread(field) | Event::Vmwrite(field) => {
            field == VmcsField::GUEST_IA32_DEBUGCTL || field == VmcsField::GUEST_IA32_LBR_CTL
        }
        Event::Xsaves | Event::Xrstors => true,
        Event::VmEntry | Event::VmEntryFailure(_) | Event::VmExit { msr: None, .. } => false,
    }
}
