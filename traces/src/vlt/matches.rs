//! The sequence of path heads as repetitions of what came before.
//!
//! Programs do again what they did. A match copies heads from an earlier position, as in LZ77, but
//! it is not told by its distance: both sides remember, for each head, where tokens began behind
//! it, and a match names one of these few *candidates*, or a distance used just before. What
//! begins at a token is where execution went another way than expected, so these are the places
//! worth remembering, and decoding has work to do per token only.

use super::bytes::{Fields, put_varint, unzigzag, zigzag};
use super::error::Damage;
use super::paths::LocalId;

/// Positions remembered behind a head.
const CANDIDATES: usize = 32;
/// Heads whose numbers agree modulo this share their positions.
const CONTEXTS: usize = 1 << 13;
/// Distances of the last matches, at first these.
const DISTANCES: [usize; 3] = [1, 2, 3];
/// The token of a literal; behind it are those of the last distances, then the candidates.
const LITERAL: u8 = 0;
const FIRST_CANDIDATE: usize = 1 + DISTANCES.len();
/// Longest coding of a length or a literal.
pub(super) const MAX_VARINT: u32 = 5;

/// Eighths of a bit, roughly, that a match of one more head is worth against its token. Found by
/// trial on recordings of programs and of a booting kernel.
const WORTH: i64 = 6;
/// A match that is worth less than this is left to a literal.
const LEAST: i64 = -3;
/// Matches from this length on are taken without a look at the next head's.
const LONG: usize = 64;

/// Where the last tokens began behind each head.
#[derive(Debug, Default)]
struct Rings {
    positions: Vec<u32>,
    /// Positions ever noted, by context.
    counts: Vec<u32>,
}

impl Rings {
    const fn capacity(&self) -> usize {
        4 * (self.positions.capacity() + self.counts.capacity())
    }

    /// Forgets everything; heads will be below `distinct`.
    fn reset(&mut self, distinct: usize) {
        let contexts = distinct.min(CONTEXTS);
        self.counts.clear();
        self.counts.resize(contexts, 0);
        // What is left in the rings is not looked at: the counts say so.
        if self.positions.len() < contexts * CANDIDATES {
            self.positions.resize(contexts * CANDIDATES, 0);
        }
    }

    fn note(&mut self, head: usize, position: usize) {
        let context = head % CONTEXTS;
        let count = &mut self.counts[context];
        self.positions[context * CANDIDATES + *count as usize % CANDIDATES] = position as u32;
        *count += 1;
    }

    /// How many candidates there are behind `head`.
    fn len(&self, head: usize) -> usize {
        (self.counts[head % CONTEXTS] as usize).min(CANDIDATES)
    }

    /// The candidate noted `index` positions before the last one.
    fn get(&self, head: usize, index: usize) -> usize {
        let context = head % CONTEXTS;
        let slot = (self.counts[context] as usize - 1 - index) % CANDIDATES;
        self.positions[context * CANDIDATES + slot] as usize
    }
}

/// Moves `distance` to the front.
fn use_distance(last: &mut [usize; 3], distance: usize) {
    let place = last.iter().position(|&d| d == distance).unwrap_or(2);
    last[place] = distance;
    last[..=place].rotate_right(1);
}

#[derive(Clone, Copy, Debug)]
struct Match {
    token: u8,
    distance: usize,
    length: usize,
    worth: i64,
}

/// Finds matches, keeping its buffers from one chunk to the next.
#[derive(Debug, Default)]
pub(super) struct MatchEncoder {
    rings: Rings,
    pub(super) tokens: Vec<u8>,
    /// Length of each match less 1, varints.
    pub(super) lengths: Vec<u8>,
    /// Distance of each literal from the head before it, zigzag varints.
    pub(super) literals: Vec<u8>,
}

impl MatchEncoder {
    /// Fills the columns with `heads`, all below `distinct`.
    pub(super) fn encode(&mut self, heads: &[u32], distinct: usize) {
        self.rings.reset(distinct);
        for column in [&mut self.tokens, &mut self.lengths, &mut self.literals] {
            column.clear();
        }
        let mut distances = DISTANCES;
        let mut at = 0;
        while at < heads.len() {
            let mut found = self.find(heads, at, &distances);
            if let Some(now) = found
                && now.length < LONG
                && let Some(next) = self.find(heads, at + 1, &distances)
                && next.worth > now.worth + 4
            {
                found = None;
            }
            let last = at.checked_sub(1).map_or(0, |last| heads[last] as usize);
            if at > 0 {
                self.rings.note(last, at);
            }
            match found {
                Some(found) => {
                    self.tokens.push(found.token);
                    put_varint(&mut self.lengths, found.length as u64 - 1);
                    use_distance(&mut distances, found.distance);
                    at += found.length;
                }
                None => {
                    self.tokens.push(LITERAL);
                    let distance = i64::from(heads[at]) - last as i64;
                    put_varint(&mut self.literals, zigzag(distance));
                    at += 1;
                }
            }
        }
    }

    /// The best match at `at`, if one is better than a literal.
    fn find(&self, heads: &[u32], at: usize, distances: &[usize; 3]) -> Option<Match> {
        let rest = heads.get(at..).filter(|rest| !rest.is_empty())?;
        let last = heads[at.checked_sub(1)?] as usize;
        let mut best = Match {
            token: LITERAL,
            distance: 0,
            length: 0,
            worth: LEAST - 1,
        };
        let mut consider = |token: usize, distance: usize, cost: usize| {
            let from = &heads[at - distance..];
            // It costs more than those before it, so it has to be longer.
            if best.length == rest.len() || from[best.length] != rest[best.length] {
                return;
            }
            let length = common(from, rest);
            let worth = length as i64 * WORTH - cost as i64;
            if worth > best.worth {
                best = Match {
                    token: token as u8,
                    distance,
                    length,
                    worth,
                };
            }
        };
        for (index, &distance) in distances.iter().enumerate() {
            if distance <= at {
                consider(1 + index, distance, 5 + index);
            }
        }
        for index in 0..self.rings.len(last) {
            let distance = at - self.rings.get(last, index);
            consider(FIRST_CANDIDATE + index, distance, 6 + index / 2);
        }
        (best.length > 0).then_some(best)
    }
}

/// How many elements `rest` begins with that `from` begins with too.
fn common(from: &[u32], rest: &[u32]) -> usize {
    let (from_chunks, _) = from[..rest.len()].as_chunks::<8>();
    let (chunks, _) = rest.as_chunks::<8>();
    let same = from_chunks.iter().zip(chunks).take_while(|(a, b)| a == b);
    let whole = 8 * same.count();
    let tail = from[whole..].iter().zip(&rest[whole..]);
    whole + tail.take_while(|(a, b)| a == b).count()
}

/// Decodes matches, keeping its memory from one chunk to the next.
#[derive(Debug, Default)]
pub(super) struct MatchDecoder {
    rings: Rings,
    pub(super) tokens: Vec<u8>,
    pub(super) lengths: Vec<u8>,
    pub(super) literals: Vec<u8>,
}

impl MatchDecoder {
    pub(super) const fn capacity(&self) -> usize {
        self.rings.capacity()
            + self.tokens.capacity()
            + self.lengths.capacity()
            + self.literals.capacity()
    }

    /// Fills `heads`, all below `distinct`, from the columns.
    pub(super) fn decode<T: LocalId>(
        &mut self,
        distinct: usize,
        heads: &mut [T],
    ) -> Result<(), Damage> {
        self.rings.reset(distinct);
        let mut lengths = Fields::new(&self.lengths, "chunk: lengths of matches");
        let mut literals = Fields::new(&self.literals, "chunk: literals");
        let mut distances = DISTANCES;
        let mut at = 0;
        let mut last = 0;
        for &token in &self.tokens {
            let left = heads.len() - at;
            if left == 0 {
                return Err(Damage::Malformed("chunk: more tokens than path heads"));
            }
            let distance = match usize::from(token) {
                0 => None,
                token @ 1..FIRST_CANDIDATE => Some(distances[token - 1]),
                token if at > 0 && token - FIRST_CANDIDATE < self.rings.len(last) => {
                    Some(at - self.rings.get(last, token - FIRST_CANDIDATE))
                }
                _ => return Err(Damage::Malformed("chunk: match with no such candidate")),
            };
            if at > 0 {
                self.rings.note(last, at);
            }
            let Some(distance) = distance else {
                let id = (last as i64)
                    .checked_add(unzigzag(literals.varint()?))
                    .and_then(|id| usize::try_from(id).ok())
                    .filter(|&id| id < distinct)
                    .ok_or(Damage::Malformed("chunk: path head not in the map"))?;
                heads[at] = T::stored(id as u32);
                at += 1;
                last = id;
                continue;
            };
            if distance > at {
                return Err(Damage::Malformed("chunk: match from before the chunk"));
            }
            let length = usize::try_from(lengths.varint()?)
                .ok()
                .filter(|&length| length < left)
                .ok_or(Damage::Malformed("chunk: match beyond the chunk"))?
                + 1;
            repeat(heads, at, distance, length);
            use_distance(&mut distances, distance);
            at += length;
            last = heads[at - 1].index();
        }
        if at < heads.len() {
            return Err(Damage::CountMismatch {
                what: "path heads of the chunk",
                stated: heads.len() as u64,
                found: at as u64,
            });
        }
        lengths.finish()?;
        literals.finish()
    }
}

/// Copies `length` elements to `at` from `distance` before, which may overlap.
fn repeat<T: Copy>(heads: &mut [T], mut at: usize, distance: usize, length: usize) {
    let from = at - distance;
    let end = at + length;
    while at < end {
        let ready = (at - from).min(end - at);
        heads.copy_within(from..from + ready, at);
        at += ready;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(heads: &[u32], distinct: usize) -> MatchDecoder {
        let mut encoder = MatchEncoder::default();
        encoder.encode(heads, distinct);
        MatchDecoder {
            rings: Rings::default(),
            tokens: encoder.tokens,
            lengths: encoder.lengths,
            literals: encoder.literals,
        }
    }

    fn round_trip(heads: &[u32], distinct: usize) -> MatchDecoder {
        let mut columns = encode(heads, distinct);
        let mut wide = vec![0_u32; heads.len()];
        columns.decode(distinct, &mut wide).unwrap();
        assert_eq!(wide, heads);
        if distinct <= 1 << 16 {
            let mut narrow = vec![0_u16; heads.len()];
            columns.decode(distinct, &mut narrow).unwrap();
            assert!(
                narrow
                    .iter()
                    .map(|&id| u32::from(id))
                    .eq(heads.iter().copied())
            );
        }
        columns
    }

    proptest! {
        #[test]
        fn any_heads_come_back(
            pieces in proptest::collection::vec(
                (proptest::collection::vec(0_u32..40, 1..12), 1_usize..8),
                0..60,
            ),
        ) {
            let heads: Vec<u32> = pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect();
            round_trip(&heads, 40);
        }

        #[test]
        fn heads_that_share_a_context_come_back(heads in proptest::collection::vec(0_u32..4, 0..300)) {
            let heads: Vec<u32> = heads.iter().map(|head| head * CONTEXTS as u32 + 7).collect();
            round_trip(&heads, 4 * CONTEXTS);
        }

        #[test]
        fn any_columns_are_decoded_or_refused(
            tokens in proptest::collection::vec(0_u8..8, 0..60),
            lengths in proptest::collection::vec(0_u8..130, 0..60),
            literals in proptest::collection::vec(0_u8..20, 0..60),
            count in 0_usize..200,
        ) {
            let mut columns = MatchDecoder { tokens, lengths, literals, ..MatchDecoder::default() };
            let mut heads = vec![0_u16; count];
            if columns.decode(9, &mut heads).is_ok() {
                prop_assert!(heads.iter().all(|&head| head < 9));
            }
        }
    }

    #[test]
    fn repetitions_take_a_few_tokens() {
        let period: Vec<u32> = (0..100).map(|i| i * i % 83).collect();
        let columns = round_trip(&period.repeat(50), 83);
        assert!(columns.tokens.len() < 110, "{}", columns.tokens.len());
        let constant = round_trip(&[5; 10_000], 6);
        assert_eq!(constant.tokens, [LITERAL, 1]);
    }

    #[test]
    fn each_damage_is_named() {
        let heads = [3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1, 5, 9, 2, 6, 5];
        let refused = |change: &dyn Fn(&mut MatchDecoder), distinct: usize, count: usize| {
            let mut columns = encode(&heads, 10);
            change(&mut columns);
            let error = columns
                .decode(distinct, &mut vec![0_u16; count])
                .unwrap_err();
            error.to_string()
        };
        let count = heads.len();
        assert!(refused(&|_| (), 9, count).contains("not in the map"));
        assert!(refused(&|_| (), 10, count + 1).contains("path heads"));
        assert!(refused(&|c| c.tokens.push(0), 10, count).contains("more tokens"));
        assert!(refused(&|c| c.tokens[1] = 255, 10, count).contains("candidate"));
        assert!(refused(&|c| c.tokens[0] = 1, 10, count).contains("before the chunk"));
        assert!(refused(&|c| c.tokens[0] = FIRST_CANDIDATE as u8, 10, count).contains("candidate"));
        assert!(refused(&|c| c.lengths[0] = 127, 10, count).contains("beyond"));
        assert!(refused(&|c| c.lengths.clear(), 10, count).contains("lengths"));
        assert!(refused(&|c| c.lengths.push(0), 10, count).contains("lengths"));
        assert!(refused(&|c| c.literals.clear(), 10, count).contains("literals"));
        assert!(refused(&|c| c.literals.push(0), 10, count).contains("literals"));
    }
}
