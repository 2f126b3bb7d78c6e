//! Choices at random, the same in every run.

/// 2^64 over the golden ratio: a product with it scatters low bits over the high ones.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Marsaglia's xorshift of 32 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lfsr(u32);

impl Lfsr {
    /// A sequence; a seed of 0 would stand still and is taken for another one.
    pub(crate) fn new(seed: u32) -> Self {
        Self(if seed == 0 { 0x9e37_79b9 } else { seed })
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u32 {
        let mut x = self.0;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.0 = x;
        x
    }
}

/// An odd number for table `index`, by which it scatters its keys; different for every table.
pub(crate) fn multiplier(index: usize) -> u64 {
    // The finalizer of SplitMix64 over multiples of the golden ratio.
    let mut x = (index as u64 + 1).wrapping_mul(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) | 1
}
