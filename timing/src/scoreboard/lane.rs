//! Places that are taken in order, so many a cycle: of the renamer, of retirement, of what leaves the store buffer.

use core::hint::select_unpredictable;

use crate::pipeline::MOST_PLACES;

/// Numbers that each cycle has for its places; the last of them are used.
const PLACES: u64 = 128;
const _: () = assert!((MOST_PLACES as u64) < PLACES);
/// The latest cycle that a lane is sent to; no simulation lasts so long.
pub(super) const LATEST: u64 = u64::MAX >> 9;

/// Where the next micro-operation goes: cycle and place in one number, so that going on takes one addition and no
/// branch, which a processor could not foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Cycle times [`PLACES`], and the next place; the first one of the next cycle's numbers if there is none left.
    next: u64,
    /// The first place of a cycle.
    first: u64,
}

impl Lane {
    /// Nothing is taken yet, of `width` places a cycle: 1 to [`MOST_PLACES`].
    pub(super) fn new(width: u32) -> Self {
        let first = PLACES - u64::from(width.clamp(1, MOST_PLACES));
        Self { next: first, first }
    }

    /// Cycle of the last place that was taken, or to which it went on.
    #[inline(always)]
    pub(super) fn cycle(&self) -> u64 {
        (self.next - 1) / PLACES
    }

    /// Goes on to `cycle` if that is later.
    #[inline(always)]
    pub(super) fn not_before(&mut self, cycle: u64) {
        self.next = self.next.max(cycle * PLACES + self.first);
    }

    /// Takes a place in this cycle, or in the next one if it has none left.
    #[inline(always)]
    pub(super) fn take(&mut self) {
        let full = self.next.is_multiple_of(PLACES);
        self.next += select_unpredictable(full, self.first + 1, 1);
    }

    /// Places that are taken in its cycle.
    pub(super) fn used(&self) -> u32 {
        (self.next - self.cycle() * PLACES - self.first) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_lane_has_so_many_places_a_cycle(
            width in 1..65_u32,
            steps in prop::collection::vec(prop_oneof![3 => Just(None), 1 => (0..400_u64).prop_map(Some)], 0..300),
        ) {
            let mut lane = Lane::new(width);
            let (mut cycle, mut used) = (0, 0);
            for step in steps {
                match step {
                    Some(later) => {
                        lane.not_before(later);
                        if later > cycle {
                            (cycle, used) = (later, 0);
                        }
                    }
                    None => {
                        lane.take();
                        if used == width {
                            (cycle, used) = (cycle + 1, 0);
                        }
                        used += 1;
                    }
                }
                prop_assert_eq!((lane.cycle(), lane.used()), (cycle, used));
            }
        }
    }
}
