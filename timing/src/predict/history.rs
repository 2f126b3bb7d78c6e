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
    /// Where the bit that leaves first stands in the fold then, and the one behind it.
    leaving: [u64; 2],
    length: u32,
}

/// What a push adds: `COUNT` bits, 1 or 2, make room, then the value is added to the youngest sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Push<const COUNT: usize = 2>(pub(crate) u16);

impl History {
    pub(crate) fn new() -> Self {
        const { assert!(WORDS.is_power_of_two()) };
        Self {
            words: Box::new([0; WORDS]),
            head: 0,
        }
    }

    /// The fold of the first `length` bits, from the bits themselves.
    #[cfg(test)]
    pub(crate) fn fold(&self, length: u32) -> u64 {
        self.folds([length]).next().unwrap_or_default()
    }

    /// The folds of the first so many bits, from the bits themselves. `lengths`: ascending.
    pub(crate) fn folds(
        &self,
        lengths: impl IntoIterator<Item = u32>,
    ) -> impl Iterator<Item = u64> {
        // Every bit goes where it stands in its word, and all of them at the end to where the youngest is the
        // lowest.
        let (mut whole, mut at) = (0, self.head / 64);
        let mut word = self.words[at] & !low_bits(self.head as u32 % 64);
        lengths.into_iter().map(move |length| {
            let end = self.head + length as usize;
            while at < end / 64 {
                whole ^= word;
                at += 1;
                word = self.words[at % WORDS];
            }
            let part = word & low_bits(end as u32 % 64);
            (whole ^ part).rotate_right(self.head as u32 % 64)
        })
    }

    /// Brings folds to what they are after `push`, which comes next.
    #[inline(always)]
    pub(crate) fn advance<'a, const COUNT: usize>(
        &self,
        push: Push<COUNT>,
        folds: impl Iterator<Item = &'a mut Fold>,
    ) {
        self.advance_over::<COUNT, false>(push, folds);
    }

    /// [`History::advance`] of folds that are all [`Fold::is_plain`], in a history to which only two bits at a
    /// time were added.
    #[inline(always)]
    pub(crate) fn advance_plain<'a>(&self, push: Push, folds: impl Iterator<Item = &'a mut Fold>) {
        self.advance_over::<2, true>(push, folds);
    }

    #[inline(always)]
    fn advance_over<'a, const COUNT: usize, const PLAIN: bool>(
        &self,
        push: Push<COUNT>,
        folds: impl Iterator<Item = &'a mut Fold>,
    ) {
        // What leaves goes where its place in the fold is. From where it stands in the ring that is as far for
        // every length, since the ring is a multiple of 64.
        let turn = COUNT.wrapping_sub(self.head) as u32 % 64;
        let value = u64::from(push.0);
        for fold in folds {
            let at = self.head + fold.length as usize - COUNT;
            let word = self.words[at / 64 % WORDS].rotate_left(turn);
            let mut leaving = word & fold.leaving[COUNT - 1];
            // Two bits may lie in two words.
            if COUNT == 2 && !PLAIN && at % 64 == 63 {
                let [first, both] = fold.leaving;
                let next = self.words[(at / 64 + 1) % WORDS].rotate_left(turn);
                leaving = word & first | next & (both ^ first);
            }
            let added = if PLAIN { value } else { value & fold.mask };
            fold.value = fold.value.rotate_left(COUNT as u32) ^ leaving ^ added;
        }
    }

    /// Adds to the history.
    #[inline(always)]
    pub(crate) fn push<const COUNT: usize>(&mut self, push: Push<COUNT>) {
        let head = self.head.wrapping_sub(COUNT) % BITS;
        self.head = head;
        let (word, bit) = (head / 64, head % 64);
        // What stands in a word that is entered is older than the longest history.
        if bit + COUNT >= 64 {
            self.words[word] = 0;
        }
        let value = u64::from(push.0);
        self.words[word] ^= value << bit;
        // Of the sixteen bits some may stand in the next word.
        if bit > 48 {
            self.words[(word + 1) % WORDS] ^= value >> (64 - bit);
        }
    }
}

impl Fold {
    /// `length`: from 2 to [`MAX_HISTORY`].
    pub(crate) fn new(length: u32) -> Self {
        let leaving = [1, 2].map(|count| low_bits(count).rotate_left(length % 64));
        Self {
            value: 0,
            mask: low_bits(length),
            leaving,
            length,
        }
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// In a history to which only two bits at a time are added, the two that leave lie in one word, and all
    /// that a push adds is within the length.
    pub(crate) fn is_plain(&self) -> bool {
        self.length.is_multiple_of(2) && self.length >= 16
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
                let two = random.next() & 1 != 0;
                let value = random.next() as u16;
                let value = if wide { value } else { value & 1 };
                if two {
                    history.advance(Push::<2>(value), folds.iter_mut());
                    history.push(Push::<2>(value));
                } else {
                    history.advance(Push::<1>(value), folds.iter_mut());
                    history.push(Push::<1>(value));
                }
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
    fn plain_folds_follow_a_history_of_taken_branches_alone() {
        let lengths = [16, 18, 22, 58, 62, 64, 66, 128, 186, 388, 3966, 3968];
        let mut folds = lengths.map(Fold::new);
        assert!(folds.iter().all(Fold::is_plain));
        assert!(
            [2, 14, 15, 17, 3967]
                .map(Fold::new)
                .iter()
                .all(|fold| !fold.is_plain())
        );
        let mut history = History::new();
        let mut random = Lfsr::new(11);
        for turn in 0..10_000 {
            let push = Push::<2>(random.next() as u16);
            history.advance_plain(push, folds.iter_mut());
            history.push(push);
            let whole: Vec<u64> = history.folds(lengths).collect();
            let kept = folds.map(|fold| fold.value());
            assert_eq!(kept.as_slice(), whole, "turn {turn}");
        }
    }

    #[test]
    fn a_history_forgets_what_is_older_than_its_length() {
        let mut a = History::new();
        let mut b = History::new();
        let push = Push::<1>;
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
