//! What is done to bytes, and the numbers that choose it.

/// Pseudo-random numbers: xorshift, the same on every machine.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers for input `input` of `seed`.
    #[must_use]
    pub fn new(seed: u64, input: u64) -> Self {
        // SplitMix64's finaliser, so that neighbours have nothing in common.
        let mut z = seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(input.wrapping_mul(0xd1b5_4a32_d192_ed03));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        match limit {
            0 => 0,
            limit => (self.draw() % limit as u64) as usize,
        }
    }

    /// One of `choices`, which are not none.
    pub(crate) fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// What is done to a file. Positions beyond its end count from its start again.
#[derive(Clone, Debug)]
pub enum Damage {
    /// A byte becomes this one.
    Byte(usize, u8),
    /// Eight bytes become this number, little endian.
    Word(usize, u64),
    /// The file ends here.
    Cut(usize),
    /// So many bytes from here on are repeated at the end.
    Repeat(usize, usize),
}

impl Damage {
    /// Does it.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match *self {
            Self::Byte(at, value) => bytes[at % length] = value,
            Self::Word(at, value) => {
                let at = at % length;
                let end = (at + 8).min(length);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            Self::Cut(at) => bytes.truncate(at % length),
            Self::Repeat(at, count) => {
                let at = at % length;
                let part = bytes[at..(at + count % 256).min(length)].to_vec();
                bytes.extend(part);
            }
        }
    }

    /// Any damage; half of it among the first bytes, where headers are.
    pub(crate) fn any(numbers: &mut Numbers) -> Self {
        let near_header = numbers.draw().is_multiple_of(2);
        let at = if near_header {
            numbers.below(512)
        } else {
            // Half of all numbers, so that rounding up does not overflow.
            (numbers.draw() >> 1) as usize
        };
        match numbers.below(10) {
            0..4 => Self::Byte(at, numbers.draw() as u8),
            4..8 => {
                let other = numbers.draw();
                let extremes = [
                    0,
                    1,
                    8,
                    0xffff,
                    u64::from(u32::MAX),
                    i64::MAX as u64,
                    u64::MAX,
                    other,
                ];
                let word = extremes[numbers.below(extremes.len())];
                // Fields are aligned to their size: 4 as often as 8.
                Self::Word(at & if other & 1 == 0 { !7 } else { !3 }, word)
            }
            8 => Self::Cut(at),
            _ => Self::Repeat(at, numbers.below(256)),
        }
    }
}
