//! Samples of a guest against those it would have taken on a processor of its own.

use serde::Serialize;
use vlbr_arch::LbrInfo;

use crate::GuestSample;

/// The cycle count differs by what the host did in between.
const CYCLES: u64 = LbrInfo::CYC_CNT_MASK;

/// How samples compare. Samples of two runs belong together if the guest had executed as many
/// instructions when it took them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleFidelity {
    /// Samples on a processor of its own that were compared.
    pub compared: u64,
    /// With the same stack.
    pub equal: u64,
    /// With another stack of the guest's own branches.
    pub stale: u64,
    /// With something that is another owner's.
    pub foreign: u64,
    /// With an empty stack instead.
    pub zero: u64,
    /// Not taken, or reading the stack faulted.
    pub missing: u64,
    /// Taken where none would have been.
    pub extra: u64,
}

impl SampleFidelity {
    /// The samples of one vCPU, both in the order in which they were taken.
    #[must_use]
    pub fn of(taken: &[GuestSample], ideal: &[GuestSample]) -> Self {
        let mut found = Self::default();
        let mut taken = taken.iter().peekable();
        for expected in ideal {
            found.compared += 1;
            while taken.next_if(|sample| sample.at < expected.at).is_some() {
                found.extra += 1;
            }
            match taken.next_if(|sample| sample.at == expected.at) {
                None => found.missing += 1,
                Some(sample) if sample.refused && !expected.refused => found.missing += 1,
                Some(sample) if sample.foreign => found.foreign += 1,
                Some(sample) if same(sample, expected) => found.equal += 1,
                Some(sample) if sample.entries.iter().flatten().all(|word| *word == 0) => {
                    found.zero += 1;
                }
                Some(_) => found.stale += 1,
            }
        }
        found.extra += taken.count() as u64;
        found
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            compared: self.compared + other.compared,
            equal: self.equal + other.equal,
            stale: self.stale + other.stale,
            foreign: self.foreign + other.foreign,
            zero: self.zero + other.zero,
            missing: self.missing + other.missing,
            extra: self.extra + other.extra,
        }
    }
}

fn same(a: &GuestSample, b: &GuestSample) -> bool {
    let masked = |sample: &GuestSample| -> Vec<[u64; 3]> {
        let entries = sample.entries.iter();
        entries
            .map(|[from, to, info]| [*from, *to, info & !CYCLES])
            .collect()
    };
    masked(a) == masked(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, from: u64) -> GuestSample {
        GuestSample {
            at,
            entries: vec![[from, 0, 7]],
            ..GuestSample::default()
        }
    }

    #[test]
    fn each_difference_has_its_name() {
        let ideal: Vec<_> = (1..7).map(|at| sample(at, 5)).collect();
        let mut taken = vec![sample(0, 5), sample(1, 5), sample(2, 6), sample(3, 5)];
        taken[3].foreign = true;
        taken.push(GuestSample {
            entries: vec![[0; 3]],
            ..sample(4, 0)
        });
        taken.push(sample(6, 5));
        taken[5].refused = true;
        // The count of cycles says nothing.
        taken[1].entries[0][2] = 9;
        let found = SampleFidelity::of(&taken, &ideal);
        let expected = SampleFidelity {
            compared: 6,
            equal: 1,
            stale: 1,
            foreign: 1,
            zero: 1,
            missing: 2,
            extra: 1,
        };
        assert_eq!(found, expected);
    }
}
