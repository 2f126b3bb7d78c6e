//! Loads and stores.

use super::{LOADED, STORED, STORES, Scoreboard};
use crate::scoreboard::contents::Source;
use crate::scoreboard::inst::{Address, Extra, Flags, Reference};

impl Scoreboard {
    /// Loads beyond the first operand in memory, and where stores beyond it go to; when all loads have their data,
    /// and what the last one loaded.
    #[cold]
    pub(super) fn more_references(
        &mut self,
        extra: &Extra,
        start: u64,
        (mut done, mut loaded): (u64, u64),
    ) -> (u64, u64) {
        let loads = |reference: &&Reference| reference.flags.any(Flags::LOADS);
        for reference in extra.references.iter().filter(loads) {
            let place = self.contents.address(reference.address);
            let Reference {
                address,
                flags,
                latency,
            } = *reference;
            let (data, value) = self.load(address, flags, latency, place, start);
            self.ready[LOADED] = self.ready[LOADED].max(data as i64);
            (done, loaded) = (done.max(data), value);
        }
        for (later, reference) in self.later.iter_mut().zip(stores(extra)) {
            let place = self.contents.address(reference.address);
            *later = (place, reference.address.size, 0);
        }
        (done, loaded)
    }

    /// Dispatches stores beyond the first operand in memory; when the last one is done.
    #[cold]
    pub(super) fn dispatch_more_stores(&mut self, extra: &Extra, start: u64) -> u64 {
        let mut done = 0;
        for (number, reference) in stores(extra).enumerate() {
            let (data, ready) = self.dispatch_store(reference.address, reference.flags, start);
            if let Some(later) = self.later.get_mut(number) {
                later.2 = data;
            }
            done = done.max(ready);
        }
        done
    }

    /// Dispatches address and data of a store; when it has its data, and when it has both.
    #[inline(always)]
    pub(super) fn dispatch_store(
        &mut self,
        address: Address,
        flags: Flags,
        start: u64,
    ) -> (u64, u64) {
        let ports = match flags.any(Flags::INDEXED) {
            true => self.ports.store_index,
            false => self.ports.store_address,
        };
        let ready = self.address_ready(address, start);
        let at = self.calendar.dispatch(ports, ready);
        let from = self.ready[STORED].max(start as i64 + 1) as u64;
        let data = self.calendar.dispatch(self.ports.store_data, from);
        (data, at.max(data) + 1)
    }

    /// A store retired.
    #[inline(always)]
    pub(super) fn store(&mut self, place: u64, size: u8, value: u64, data: u64) {
        // So many leave the store buffer per cycle, in order.
        self.committed.not_before(self.retire.cycle());
        self.committed.take();
        let slot = self.stores as usize % STORES;
        self.data_ring[slot] = data;
        self.commit_ring[slot] = self.committed.cycle();
        self.stores += 1;
        self.contents.store(place, size, value, self.stores);
    }

    #[inline(always)]
    fn address_ready(&self, address: Address, start: u64) -> u64 {
        let ready = |value: u8| self.ready[usize::from(value)];
        (start as i64 + 1)
            .max(ready(address.base))
            .max(ready(address.index)) as u64
    }

    /// When a load from `place` has its data, and what it is.
    #[inline(always)]
    pub(super) fn load(
        &mut self,
        address: Address,
        flags: Flags,
        latency: u8,
        place: u64,
        start: u64,
    ) -> (u64, u64) {
        let ready = self.address_ready(address, start);
        let cycle = self.calendar.dispatch(self.ports.load, ready);
        let fast = flags.any(Flags::NEAR) && self.loaded >> (address.base & 31) & 1 != 0;
        let own = match latency {
            0 if fast => self.latencies.load_fast,
            0 => self.latencies.load,
            cycles => cycles.into(),
        };
        let mut data = cycle + own;
        let found = self.contents.load(place, address.size);
        match found.source {
            Source::Cache => {}
            Source::Store(number) => {
                let forward = match latency {
                    0 => self.latencies.forward,
                    _ => self.latencies.forward_vector,
                };
                if let Some(ready) = self.of_store(number, &self.data_ring) {
                    data = data.max(ready + forward);
                }
            }
            Source::Blocked(number) => {
                // One that comes later finds everything in the cache.
                if let Some(committed) = self.of_store(number, &self.commit_ring)
                    && cycle < committed
                {
                    data = committed + self.latencies.forward_blocked;
                }
            }
        }
        (data, found.value)
    }

    /// What `ring` has of store `number`, from 1 on; nothing of those that left the store buffer long ago.
    #[inline]
    fn of_store(&self, number: u64, ring: &[u64; STORES]) -> Option<u64> {
        let remembered = number + STORES as u64 > self.stores;
        remembered.then(|| ring[(number - 1) as usize % STORES])
    }
}

/// Stores that an instruction has no room for in itself.
pub(super) fn stores(extra: &Extra) -> impl Iterator<Item = &Reference> {
    let stores = |reference: &&Reference| reference.flags.any(Flags::STORES);
    extra.references.iter().filter(stores)
}
