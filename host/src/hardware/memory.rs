//! The host's physical memory, as far as VMX looks at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use vlbr_vmx::PhysicalMemory;

const PAGE: u64 = 4096;

/// Pages that were written; whatever lies elsewhere reads as zeros. Copies share what neither has
/// written since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    pages: BTreeMap<u64, Arc<[u8]>>,
    allocated: u64,
}

impl Memory {
    /// Physical address of pages that nobody else has.
    pub const fn allocate(&mut self, pages: u64) -> u64 {
        let address = (self.allocated + 1) * PAGE;
        self.allocated += pages;
        address
    }

    fn parts(address: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        core::iter::from_fn(move || {
            if done == length {
                return None;
            }
            let at = address.wrapping_add(done as u64);
            let offset = (at % PAGE) as usize;
            let part = (length - done).min(PAGE as usize - offset);
            let item = (at / PAGE, offset, done, part);
            done += part;
            Some(item)
        })
    }
}

impl PhysicalMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (page, offset, at, length) in Self::parts(address, bytes.len()) {
            let part = &mut bytes[at..at + length];
            match self.pages.get(&page) {
                Some(page) => part.copy_from_slice(&page[offset..offset + length]),
                None => part.fill(0),
            }
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        for (page, offset, at, length) in Self::parts(address, bytes.len()) {
            let page = self
                .pages
                .entry(page)
                .or_insert_with(|| vec![0; PAGE as usize].into());
            // A bitmap is often written with what it holds.
            if page[offset..offset + length] != bytes[at..at + length] {
                Arc::make_mut(page)[offset..offset + length]
                    .copy_from_slice(&bytes[at..at + length]);
            }
        }
    }
}
