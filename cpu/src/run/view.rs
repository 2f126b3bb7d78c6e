//! The stack as references, youngest entry first.

use crate::code::StepId;

/// Deepest LBR stack there is.
pub const MAX_DEPTH: usize = 32;

/// One LBR entry by reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryRef(u32);

/// What an [`EntryRef`] refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Nothing was recorded here (FROM reads 0).
    Empty,
    /// The entry that was at this position, counted from the youngest, when the run started.
    Incoming(u8),
    /// The record of this step's transfer.
    Step(StepId),
}

const EMPTY: u32 = u32::MAX;
const INCOMING: u32 = 0x8000_0000;

impl EntryRef {
    /// An empty entry.
    pub const EMPTY: Self = Self(EMPTY);

    /// The entry at position `index` (youngest is 0) at the start of the run.
    #[must_use]
    pub const fn incoming(index: u8) -> Self {
        Self(INCOMING | index as u32)
    }

    /// The record of `step`, whose number is below 2^31 (see [`crate::run::Plan::new`]).
    #[must_use]
    pub const fn step(step: StepId) -> Self {
        Self(step.0)
    }

    /// What this refers to.
    #[must_use]
    pub const fn kind(self) -> EntryKind {
        match self.0 {
            EMPTY => EntryKind::Empty,
            n if n & INCOMING != 0 => EntryKind::Incoming((n & 0xff) as u8),
            n => EntryKind::Step(StepId(n)),
        }
    }
}

/// A stack of up to [`MAX_DEPTH`] entries, youngest first, and the net number of pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    entries: [EntryRef; MAX_DEPTH],
    depth: u8,
    /// Pushes minus pops since the start; TOS is the initial TOS plus this, modulo the depth.
    net: i64,
}

impl Stack {
    /// An empty stack of `depth` entries (at most [`MAX_DEPTH`]).
    #[must_use]
    pub fn empty(depth: u8) -> Self {
        debug_assert!(usize::from(depth) <= MAX_DEPTH);
        Self {
            entries: [EntryRef::EMPTY; MAX_DEPTH],
            depth,
            net: 0,
        }
    }

    /// The unknown stack at the start of a run.
    #[must_use]
    pub fn incoming(depth: u8) -> Self {
        let mut stack = Self::empty(depth);
        for (index, entry) in (0..depth).zip(&mut stack.entries) {
            *entry = EntryRef::incoming(index);
        }
        stack
    }

    /// The stack with these entries, youngest first.
    pub(crate) fn from_entries(entries: &[EntryRef], net: i64) -> Self {
        let mut stack = Self::empty(entries.len() as u8);
        stack.entries[..entries.len()].copy_from_slice(entries);
        stack.net = net;
        stack
    }

    /// The entries, youngest first, empty ones included.
    #[must_use]
    pub fn entries(&self) -> &[EntryRef] {
        &self.entries[..usize::from(self.depth)]
    }

    /// Pushes minus pops since the start.
    #[must_use]
    pub fn net(&self) -> i64 {
        self.net
    }

    /// `entry` of a run that started on this stack, with the symbolic part replaced.
    #[must_use]
    pub fn resolve_entry(&self, entry: EntryRef) -> EntryRef {
        match entry.kind() {
            EntryKind::Incoming(index) => self
                .entries
                .get(usize::from(index))
                .copied()
                .unwrap_or(EntryRef::EMPTY),
            _ => entry,
        }
    }

    /// The stack after a run that started on this stack and ended in `end`.
    #[must_use]
    pub fn resolve(&self, end: &Self) -> Self {
        let mut resolved = *end;
        for entry in &mut resolved.entries[..usize::from(end.depth)] {
            *entry = self.resolve_entry(*entry);
        }
        resolved.net = self.net.wrapping_add(end.net);
        resolved
    }

    /// CALL in call-stack mode, or any record in normal mode.
    pub fn push(&mut self, entry: EntryRef) {
        let depth = usize::from(self.depth);
        self.entries.copy_within(..depth - 1, 1);
        self.entries[0] = entry;
        self.net = self.net.wrapping_add(1);
    }

    /// RET in call-stack mode: the youngest entry is discarded. On a ring the cleared slot is
    /// then the oldest one, on the shifting stack the last one: the same picture.
    pub fn pop(&mut self) {
        let depth = usize::from(self.depth);
        self.entries.copy_within(1..depth, 0);
        self.entries[depth - 1] = EntryRef::EMPTY;
        self.net = self.net.wrapping_sub(1);
    }
}
