//! Local step ids of either width, as the hot loop reads them.

use crate::run::lane::TABLE;

/// A local step id of either width.
pub(super) trait LocalId: Copy {
    fn largest(ids: &[Self]) -> u32;
    fn number(self) -> u32;
    fn word(self, table: &[u64; TABLE], wide: &[u64]) -> u64;
}

impl LocalId for u16 {
    fn largest(ids: &[Self]) -> u32 {
        u32::from(ids.iter().fold(0, |largest, &id| id.max(largest)))
    }

    #[inline(always)]
    fn number(self) -> u32 {
        u32::from(self)
    }

    #[inline(always)]
    fn word(self, table: &[u64; TABLE], _wide: &[u64]) -> u64 {
        table[usize::from(self)]
    }
}

impl LocalId for u32 {
    fn largest(ids: &[Self]) -> u32 {
        ids.iter().fold(0, |largest, &id| id.max(largest))
    }

    #[inline(always)]
    fn number(self) -> u32 {
        self
    }

    #[inline(always)]
    fn word(self, _table: &[u64; TABLE], wide: &[u64]) -> u64 {
        wide[self as usize]
    }
}
