//! What the counters beside the sampled one count, as the hot loop adds it up.
//!
//! A counter that only counts needs no compare. What a step adds to it is a field of one or more
//! words next to the step's word; the loop adds whole words. Fields are as wide as a segment of
//! steps can fill. A counter that counts what another one does, or instructions, needs no field.

use crate::code::StepId;
use crate::run::plan::{EVENT_MASK, EVENT_SHIFT, INSTRUCTION_MASK};

/// Most words a step has.
pub(super) const MOST_WORDS: usize = 8;
/// Most columns there are: every counter of the largest part.
pub const MAX_COLUMNS: usize = 16;

/// Where a column is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It counts instructions at every level.
    Instructions,
    /// It counts what the sampled counter counts.
    Events,
    /// Bits `shift` and up of a word.
    Field { word: u8, shift: u8, mask: u64 },
}

/// Columns of the steps of a trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// Words of a step: 0, 1, 2 or [`MOST_WORDS`].
    width: usize,
    words: Vec<u64>,
    places: Vec<Place>,
}

/// The columns do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooWide;

impl Columns {
    /// `amounts` has a list for each column, with the amount of each step; `base` has the word of
    /// each step. A segment has `segment` steps.
    pub(crate) fn new(
        amounts: &[Vec<u32>],
        base: &[u64],
        segment: usize,
    ) -> Result<Self, TooWide> {
        let mut places: Vec<Place> = Vec::new();
        let (mut word, mut used) = (0_u8, 0_u32);
        for (number, column) in amounts.iter().enumerate() {
            let same = |field: fn(u64) -> u64| {
                let mut pairs = column.iter().zip(base);
                pairs.all(|(&amount, &word)| u64::from(amount) == field(word))
            };
            let twin = amounts[..number].iter().position(|other| other == column);
            let place = if let Some(twin) = twin {
                places[twin]
            } else if same(|word| word & INSTRUCTION_MASK) {
                Place::Instructions
            } else if same(|word| word >> EVENT_SHIFT & EVENT_MASK) {
                Place::Events
            } else {
                let most = u64::from(column.iter().copied().max().unwrap_or(0));
                let bits = (most * segment as u64 + 1).next_power_of_two().ilog2();
                if used + bits > u64::BITS {
                    (word, used) = (word + 1, 0);
                }
                if usize::from(word) >= MOST_WORDS || bits >= u64::BITS {
                    return Err(TooWide);
                }
                let shift = used as u8;
                used += bits;
                Place::Field {
                    word,
                    shift,
                    mask: (1 << bits) - 1,
                }
            };
            places.push(place);
        }
        let fields = places.iter().any(|place| matches!(place, Place::Field { .. }));
        let width = match (fields, word) {
            (false, _) => 0,
            (true, 0) => 1,
            (true, 1) => 2,
            (true, _) => MOST_WORDS,
        };
        let mut words = vec![0; width * base.len()];
        for (column, place) in amounts.iter().zip(&places) {
            let Place::Field { word, shift, .. } = *place else {
                continue;
            };
            // A twin's field is written twice with the same bits.
            for (&amount, of_step) in column.iter().zip(words.chunks_mut(width)) {
                of_step[usize::from(word)] |= u64::from(amount) << shift;
            }
        }
        Ok(Self {
            width,
            words,
            places,
        })
    }

    /// Number of columns.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Words of a step.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The words of `step`.
    pub(crate) fn words(&self, step: StepId) -> &[u64] {
        let at = step.0 as usize * self.width;
        &self.words[at..at + self.width]
    }

    /// Adds to `totals` what the sums of a part of a segment say.
    pub(crate) fn add(&self, sum: u64, more: &[u64], totals: &mut [u64; MAX_COLUMNS]) {
        for (place, total) in self.places.iter().zip(totals) {
            *total += match *place {
                Place::Instructions => sum & INSTRUCTION_MASK,
                Place::Events => sum >> EVENT_SHIFT & EVENT_MASK,
                Place::Field { word, shift, mask } => more[usize::from(word)] >> shift & mask,
            };
        }
    }
}

/// The words of a chunk's steps by local id, summed by the loop.
pub(super) trait Words {
    /// The running sums.
    type Sum: Copy + AsRef<[u64]>;

    fn zero() -> Self::Sum;

    /// Adds the words of the step with this local id.
    fn add(&self, sum: &mut Self::Sum, local: usize);
}

/// No columns with words.
pub(super) struct NoWords;

impl Words for NoWords {
    type Sum = [u64; 0];

    #[inline(always)]
    fn zero() -> [u64; 0] {
        []
    }

    #[inline(always)]
    fn add(&self, _sum: &mut [u64; 0], _local: usize) {}
}

/// `W` words a step, by local id.
pub(super) struct WordsOf<'a, const W: usize>(&'a [[u64; W]]);

impl<'a, const W: usize> WordsOf<'a, W> {
    pub(super) fn new(words: &'a [u64]) -> Self {
        Self(words.as_chunks().0)
    }
}

impl<const W: usize> Words for WordsOf<'_, W> {
    type Sum = [u64; W];

    #[inline(always)]
    fn zero() -> [u64; W] {
        [0; W]
    }

    #[inline(always)]
    fn add(&self, sum: &mut [u64; W], local: usize) {
        let words = &self.0[local];
        // Not `zip`, which is a call here in some builds.
        let mut index = 0;
        while index < W {
            sum[index] = sum[index].wrapping_add(words[index]);
            index += 1;
        }
    }
}
