//! Numbers that look random and follow from a seed.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `limit`; 0 for 0.
    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }

    /// A gap between two events that come `mean` apart on average: from half of it to one and a
    /// half. At least 1.
    pub(crate) const fn gap(&mut self, mean: u64) -> u64 {
        let gap = mean / 2 + self.below(mean + 1);
        if gap == 0 { 1 } else { gap }
    }

    /// True so many times in a million.
    pub(crate) const fn per_million(&mut self, chance: u32) -> bool {
        self.below(1_000_000) < chance as u64
    }
}
