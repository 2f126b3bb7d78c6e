//! What a ledger's events cost, as they happen.

use rustc_hash::FxHashMap;

use super::cost::{Bound, CostItem, CostModel};
use super::{EntryBlock, EstimateError, Event};

/// A cost model on a processor: the usual figure of every event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    model: CostModel,
    cpu: String,
}

impl Prices {
    /// The prices of `model` on the processor with this name (of an LBR profile).
    ///
    /// # Errors
    /// The model lacks a cost.
    pub fn new(model: &CostModel, cpu: &str) -> Result<Self, EstimateError> {
        let lacks = |item: &CostItem| model.cost_on(*item, cpu).is_none();
        let mut items = CostItem::NAMED.iter().map(|(item, _)| *item);
        match items.find(lacks) {
            Some(item) => Err(EstimateError {
                model: model.name().to_owned(),
                item,
            }),
            None => Ok(Self {
                model: model.clone(),
                cpu: cpu.to_owned(),
            }),
        }
    }

    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        self.model.name()
    }

    /// Core clock cycles of an event.
    #[must_use]
    pub fn of(&self, event: Event) -> u64 {
        // Every cost is there, as it was looked for.
        let price = self.model.price(event, &self.cpu, Bound::Default);
        price.unwrap_or(0)
    }
}

/// The price of a row is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// Cycles that events took, by the processor on which they happened.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    prices: Prices,
    /// By place of the row in the ledger.
    rows: Vec<u64>,
    blocks: FxHashMap<(bool, EntryBlock), u64>,
    spent: Vec<u64>,
    /// Some of `spent` is not 0.
    any: bool,
    /// The processor on which events happen.
    at: usize,
}

impl Meter {
    pub(super) fn new(prices: Prices, processors: usize) -> Self {
        Self {
            prices,
            rows: Vec::new(),
            blocks: FxHashMap::default(),
            spent: vec![0; processors],
            any: false,
            at: 0,
        }
    }

    #[inline]
    pub(super) const fn charge_to(&mut self, processor: usize) {
        self.at = processor;
    }

    pub(super) fn take(&mut self, spent: &mut Vec<(usize, u64)>) {
        spent.clear();
        if !std::mem::take(&mut self.any) {
            return;
        }
        for (processor, cycles) in self.spent.iter_mut().enumerate() {
            if *cycles != 0 {
                spent.push((processor, std::mem::take(cycles)));
            }
        }
    }

    /// `times` events of the row at this place.
    #[inline]
    pub(super) fn add(&mut self, place: usize, event: Event, times: u64) {
        let price = match self.rows.get(place) {
            Some(&price) if price != UNKNOWN => price,
            _ => self.look_up(place, event),
        };
        self.spend(price.saturating_mul(times));
    }

    #[cold]
    fn look_up(&mut self, place: usize, event: Event) -> u64 {
        if self.rows.len() <= place {
            self.rows.resize(place + 1, UNKNOWN);
        }
        let price = self.prices.of(event);
        self.rows[place] = price;
        price
    }

    /// An access to every register of some entries.
    pub(super) fn add_block(&mut self, write: bool, block: EntryBlock) {
        let prices = &self.prices;
        let price = *self.blocks.entry((write, block)).or_insert_with(|| {
            let events = block.msrs().map(|msr| match write {
                true => Event::Wrmsr(msr),
                false => Event::Rdmsr(msr),
            });
            events.map(|event| prices.of(event)).sum()
        });
        self.spend(price);
    }

    #[inline]
    fn spend(&mut self, cycles: u64) {
        if let Some(spent) = self.spent.get_mut(self.at) {
            *spent = spent.saturating_add(cycles);
            self.any |= cycles != 0;
        }
    }
}
