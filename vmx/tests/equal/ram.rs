//! Memory for the tests.

use std::collections::BTreeMap;

use vlbr_vmx::PhysicalMemory;

const PAGE: u64 = 0x1000;

/// Memory by pages; what was never written reads as ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ram(BTreeMap<u64, Vec<u8>>);

impl Ram {
    pub(crate) fn byte(&self, at: u64) -> u8 {
        let page = self.0.get(&(at / PAGE));
        page.map_or(0xff, |page| page[(at % PAGE) as usize])
    }

    pub(crate) fn set(&mut self, at: u64, byte: u8) {
        let page = self.0.entry(at / PAGE);
        page.or_insert_with(|| vec![0xff; PAGE as usize])[(at % PAGE) as usize] = byte;
    }

    pub(crate) fn word(&self, at: u64, bytes: u64) -> u64 {
        (0..bytes).fold(0, |all, n| {
            all | u64::from(self.byte(at.wrapping_add(n))) << (8 * n)
        })
    }

    pub(crate) fn set_word(&mut self, at: u64, value: u64, bytes: u64) {
        for n in 0..bytes {
            self.set(at.wrapping_add(n), (value >> (8 * n)) as u8);
        }
    }
}

impl PhysicalMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (n, byte) in (0..).zip(bytes) {
            *byte = self.byte(address.wrapping_add(n));
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        for (n, byte) in (0..).zip(bytes) {
            self.set(address.wrapping_add(n), *byte);
        }
    }
}
