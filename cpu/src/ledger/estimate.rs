//! From counts to cycles.

use core::fmt;

use super::cost::{Bound, Class, Cost, CostItem, CostModel};
use super::{Actor, Event, Ledger};
use vlbr_arch::vmx::MsrArea;

/// A ledger row with its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EstimateRow {
    /// Who.
    pub actor: Actor,
    /// What.
    pub event: Event,
    /// How often.
    pub count: u64,
    /// The cost it falls under.
    pub item: CostItem,
    /// How well that cost is known.
    pub class: Class,
    /// Cycles, all together.
    pub cycles: u128,
}

/// What a ledger costs under a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Name of the model.
    pub model: String,
    /// Worst class among the costs used; `None` if none was.
    pub worst: Option<Class>,
    /// A cost was used whose publication was remembered, not read again.
    pub remembered: bool,
    /// Every row of the ledger.
    pub rows: Vec<EstimateRow>,
    /// Core clock cycles of all rows.
    pub cycles: u128,
}

impl fmt::Display for Estimate {
    /// The sum with the model's name and the worst class: `18000 cycles (model published, worst
    /// class E (estimated))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cycles (model {}", self.cycles, self.model)?;
        if let Some(class) = self.worst {
            write!(f, ", worst class {class}")?;
        }
        if self.remembered {
            f.write_str(", partly from memory")?;
        }
        f.write_str(")")
    }
}

/// Why a ledger has no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cost model {model} says nothing of {item}")]
pub struct EstimateError {
    /// The model.
    pub model: String,
    /// What it lacks.
    pub item: CostItem,
}

impl CostModel {
    /// The price of every row of `ledger` on the processor with this name.
    ///
    /// A VM exit costs its share of the round trip and an entry the rest; a failed entry costs a
    /// whole one. A share is an estimate, but as many exits as entries make whole round trips, whose
    /// class is that of the figure itself.
    ///
    /// # Errors
    /// The model lacks a cost that the ledger needs.
    pub fn estimate(
        &self,
        ledger: &Ledger,
        cpu: &str,
        bound: Bound,
    ) -> Result<Estimate, EstimateError> {
        let exits = ledger.total(|_, event| matches!(event, Event::VmExit { .. }));
        let entries = ledger.total(|_, event| event == Event::VmEntry);
        let mut estimate = Estimate {
            model: self.name().to_owned(),
            worst: None,
            remembered: false,
            rows: Vec::with_capacity(ledger.rows().len()),
            cycles: 0,
        };
        for (actor, event, count) in ledger.rows() {
            let item = item_of(event);
            let cost = self.cost_on(item, cpu).ok_or_else(|| EstimateError {
                model: self.name().to_owned(),
                item,
            })?;
            let each = self.share(event, cost.at(bound));
            let class = match event {
                Event::VmExit { .. } | Event::VmEntry => share_class(cost, exits, entries),
                _ => cost.class,
            };
            let cycles = u128::from(each) * u128::from(count);
            estimate.cycles += cycles;
            estimate.worst = estimate.worst.max(Some(class));
            estimate.remembered |= cost.remembered;
            estimate.rows.push(EstimateRow {
                actor,
                event,
                count,
                item,
                class,
                cycles,
            });
        }
        Ok(estimate)
    }

    /// Cycles of one event on the processor with this name, as [`CostModel::estimate`] counts them; `None`
    /// if the model lacks its cost.
    #[must_use]
    pub fn price(&self, event: Event, cpu: &str, bound: Bound) -> Option<u64> {
        let cost = self.cost_on(item_of(event), cpu)?;
        Some(self.share(event, cost.at(bound)))
    }

    /// The part of a cost that an event is: of a round trip, exit or entry.
    fn share(&self, event: Event, whole: u32) -> u64 {
        let whole = u64::from(whole);
        let exit = whole * u64::from(self.exit_share()) / 100;
        match event {
            Event::VmExit { .. } => exit,
            Event::VmEntry => whole - exit,
            _ => whole,
        }
    }
}

fn share_class(cost: &Cost, exits: u64, entries: u64) -> Class {
    if exits == entries {
        cost.class
    } else {
        Class::E
    }
}

fn item_of(event: Event) -> CostItem {
    match event {
        Event::Rdmsr(msr) => CostItem::of_msr(msr, false),
        Event::Wrmsr(msr) => CostItem::of_msr(msr, true),
        Event::RdmsrFault(_) | Event::WrmsrFault(_) => CostItem::Fault,
        Event::Xsaves => CostItem::Xsaves,
        Event::Xrstors => CostItem::Xrstors,
        Event::Vmread(_) | Event::Vmwrite(_) => CostItem::VmcsAccess,
        Event::VmEntry | Event::VmEntryFailure(_) | Event::VmExit { .. } => CostItem::RoundTrip,
        Event::Area(_) => CostItem::AreaFixed,
        Event::Transfer(MsrArea::ExitStore, _) => CostItem::AreaStore,
        Event::Transfer(MsrArea::EntryLoad | MsrArea::ExitLoad, _) => CostItem::AreaLoad,
        Event::FieldLoad(_) | Event::FieldSave(_) | Event::FieldClear(_) => CostItem::Field,
    }
}
