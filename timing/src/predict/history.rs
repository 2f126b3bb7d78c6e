//! The global history and its folds.

use super::config::MAX_HISTORY;

/// Words of the ring: room for the longest history, for what is pushed at once and for a read of two words.
const WORDS: usize = (MAX_HISTORY as usize + 128) / 64;
/// Bits of it.
const BITS: usize = WORDS * 64;

/// Bits that stand for past branches, the youngest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    words: Box<[u64; WORDS]>,
    /// Position of the youngest bit.
    head: usize,
}

/// The first `length` bits of a history, folded to 64 by exclusive or and kept up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fold {
    value: u64,
    /// As many of the lowest bits as there are, if they are fewer than 64.
    mask: u64,
    length: u32,
}

/// What a push adds: `count` bits make room, then `value` is added to the youngest sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Push {
    /// 1 or 2.
    pub(crate) count: u32,
    pub(crate) value: u16,
}

impl History {
    pub(crate) fn new() -> Self {
        const { assert!(WORDS.is_power_of_two()) };
        Self {
            words: Box::new([0; WORDS]),
            head: 0,
        }
    }

    /// 64 bits from the one at `age` on, older ones in higher places.
    fn window(&self, age: u32) -> u64 {
        let at = (self.head + age as usize) % BITS;
        let (word, bit) = (at / 64, at % 64);
        let low = self.words[word] >> bit;
        // In two steps, since a shift by 64 is none.
        let high = self.words[(word + 1) % WORDS] << 1 << (63 - bit);
        low | high
    }

    /// The bits at `age` and behind it in the lowest places.
    #[inline]
    fn two(&self, age: u32) -> u64 {
        let at = (self.head + age as usize) % BITS;
        let (word, bit) = (at / 64, at % 64);
        let mut bits = self.words[word] >> bit;
        // Never in a history of taken branches alone, each of which has two bits.
        if bit == 63 {
            bits |= self.words[(word + 1) % WORDS] << 1;
        }
        bits
    }

    /// The fold of the first `length` bits, from the bits themselves.
    pub(crate) fn fold(&self, length: u32) -> u64 {
        let mut value = 0;
        let mut age = 0;
        while age + 64 <= length {
            value ^= self.window(age);
            age += 64;
        }
        value ^ self.window(age) & low_bits(length - age)
    }

    /// Brings folds to what they are after `push`, which comes next.
    #[inline]
    pub(crate) fn advance(&self, push: Push, folds: &mut [Fold]) {
        // Taken branches have two bits each, which is known where they are shifted.
        match push.count {
            2 => self.advance_by::<2>(push.value, folds),
            _ => self.advance_by::<1>(push.value, folds),
        }
    }

    #[inline(always)]
    fn advance_by<const COUNT: u32>(&self, value: u16, folds: &mut [Fold]) {
        for fold in folds {
            let leaving = self.two(fold.length - COUNT);
            fold.push::<COUNT>(value, leaving);
        }
    }

    /// Adds to the history.
    #[inline]
    pub(crate) fn push(&mut self, push: Push) {
        self.head = (self.head + BITS - push.count as usize) % BITS;
        let (word, bit) = (self.head / 64, self.head % 64);
        let next = (word + 1) % WORDS;
        let room = low_bits(push.count);
        self.words[word] &= !(room << bit);
        self.words[next] &= !(room >> 1 >> (63 - bit));
        let value = u64::from(push.value);
        self.words[word] ^= value << bit;
        self.words[next] ^= value >> 1 >> (63 - bit);
    }
}

impl Fold {
    /// `length`: from 2 to [`MAX_HISTORY`].
    pub(crate) fn new(length: u32) -> Self {
        Self {
            value: 0,
            mask: low_bits(length),
            length,
        }
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// `leaving`: in its lowest bits those that become too old.
    #[inline(always)]
    fn push<const COUNT: u32>(&mut self, value: u16, leaving: u64) {
        let leaving = leaving & low_bits(COUNT);
        self.value = self.value.rotate_left(COUNT)
            ^ leaving.rotate_left(self.length % 64)
            ^ (u64::from(value) & self.mask);
    }
}

/// A mask of the lowest `count` bits.
#[inline]
fn low_bits(count: u32) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::lfsr::Lfsr;
    use super::*;

    #[test]
    fn a_fold_that_is_kept_up_to_date_is_that_of_the_bits() {
        for wide in [false, true] {
            let lengths = [
                2, 3, 5, 15, 16, 17, 63, 64, 65, 66, 100, 127, 128, 200, 388, 1000, 3967, 3968,
            ];
            let mut folds = lengths.map(Fold::new);
            let mut history = History::new();
            let mut random = Lfsr::new(7);
            for turn in 0..20_000 {
                let count = 1 + random.next() % 2;
                let value = random.next() as u16;
                let value = if wide { value } else { value & 1 };
                history.advance(Push { count, value }, &mut folds);
                history.push(Push { count, value });
                if turn % 97 == 0 || turn < 200 {
                    for (fold, length) in folds.iter().zip(lengths) {
                        assert_eq!(
                            fold.value(),
                            history.fold(length),
                            "turn {turn}, length {length}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_history_forgets_what_is_older_than_its_length() {
        let mut a = History::new();
        let mut b = History::new();
        let push = |value| Push { count: 1, value };
        for bit in [1, 1, 0, 1] {
            a.push(push(bit));
        }
        for turn in 0..70 {
            let bit = u16::from(turn % 3 == 0);
            a.push(push(bit));
            b.push(push(bit));
        }
        assert_eq!(a.fold(70), b.fold(70));
        assert_ne!(a.fold(74), b.fold(74));
    }
}
