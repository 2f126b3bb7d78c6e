//! What the hot loop writes for each record: a reference (deferred) or the whole entry (eager).

use std::fmt;

/// FROM, TO and INFO of a record as the device would hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// FROM MSR.
    pub from: u64,
    /// TO MSR.
    pub to: u64,
    /// INFO MSR; 0 where there is none.
    pub info: u64,
}

/// Where records go besides the references the loop keeps itself.
pub trait Store: fmt::Debug {
    /// Writes the record of the step with local id `local` behind `head` records.
    fn put(&mut self, head: usize, local: usize);
}

/// Writes nothing more: entries are made from references when somebody reads the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deferred;

impl Store for Deferred {
    #[inline(always)]
    fn put(&mut self, _head: usize, _local: usize) {}
}

const RING: usize = 64;

/// Writes FROM, TO and INFO of every record into a ring at the moment it is recorded.
///
/// The ring has twice the deepest stack: a record is written behind the youngest one whether it
/// is kept or not, and only the head moves or does not.
#[derive(Debug)]
pub struct Eager<'a> {
    records: &'a [RawRecord],
    ring: Box<[RawRecord; RING]>,
}

impl<'a> Eager<'a> {
    /// A ring for the records of a chunk, by local step id.
    #[must_use]
    pub fn new(records: &'a [RawRecord]) -> Self {
        Self {
            records,
            ring: Box::new([RawRecord::default(); RING]),
        }
    }

    /// The record `back` places behind the youngest of `head` records, `back` below 32.
    #[must_use]
    pub fn record(&self, head: usize, back: usize) -> RawRecord {
        self.ring[head.wrapping_sub(1 + back) % RING]
    }
}

impl Store for Eager<'_> {
    #[inline(always)]
    fn put(&mut self, head: usize, local: usize) {
        if let Some(record) = self.records.get(local) {
            self.ring[head % RING] = *record;
        }
    }
}
