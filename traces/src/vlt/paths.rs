//! The sequence of steps with what is certain left out.
//!
//! Most steps of a chunk are always followed by the same step. The map says by which one; the
//! sequence then holds only the steps behind those that have no certain successor. Such a step
//! begins a *path*: itself, its certain successor, and so on. Decoding copies paths.

use vlbr_cpu::StepId;

use super::bytes::{Fields, put_varint, unzigzag, zigzag};
use super::error::Damage;

/// Steps of a path that are kept ready to be copied; longer ones go on with another piece.
const PIECE: usize = 32;
/// Most steps in the pieces of all paths together, one for each path excepted.
const STORE: usize = 1 << 20;
/// Steps copied at once, of which those behind the end of a piece are overwritten later.
const SHORT: usize = 8;
/// Room behind the steps for such copies.
pub(super) const SLACK: usize = PIECE;
/// No certain successor.
const NONE: u32 = u32::MAX;

/// Finds certain successors and drops the steps they make superfluous.
#[derive(Debug)]
pub(super) struct PathEncoder {
    successors: Vec<u32>,
}

/// Not seen yet. Local ids are below it.
const UNSEEN: u32 = u32::MAX - 1;

impl PathEncoder {
    pub(super) const fn new() -> Self {
        Self {
            successors: Vec::new(),
        }
    }

    /// Learns the successors from a chunk of `distinct` different steps, as local ids.
    pub(super) fn learn(&mut self, distinct: usize, steps: &[u32]) {
        self.successors.clear();
        self.successors.resize(distinct, UNSEEN);
        for pair in steps.windows(2) {
            let successor = &mut self.successors[pair[0] as usize];
            if *successor == UNSEEN {
                *successor = pair[1];
            } else if *successor != pair[1] {
                *successor = NONE;
            }
        }
        for successor in &mut self.successors {
            if *successor == UNSEEN {
                *successor = NONE;
            }
        }
    }

    /// The successors as they stand in the map: 0 for none, else 1 + the zigzag distance.
    pub(super) fn put_successors(&self, out: &mut Vec<u8>) {
        for (id, &successor) in self.successors.iter().enumerate() {
            if successor == NONE {
                put_varint(out, 0);
            } else {
                put_varint(out, 1 + zigzag(i64::from(successor) - id as i64));
            }
        }
    }

    /// The steps that begin paths.
    pub(super) fn heads<'a>(&'a self, steps: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let first = steps.first().copied();
        let others = steps
            .windows(2)
            .filter(|pair| self.successors[pair[0] as usize] == NONE)
            .map(|pair| pair[1]);
        first.into_iter().chain(others)
    }
}

/// A local id as stored: 16 or 32 bits.
pub(super) trait LocalId: Copy + Default + bytemuck::Pod {
    fn new(id: u32) -> Self;
    /// As it stands in a file.
    fn stored(id: u32) -> Self;
    fn index(self) -> usize;
}

impl LocalId for u16 {
    fn new(id: u32) -> Self {
        id as Self
    }

    fn stored(id: u32) -> Self {
        (id as Self).to_le()
    }

    fn index(self) -> usize {
        usize::from(u16::from_le(self))
    }
}

impl LocalId for u32 {
    fn new(id: u32) -> Self {
        id
    }

    fn stored(id: u32) -> Self {
        id.to_le()
    }

    fn index(self) -> usize {
        u32::from_le(self) as usize
    }
}

/// The first steps of a path.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where in the store they are.
    start: u32,
    length: u32,
    /// The step after them, if it is certain.
    next: u32,
}

/// Step map and paths of one chunk, and the memory for them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) map: Vec<StepId>,
    successors: Vec<u32>,
    pieces: Vec<Piece>,
    /// Ids of all pieces, 16 or 32 bits each.
    store: Vec<u32>,
}

impl Paths {
    pub(super) fn capacity(&self) -> usize {
        4 * (self.map.capacity() + self.successors.capacity() + self.store.capacity())
            + size_of::<Piece>() * self.pieces.capacity()
    }

    /// Reads the map of a chunk of `distinct` different steps out of the first `known` ones.
    pub(super) fn read_map(&mut self, raw: &[u8], distinct: u32, known: u32) -> Result<(), Damage> {
        let mut fields = Fields::new(raw, "step map");
        self.map.clear();
        let mut next: u64 = 0;
        for _ in 0..distinct {
            let step = next
                .checked_add(fields.varint()?)
                .filter(|&step| step < known.into())
                .ok_or(Damage::Malformed("step map: step not in the code table"))?;
            self.map.push(StepId(step as u32));
            next = step + 1;
        }
        self.successors.clear();
        for id in 0..i64::from(distinct) {
            let successor = match fields.varint()? {
                0 => NONE,
                code => id
                    .checked_add(unzigzag(code - 1))
                    .and_then(|id| u32::try_from(id).ok())
                    .filter(|&id| id < distinct)
                    .ok_or(Damage::Malformed("step map: successor not in the map"))?,
            };
            self.successors.push(successor);
        }
        fields.finish()
    }

    /// Writes the steps that `heads` stand for to `out`, of which the last [`SLACK`] ones are
    /// only room.
    pub(super) fn expand<T: LocalId>(&mut self, heads: &[T], out: &mut [T]) -> Result<(), Damage> {
        let steps = out.len() - SLACK;
        self.cut_pieces::<T>();
        let store: &[T] = bytemuck::cast_slice(&self.store);
        let mut at = 0;
        for head in heads {
            let mut id = head.index();
            if at >= steps {
                return Err(Damage::Malformed("chunk: more paths than steps"));
            }
            loop {
                let Some(piece) = self.pieces.get(id) else {
                    return Err(Damage::NoSuch {
                        what: "local step",
                        index: id as u64,
                        count: self.pieces.len() as u64,
                    });
                };
                let start = piece.start as usize;
                let length = piece.length as usize;
                // Copies of a fixed size need no loop.
                if length <= SHORT {
                    out[at..at + SHORT].copy_from_slice(&store[start..start + SHORT]);
                } else {
                    out[at..at + PIECE].copy_from_slice(&store[start..start + PIECE]);
                }
                at += length;
                if piece.next == NONE || at >= steps {
                    break;
                }
                id = piece.next as usize;
            }
        }
        if at >= steps {
            return Ok(());
        }
        Err(Damage::CountMismatch {
            what: "steps of the chunk",
            stated: steps as u64,
            found: at as u64,
        })
    }

    /// Lays out the pieces of all paths.
    fn cut_pieces<T: LocalId>(&mut self) {
        let per_word = size_of::<u32>() / size_of::<T>();
        let longest = (STORE / self.successors.len().max(1)).clamp(1, PIECE);
        self.pieces.clear();
        let mut used = 0;
        for first in 0..self.successors.len() as u32 {
            if self.store.len() * per_word < used + 2 * PIECE {
                let more = (2 * self.store.len()).max(4 * PIECE);
                self.store.resize(more, 0);
            }
            let room: &mut [T] = bytemuck::cast_slice_mut(&mut self.store);
            let mut length = 0;
            let mut id = first;
            while id != NONE && length < longest {
                room[used + length] = T::new(id);
                length += 1;
                id = self.successors[id as usize];
            }
            self.pieces.push(Piece {
                start: used as u32,
                length: length as u32,
                next: id,
            });
            used += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T: LocalId>(distinct: u32, steps: &[u32]) -> Result<usize, Damage> {
        let mut encoder = PathEncoder::new();
        encoder.learn(distinct as usize, steps);
        let mut raw: Vec<u8> = vec![0; distinct as usize];
        encoder.put_successors(&mut raw);
        let heads: Vec<T> = encoder.heads(steps).map(T::new).collect();
        let mut paths = Paths::default();
        paths.read_map(&raw, distinct, distinct)?;
        let mut out = vec![T::default(); steps.len() + SLACK];
        paths.expand(&heads, &mut out)?;
        let read = out[..steps.len()].iter().map(|id| id.index() as u32);
        assert!(read.eq(steps.iter().copied()));
        Ok(heads.len())
    }

    #[test]
    fn what_is_certain_is_left_out() {
        // A loop of three steps, left once: only its last step is uncertain.
        let steps: Vec<u32> = [0, 1, 2].repeat(50).into_iter().chain([3, 4]).collect();
        assert_eq!(round_trip::<u16>(5, &steps).unwrap(), 51);
        assert_eq!(round_trip::<u32>(5, &steps).unwrap(), 51);
    }

    #[test]
    fn a_certain_cycle_needs_one_head() {
        let steps = [7, 8].repeat(1000);
        assert_eq!(round_trip::<u16>(9, &steps).unwrap(), 1);
        let long: Vec<u32> = (0..100).collect::<Vec<_>>().repeat(10);
        assert_eq!(round_trip::<u16>(100, &long).unwrap(), 1);
        assert_eq!(round_trip::<u16>(0, &[]).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn any_sequence_comes_back(steps in proptest::collection::vec(0_u32..12, 0..400)) {
            round_trip::<u16>(12, &steps).unwrap();
            round_trip::<u32>(12, &steps).unwrap();
        }
    }

    #[test]
    fn wrong_heads_and_successors_are_refused() {
        let mut paths = Paths::default();
        // Steps 0 and 1; 0 is followed by 1.
        paths.read_map(&[0, 0, 3, 0], 2, 2).unwrap();
        let mut out = vec![0_u16; 3 + SLACK];
        assert!(paths.expand(&[0, 1], &mut out).is_ok());
        assert!(matches!(
            paths.expand(&[0_u16, 2], &mut out),
            Err(Damage::NoSuch { index: 2, .. })
        ));
        assert!(matches!(
            paths.expand(&[1_u16], &mut out),
            Err(Damage::CountMismatch { found: 1, .. })
        ));
        assert!(matches!(
            paths.expand(&[0_u16, 0, 0], &mut out),
            Err(Damage::Malformed(_))
        ));
        assert!(paths.read_map(&[0, 0, 2, 0], 2, 2).is_err());
        assert!(paths.read_map(&[0, 0, 5, 0], 2, 2).is_err());
        assert!(paths.read_map(&[0, 1, 3, 0], 2, 2).is_err());
    }
}
