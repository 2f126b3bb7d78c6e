//! What the steps of a trace add up to, packed into words.
//!
//! The loop adds one word a step: instructions, events of the sampled counter, and what the other
//! counters count are fields of it, as wide as a segment of steps can fill. If not everything fits
//! even for short segments, the other counters get words of their own, which the loop adds as well.
//! A counter that counts what another one does needs no field.

use crate::code::StepId;

/// Most words a step has beside the first.
pub(super) const MOST_WORDS: usize = 8;
/// Most counters there are beside the sampled one.
pub const MAX_COLUMNS: usize = 16;
/// Bits of the first word below those that say what the step does to the stack.
const FIRST_BITS: u32 = 62;
/// Steps after which the sums are folded into wide ones, longest first.
const SEGMENTS: [usize; 5] = [8192, 4096, 2048, 1024, 512];

/// Bits of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// 0 is the first word.
    word: u8,
    shift: u8,
    mask: u64,
}

impl Field {
    #[inline(always)]
    pub(super) fn of_first(self, word: u64) -> u64 {
        word >> self.shift & self.mask
    }

    fn of(self, first: u64, more: &[u64]) -> u64 {
        let word = match self.word {
            0 => first,
            n => more[usize::from(n) - 1],
        };
        self.of_first(word)
    }
}

/// The fields of every step.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) segment: usize,
    pub(super) instructions: Field,
    pub(super) events: Field,
    /// Most events of a step.
    pub(super) most_events: u32,
    others: Vec<Field>,
    /// Words of a step beside the first: 0, 1, 2 or [`MOST_WORDS`].
    width: usize,
    more: Vec<u64>,
}

/// The columns do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooWide;

/// Places fields one behind the other.
struct Packer {
    segment: usize,
    word: u8,
    used: u32,
    limit: u32,
}

impl Packer {
    /// A field for a column with this largest amount.
    fn field(&mut self, most: u32) -> Result<Field, TooWide> {
        let largest = u64::from(most) * self.segment as u64;
        let bits = u64::BITS - largest.leading_zeros();
        if self.used + bits > self.limit {
            (self.word, self.used, self.limit) = (self.word + 1, 0, u64::BITS);
        }
        if usize::from(self.word) > MOST_WORDS {
            return Err(TooWide);
        }
        // A column of zeros has no bits, and none may be left.
        let shift = if bits == 0 { 0 } else { self.used as u8 };
        self.used += bits;
        Ok(Field {
            word: self.word,
            shift,
            mask: (1 << bits) - 1,
        })
    }
}

impl Columns {
    /// Packs the amounts of every step: the first column are instructions, the second events of the
    /// sampled counter, then the others. `words` has the step's stack bits and gets the fields of the
    /// first word.
    pub(super) fn new(columns: &[Vec<u32>], words: &mut [u64]) -> Result<Self, TooWide> {
        let most: Vec<u32> = columns
            .iter()
            .map(|column| column.iter().copied().max().unwrap_or(0))
            .collect();
        let twins: Vec<Option<usize>> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| columns[..at].iter().position(|other| other == column))
            .collect();
        let pack = |segment: usize| {
            let mut packer = Packer {
                segment,
                word: 0,
                used: 0,
                limit: FIRST_BITS,
            };
            let mut fields: Vec<Field> = Vec::new();
            for (&most, twin) in most.iter().zip(&twins) {
                let field = match twin {
                    Some(twin) => fields[*twin],
                    None => packer.field(most)?,
                };
                fields.push(field);
            }
            Ok::<_, TooWide>((fields, usize::from(packer.word), segment))
        };
        // One word a step is worth shorter segments.
        let one = SEGMENTS
            .iter()
            .filter_map(|&segment| pack(segment).ok())
            .find(|(_, more, _)| *more == 0);
        let (fields, more, segment) = match one {
            Some(packed) => packed,
            None => SEGMENTS
                .iter()
                .find_map(|&segment| pack(segment).ok())
                .ok_or(TooWide)?,
        };
        let width = match more {
            0..=2 => more,
            _ => MOST_WORDS,
        };
        // What is looked at in every batch must be in the first word.
        let (&[instructions, events], others) = fields.split_first_chunk().ok_or(TooWide)?;
        if (instructions.word, events.word) != (0, 0) {
            return Err(TooWide);
        }
        let mut rest = vec![0; width * words.len()];
        for ((column, field), twin) in columns.iter().zip(&fields).zip(&twins) {
            if twin.is_some() {
                continue;
            }
            for (step, &amount) in column.iter().enumerate() {
                let word = match field.word {
                    0 => &mut words[step],
                    n => &mut rest[step * width + usize::from(n) - 1],
                };
                *word |= u64::from(amount) << field.shift;
            }
        }
        Ok(Self {
            segment,
            instructions,
            events,
            most_events: most.get(1).copied().unwrap_or_default(),
            others: others.to_vec(),
            width,
            more: rest,
        })
    }

    /// Number of counters beside the sampled one.
    pub(super) fn len(&self) -> usize {
        self.others.len()
    }

    /// Words of a step beside the first.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The words of `step` beside the first.
    pub(super) fn words(&self, step: StepId) -> &[u64] {
        let at = step.0 as usize * self.width;
        &self.more[at..at + self.width]
    }

    /// Adds to `totals` what the sums of a part of a segment say.
    pub(super) fn add(&self, first: u64, more: &[u64], totals: &mut [u64; MAX_COLUMNS]) {
        for (field, total) in self.others.iter().zip(totals) {
            *total += field.of(first, more);
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
