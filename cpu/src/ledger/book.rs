//! The counts, and the primitives that make them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};

use rustc_hash::FxHashMap;

use super::meter::Meter;
use super::{Actor, EntryBlock, Event, MsrAccess, Prices};

/// Rows that are found without a search.
const HINTS: usize = 1 << 7;
/// An odd number near 2^64 over the golden ratio: the high bits of a product depend on all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// How often each actor made each access. Counts stop at 2^64 - 1.
#[derive(Clone, Debug)]
pub struct Ledger {
    rows: Vec<(Actor, Event, u64)>,
    /// Places in `rows`, by [`Event::key`] with the actor: one word is found faster than a pair of
    /// enumerations.
    places: FxHashMap<u64, u32>,
    /// For some keys their place.
    hints: [(u64, u32); HINTS],
    /// Accesses to all registers of some entries, counted as one; [`Ledger::rows`] tells them apart.
    blocks: FxHashMap<(Actor, bool, EntryBlock), u64>,
    /// What it all takes, if somebody asks.
    meter: Option<Box<Meter>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            places: FxHashMap::default(),
            // No key has all bits.
            hints: [(u64::MAX, 0); HINTS],
            blocks: FxHashMap::default(),
            meter: None,
        }
    }
}

impl PartialEq for Ledger {
    /// Equal if the rows are.
    fn eq(&self, other: &Self) -> bool {
        self.sum() == other.sum()
    }
}

impl Eq for Ledger {}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, actor: Actor, event: Event) {
        self.add_many(actor, event, 1);
    }

    #[inline]
    fn add_many(&mut self, actor: Actor, event: Event, times: u64) {
        let key = event.key() << 8 | actor as u64;
        let hint = (key.wrapping_mul(SPREAD) >> 57) as usize;
        let (known, place) = self.hints[hint];
        let place = match known == key {
            true => place,
            false => self.place(key, hint, actor, event),
        };
        let (.., count) = &mut self.rows[place as usize];
        *count = count.saturating_add(times);
        if let Some(meter) = &mut self.meter {
            meter.add(place as usize, event, times);
        }
    }

    /// From now on events take time on one of so many processors: see [`Ledger::take_spent`].
    pub fn set_prices(&mut self, prices: Prices, processors: usize) {
        self.meter = Some(Box::new(Meter::new(prices, processors)));
    }

    /// What is counted next happens on this processor.
    #[inline]
    pub fn charge_to(&mut self, processor: usize) {
        if let Some(meter) = &mut self.meter {
            meter.charge_to(processor);
        }
    }

    /// Core clock cycles that events took since this was asked last, by processor; of processors on which
    /// none took any there is no row. Without prices there are none.
    pub fn take_spent(&mut self, spent: &mut Vec<(usize, u64)>) {
        match &mut self.meter {
            Some(meter) => meter.take(spent),
            None => spent.clear(),
        }
    }

    #[cold]
    fn place(&mut self, key: u64, hint: usize, actor: Actor, event: Event) -> u32 {
        let rows = &mut self.rows;
        let place = *self.places.entry(key).or_insert_with(|| {
            rows.push((actor, event, 0));
            rows.len() as u32 - 1
        });
        self.hints[hint] = (key, place);
        place
    }

    /// Every row, with blocks taken apart.
    fn sum(&self) -> BTreeMap<(Actor, Event), u64> {
        let mut rows: BTreeMap<_, u64> = self
            .rows
            .iter()
            .map(|(actor, event, count)| ((*actor, *event), *count))
            .collect();
        for (&(actor, write, block), &count) in &self.blocks {
            for msr in block.msrs() {
                let event = if write {
                    Event::Wrmsr(msr)
                } else {
                    Event::Rdmsr(msr)
                };
                let row = rows.entry((actor, event)).or_default();
                *row = row.saturating_add(count);
            }
        }
        rows
    }

    fn of(rows: BTreeMap<(Actor, Event), u64>) -> Self {
        let mut ledger = Self::new();
        for ((actor, event), count) in rows {
            ledger.add_many(actor, event, count);
        }
        ledger
    }

    /// Every row that is not 0, by actor and event.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (Actor, Event, u64)> + use<> {
        let rows = self.sum().into_iter();
        rows.map(|((actor, event), count)| (actor, event, count))
    }

    /// How often `actor` did `event`.
    #[must_use]
    pub fn count(&self, actor: Actor, event: Event) -> u64 {
        let rows = self.rows.iter();
        let rows = rows.filter(|(by, what, _)| (*by, *what) == (actor, event));
        let of_block = match event {
            Event::Rdmsr(msr) => Some((false, msr)),
            Event::Wrmsr(msr) => Some((true, msr)),
            _ => None,
        };
        let blocks = self
            .blocks
            .iter()
            .filter_map(|((by, write, block), count)| {
                let (wanted, msr) = of_block?;
                let one = *by == actor && *write == wanted && block.msrs().any(|of| of == msr);
                one.then_some(*count)
            });
        let rows = rows.map(|(.., count)| *count);
        rows.chain(blocks).fold(0, u64::saturating_add)
    }

    /// How many accesses `actor` made by RDMSR and WRMSR, faults too, to registers that `choose`
    /// accepts.
    #[must_use]
    pub fn accesses(&self, actor: Actor, choose: impl Fn(Msr) -> bool) -> u64 {
        let rows = self.rows.iter().filter(|(by, ..)| *by == actor);
        let single = rows.filter_map(|(_, event, count)| match event {
            Event::Rdmsr(msr)
            | Event::Wrmsr(msr)
            | Event::RdmsrFault(msr)
            | Event::WrmsrFault(msr) => choose(*msr).then_some(*count),
            _ => None,
        });
        let blocks = self.blocks.iter().filter(|((by, ..), _)| *by == actor);
        let blocks = blocks.map(|((.., block), count)| {
            let chosen = block.msrs().filter(|msr| choose(*msr)).count() as u64;
            count.saturating_mul(chosen)
        });
        single.chain(blocks).fold(0, u64::saturating_add)
    }

    /// The sum of the rows that `choose` accepts.
    pub fn total(&self, mut choose: impl FnMut(Actor, Event) -> bool) -> u64 {
        self.rows()
            .filter(|&(actor, event, _)| choose(actor, event))
            .fold(0, |sum: u64, (.., count)| sum.saturating_add(count))
    }

    /// Adds the rows of another ledger.
    pub fn merge(&mut self, other: &Self) {
        for (actor, event, count) in other.rows() {
            self.add_many(actor, event, count);
        }
    }

    /// What was counted after `earlier`, a copy of this ledger taken before; `None` if it is not
    /// one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut rows = self.sum();
        for (actor, event, count) in earlier.rows() {
            let Entry::Occupied(mut row) = rows.entry((actor, event)) else {
                return None;
            };
            match row.get().checked_sub(count)? {
                0 => {
                    row.remove();
                }
                rest => *row.get_mut() = rest,
            }
        }
        Some(Self::of(rows))
    }

    /// RDMSR of every register of some entries, which `read` does at once.
    ///
    /// # Errors
    /// Those of `read`; nothing is counted then.
    pub fn rdmsr_block<T, E>(
        &mut self,
        actor: Actor,
        block: EntryBlock,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        read().inspect(|_| self.add_block(actor, false, block))
    }

    /// WRMSR of every register of some entries, which `write` does at once.
    ///
    /// # Errors
    /// Those of `write`; nothing is counted then.
    pub fn wrmsr_block<T, E>(
        &mut self,
        actor: Actor,
        block: EntryBlock,
        write: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        write().inspect(|_| self.add_block(actor, true, block))
    }

    fn add_block(&mut self, actor: Actor, write: bool, block: EntryBlock) {
        if block.count != 0 {
            if let Some(meter) = &mut self.meter {
                meter.add_block(write, block);
            }
            match self.blocks.get_mut(&(actor, write, block)) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    self.blocks.insert((actor, write, block), 1);
                }
            }
        }
    }

    /// RDMSR.
    ///
    /// # Errors
    /// Those of [`MsrAccess::rdmsr`]; the fault is counted.
    pub fn rdmsr<M: MsrAccess + ?Sized>(
        &mut self,
        actor: Actor,
        msrs: &mut M,
        msr: Msr,
    ) -> Result<u64, M::Fault> {
        let done = msrs.rdmsr(msr);
        let event = match done {
            Ok(_) => Event::Rdmsr(msr),
            Err(_) => Event::RdmsrFault(msr),
        };
        self.add(actor, event);
        done
    }

    /// WRMSR.
    ///
    /// # Errors
    /// Those of [`MsrAccess::wrmsr`]; the fault is counted.
    pub fn wrmsr<M: MsrAccess + ?Sized>(
        &mut self,
        actor: Actor,
        msrs: &mut M,
        msr: Msr,
        value: u64,
    ) -> Result<(), M::Fault> {
        let done = msrs.wrmsr(msr, value);
        let event = match done {
            Ok(()) => Event::Wrmsr(msr),
            Err(_) => Event::WrmsrFault(msr),
        };
        self.add(actor, event);
        done
    }

    /// XSAVES of component 15, which `save` does.
    ///
    /// # Errors
    /// Those of `save`; nothing is counted then.
    pub fn xsaves<E>(
        &mut self,
        actor: Actor,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        save().inspect(|()| self.add(actor, Event::Xsaves))
    }

    /// XRSTORS of component 15, which `restore` does.
    ///
    /// # Errors
    /// Those of `restore`; nothing is counted then.
    pub fn xrstors<E>(
        &mut self,
        actor: Actor,
        restore: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        restore().inspect(|()| self.add(actor, Event::Xrstors))
    }

    /// VMREAD of `field`, which `read` does.
    ///
    /// # Errors
    /// Those of `read`; nothing is counted then.
    pub fn vmread<T, E>(
        &mut self,
        actor: Actor,
        field: VmcsField,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        read().inspect(|_| self.add(actor, Event::Vmread(field)))
    }

    /// VMWRITE of `field`, which `write` does.
    ///
    /// # Errors
    /// Those of `write`; nothing is counted then.
    pub fn vmwrite<E>(
        &mut self,
        actor: Actor,
        field: VmcsField,
        write: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        write().inspect(|()| self.add(actor, Event::Vmwrite(field)))
    }

    /// VM entry and exit load an MSR: as WRMSR, from an entry of an area.
    ///
    /// # Errors
    /// Those of [`MsrAccess::wrmsr`]; nothing is counted then.
    pub fn area_load<M: MsrAccess + ?Sized>(
        &mut self,
        area: MsrArea,
        msrs: &mut M,
        msr: Msr,
        value: u64,
    ) -> Result<(), M::Fault> {
        msrs.wrmsr(msr, value)
            .inspect(|()| self.add(Actor::Hardware, Event::Transfer(area, msr)))
    }

    /// VM exit stores an MSR: as RDMSR, into an entry of an area.
    ///
    /// # Errors
    /// Those of [`MsrAccess::rdmsr`]; nothing is counted then.
    pub fn area_store<M: MsrAccess + ?Sized>(
        &mut self,
        area: MsrArea,
        msrs: &mut M,
        msr: Msr,
    ) -> Result<u64, M::Fault> {
        msrs.rdmsr(msr)
            .inspect(|_| self.add(Actor::Hardware, Event::Transfer(area, msr)))
    }

    /// The processing of an area that has entries begins.
    pub fn area(&mut self, area: MsrArea) {
        self.add(Actor::Hardware, Event::Area(area));
    }

    /// VM entry or exit loads an MSR from its VMCS field.
    ///
    /// # Errors
    /// Those of [`MsrAccess::wrmsr`]; nothing is counted then.
    pub fn field_load<M: MsrAccess + ?Sized>(
        &mut self,
        msrs: &mut M,
        msr: Msr,
        value: u64,
    ) -> Result<(), M::Fault> {
        msrs.wrmsr(msr, value)
            .inspect(|()| self.add(Actor::Hardware, Event::FieldLoad(msr)))
    }

    /// VM exit saves an MSR, whose value is returned, into its VMCS field.
    ///
    /// # Errors
    /// Those of [`MsrAccess::rdmsr`]; nothing is counted then.
    pub fn field_save<M: MsrAccess + ?Sized>(
        &mut self,
        msrs: &mut M,
        msr: Msr,
    ) -> Result<u64, M::Fault> {
        msrs.rdmsr(msr)
            .inspect(|_| self.add(Actor::Hardware, Event::FieldSave(msr)))
    }

    /// VM exit writes 0 to an MSR.
    ///
    /// # Errors
    /// Those of [`MsrAccess::wrmsr`]; nothing is counted then.
    pub fn field_clear<M: MsrAccess + ?Sized>(
        &mut self,
        msrs: &mut M,
        msr: Msr,
    ) -> Result<(), M::Fault> {
        msrs.wrmsr(msr, 0)
            .inspect(|()| self.add(Actor::Hardware, Event::FieldClear(msr)))
    }

    /// A VM entry completes.
    pub fn vm_entry(&mut self) {
        self.add(Actor::Hardware, Event::VmEntry);
    }

    /// A VM entry fails with this reason.
    pub fn vm_entry_failure(&mut self, reason: ExitReason) {
        self.add(Actor::Hardware, Event::VmEntryFailure(reason.basic()));
    }

    /// A VM exit begins.
    pub fn vm_exit(&mut self, reason: ExitReason, msr: Option<Msr>) {
        let reason = reason.basic();
        self.add(Actor::Hardware, Event::VmExit { reason, msr });
    }
}
