//! Chunks: the steps of one thread in a row, encoded so that each decodes alone.

use vlbr_arch::BranchClass;
use vlbr_cpu::{Code, Exit, StepId};

use super::bytes::{Fields, put_varint};
use super::error::{Damage, WriteError};
use super::matches::MatchEncoder;
use super::meta::ThreadIndex;
use super::packed::compress;
use super::paths::PathEncoder;
use super::side::{SideStreams, encode_sides};

/// Most steps of a chunk.
pub const MAX_STEPS: u32 = 1 << 22;
/// Instructions after which a recorder begins a new chunk.
pub const CHUNK_INSTRUCTIONS: u64 = 4_000_000;
/// zstd level that keeps up with a recorder.
pub const RECORDING_LEVEL: i32 = 13;
/// Largest decompressed size of a step map: five bytes a step, and five for its successor.
pub(super) const MAX_MAP: u32 = 10 * MAX_STEPS;
/// A chunk that takes more than one bit for so many instructions is stored in the other way too, to
/// keep the smaller one: recursion repeats at distances that candidates by context do not find.
const WORTH_TRYING: u64 = 16;
/// Bytes of the fixed part of a chunk frame's payload.
pub(super) const CHUNK_HEADER: usize = 72;

/// A number for the kernel (CPL 0) and one for user code (CPL above 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Split {
    /// At CPL 0.
    pub kernel: u32,
    /// At CPL 1 to 3.
    pub user: u32,
}

impl Split {
    /// Both together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.kernel as u64 + self.user as u64
    }
}

/// What a chunk's steps sum to, by the privilege level of their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Instructions retired.
    pub instructions: Split,
    /// Branch instructions retired, taken or not.
    pub branches: Split,
    /// Near branches taken.
    pub near_taken: Split,
    /// Transfers of any kind: taken branches, near and far, and events.
    pub transfers: Split,
}

impl Counts {
    const fn fields(&self) -> [Split; 4] {
        [
            self.instructions,
            self.branches,
            self.near_taken,
            self.transfers,
        ]
    }

    /// Adds `times` executions of a step; `None` if a sum does not fit its field.
    pub(super) fn add(&mut self, code: &Code, step: StepId, times: u32) -> Option<()> {
        let taken = matches!(code.step(step).exit, Exit::Taken { .. });
        let class = code.transfer(step).map(|transfer| transfer.class);
        let near = taken && !matches!(class, Some(BranchClass::Far(_)));
        let user = code.is_user(step);
        let add = |split: &mut Split, amount: u32| {
            let sum = if user {
                &mut split.user
            } else {
                &mut split.kernel
            };
            *sum = sum.checked_add(amount.checked_mul(times)?)?;
            Some(())
        };
        add(&mut self.instructions, code.step(step).retired.into())?;
        add(&mut self.branches, code.retires_branch(step).into())?;
        add(&mut self.near_taken, near.into())?;
        add(&mut self.transfers, class.is_some().into())
    }
}

/// How the sequence of steps is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Heads of paths as local ids of 16 bits, compressed.
    Narrow,
    /// The same with 32 bits.
    Wide,
    /// Matches between heads, in columns.
    Matches,
}

impl Encoding {
    const fn number(self) -> u16 {
        match self {
            Self::Narrow => 1,
            Self::Wide => 2,
            Self::Matches => 3,
        }
    }

    const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Narrow),
            2 => Some(Self::Wide),
            3 => Some(Self::Matches),
            _ => None,
        }
    }
}

/// The fixed part of a chunk frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) thread: ThreadIndex,
    /// Number of the chunk within its thread.
    pub(super) ordinal: u32,
    /// Instructions the thread retired before.
    pub(super) first_instruction: u64,
    pub(super) steps: u32,
    pub(super) distinct: u32,
    pub(super) counts: Counts,
    pub(super) encoding: Encoding,
    /// Length of the stored sequence.
    pub(super) heads: u32,
    /// Stored and decompressed size of the step map; the rest of the payload is the sequence.
    pub(super) map_stored: u32,
    pub(super) map_raw: u32,
}

impl ChunkHeader {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.thread.0, self.ordinal] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.first_instruction.to_le_bytes());
        for number in [self.steps, self.distinct] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for Split { kernel, user } in self.counts.fields() {
            out.extend_from_slice(&kernel.to_le_bytes());
            out.extend_from_slice(&user.to_le_bytes());
        }
        out.extend_from_slice(&self.encoding.number().to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        for number in [self.heads, self.map_stored, self.map_raw] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes, "chunk header");
        let thread = ThreadIndex(fields.u32()?);
        let ordinal = fields.u32()?;
        let first_instruction = fields.u64()?;
        let (steps, distinct) = (fields.u32()?, fields.u32()?);
        let mut split = || {
            Ok::<_, Damage>(Split {
                kernel: fields.u32()?,
                user: fields.u32()?,
            })
        };
        let counts = Counts {
            instructions: split()?,
            branches: split()?,
            near_taken: split()?,
            transfers: split()?,
        };
        let encoding = Encoding::from_number(fields.u16()?)
            .ok_or(Damage::Malformed("chunk: unknown encoding"))?;
        if fields.bytes(2)? != [0; 2] {
            return Err(fields.malformed());
        }
        let header = Self {
            thread,
            ordinal,
            first_instruction,
            steps,
            distinct,
            counts,
            encoding,
            heads: fields.u32()?,
            map_stored: fields.u32()?,
            map_raw: fields.u32()?,
        };
        for (what, size, limit) in [
            ("chunk steps", header.steps, MAX_STEPS),
            ("chunk step map", header.map_raw, MAX_MAP),
        ] {
            if size > limit {
                return Err(Damage::Oversized {
                    what,
                    size: size.into(),
                    limit: limit.into(),
                });
            }
        }
        // Every entry of the map is used, and takes at least two bytes.
        if header.distinct > header.steps || header.distinct > header.map_raw / 2 {
            return Err(Damage::Malformed("chunk: more different steps than steps"));
        }
        if header.heads > header.steps {
            return Err(Damage::Malformed("chunk: more paths than steps"));
        }
        if header.encoding == Encoding::Narrow && header.distinct > 1 << 16 {
            return Err(Damage::Malformed("chunk: too many steps for 16-bit ids"));
        }
        Ok(header)
    }
}

/// A compressed chunk, ready for [`Writer::write_chunk`](super::Writer::write_chunk).
#[derive(Clone, Debug)]
pub struct EncodedChunk {
    /// Ordinal and first instruction are the writer's to fill in.
    pub(super) header: ChunkHeader,
    /// Step map and sequence.
    pub(super) body: Vec<u8>,
    /// Tag and payload tail of each side stream.
    pub(super) sides: Vec<(u16, Vec<u8>)>,
    /// Number of steps the code table must have.
    pub(super) steps_needed: u32,
}

impl EncodedChunk {
    /// What the steps sum to.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.header.counts
    }

    /// Bytes it takes in the file, side streams excepted.
    #[must_use]
    pub const fn size(&self) -> usize {
        CHUNK_HEADER + self.body.len()
    }
}

/// Compresses chunks, keeping its buffers from one to the next.
#[derive(Debug)]
pub struct ChunkEncoder {
    level: i32,
    /// By global step: times it occurs, later its local id. All 0 between chunks.
    slots: Vec<u32>,
    distinct: Vec<StepId>,
    paths: PathEncoder,
    local: Vec<u32>,
    heads: Vec<u32>,
    matches: MatchEncoder,
}

impl ChunkEncoder {
    /// An encoder of this zstd level, 1 to 19; [`RECORDING_LEVEL`] is a good one.
    #[must_use]
    pub fn new(level: i32) -> Self {
        Self {
            level,
            slots: Vec::new(),
            distinct: Vec::new(),
            paths: PathEncoder::new(),
            local: Vec::new(),
            heads: Vec::new(),
            matches: MatchEncoder::default(),
        }
    }

    /// The different steps of the chunk encoded last, ascending.
    #[must_use]
    pub fn distinct(&self) -> &[StepId] {
        &self.distinct
    }

    /// Compresses `steps` of `thread`, at most [`MAX_STEPS`].
    ///
    /// # Errors
    /// Too many steps or instructions; a step not in `code`; side streams out of order.
    pub fn encode(
        &mut self,
        thread: ThreadIndex,
        steps: &[StepId],
        code: &Code,
        sides: &SideStreams<'_>,
    ) -> Result<EncodedChunk, WriteError> {
        if steps.len() > MAX_STEPS as usize {
            return Err(WriteError::Oversized {
                what: "chunk steps",
                size: steps.len() as u64,
                limit: MAX_STEPS.into(),
            });
        }
        let known = code.steps().len();
        if let Some(step) = steps.iter().find(|s| s.0 as usize >= known) {
            return Err(WriteError::NoSuch {
                what: "step",
                index: step.0.into(),
                count: known as u64,
            });
        }
        self.slots.resize(self.slots.len().max(known), 0);
        self.distinct.clear();
        for step in steps {
            let times = &mut self.slots[step.0 as usize];
            if *times == 0 {
                self.distinct.push(*step);
            }
            *times += 1;
        }
        self.distinct.sort_unstable();
        let result = self.encode_counted(thread, steps, code, sides);
        for step in &self.distinct {
            self.slots[step.0 as usize] = 0;
        }
        result
    }

    fn encode_counted(
        &mut self,
        thread: ThreadIndex,
        steps: &[StepId],
        code: &Code,
        sides: &SideStreams<'_>,
    ) -> Result<EncodedChunk, WriteError> {
        let mut counts = Counts::default();
        let mut map = Vec::new();
        let mut next = 0;
        for (local, step) in self.distinct.iter().enumerate() {
            let slot = &mut self.slots[step.0 as usize];
            counts
                .add(code, *step, *slot)
                .ok_or(WriteError::Oversized {
                    what: "chunk instructions",
                    size: u64::from(*slot) * u64::from(code.step(*step).retired),
                    limit: u32::MAX.into(),
                })?;
            *slot = local as u32;
            put_varint(&mut map, u64::from(step.0) - next);
            next = u64::from(step.0) + 1;
        }
        self.local.clear();
        self.local
            .extend(steps.iter().map(|s| self.slots[s.0 as usize]));
        self.paths.learn(self.distinct.len(), &self.local);
        self.paths.put_successors(&mut map);
        let mut body = compress(self.level, &map)?;
        let map_stored = body.len() as u32;

        self.heads.clear();
        self.heads.extend(self.paths.heads(&self.local));
        self.matches.encode(&self.heads, self.distinct.len());
        let MatchEncoder {
            tokens,
            lengths,
            literals,
            ..
        } = &self.matches;
        for column in [tokens, lengths, literals] {
            let stored = compress(self.level, column)?;
            for size in [column.len(), stored.len()] {
                body.extend_from_slice(&(size as u32).to_le_bytes());
            }
            body.extend_from_slice(&stored);
        }
        let mut encoding = Encoding::Matches;
        let matched = body.len() - map_stored as usize;
        if matched as u64 * 8 * WORTH_TRYING > counts.instructions.total() {
            let (plain, stored) = self.plain()?;
            if stored.len() < matched {
                encoding = plain;
                body.truncate(map_stored as usize);
                body.extend_from_slice(&stored);
            }
        }
        let sides = if sides.is_empty() {
            Vec::new()
        } else {
            encode_sides(self.level, sides, &self.local)?
        };
        Ok(EncodedChunk {
            header: ChunkHeader {
                thread,
                ordinal: 0,
                first_instruction: 0,
                steps: steps.len() as u32,
                distinct: self.distinct.len() as u32,
                counts,
                encoding,
                heads: self.heads.len() as u32,
                map_stored,
                map_raw: map.len() as u32,
            },
            body,
            sides,
            steps_needed: next as u32,
        })
    }

    /// The heads as they are, and which encoding that is.
    fn plain(&self) -> Result<(Encoding, Vec<u8>), WriteError> {
        let heads = self.heads.iter();
        let (encoding, raw): (_, Vec<u8>) = if self.distinct.len() <= 1 << 16 {
            let narrow = heads.flat_map(|&id| (id as u16).to_le_bytes());
            (Encoding::Narrow, narrow.collect())
        } else {
            let wide = heads.flat_map(|&id| id.to_le_bytes());
            (Encoding::Wide, wide.collect())
        };
        Ok((encoding, compress(self.level, &raw)?))
    }
}

/// [`ChunkEncoder::encode`] for a single chunk.
///
/// # Errors
/// As there.
pub fn encode_chunk(
    thread: ThreadIndex,
    steps: &[StepId],
    code: &Code,
    sides: &SideStreams<'_>,
    level: i32,
) -> Result<EncodedChunk, WriteError> {
    ChunkEncoder::new(level).encode(thread, steps, code, sides)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{ChunkBuffer, Meta, OpenOptions, Process, Thread, Trace, Writer};
    use super::*;

    /// The same chunk with its heads as encoding 1 or 2 has them.
    fn plain(encoder: &ChunkEncoder, chunk: &EncodedChunk, encoding: Encoding) -> EncodedChunk {
        let mut old = chunk.clone();
        let heads = encoder.heads.iter();
        let raw: Vec<u8> = match encoding {
            Encoding::Narrow => heads.flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => heads.flat_map(|&id| id.to_le_bytes()).collect(),
        };
        old.header.encoding = encoding;
        old.body.truncate(chunk.header.map_stored as usize);
        old.body.extend_from_slice(&compress(1, &raw).unwrap());
        old
    }

    #[test]
    fn every_encoding_is_read() {
        let sample = sample(3, 5000);
        let code = sample.program.code();
        let (_, steps) = &sample.chunks[0];
        let mut writer = Writer::new(Vec::new(), &Meta::default(), Default::default()).unwrap();
        let process = writer.add_process(&Process::default()).unwrap();
        let thread = writer
            .add_thread(&Thread {
                process,
                tid: 1,
                vcpu: None,
                name: String::new(),
            })
            .unwrap();
        writer.sync_code(code).unwrap();
        let mut encoder = ChunkEncoder::new(3);
        let chunk = encoder
            .encode(thread, steps, code, &SideStreams::default())
            .unwrap();
        for encoding in [Encoding::Narrow, Encoding::Wide] {
            let old = plain(&encoder, &chunk, encoding);
            writer.write_chunk(&old).unwrap();
        }
        writer.write_chunk(&chunk).unwrap();
        let bytes = writer.finish(&[]).unwrap();
        let trace = Trace::from_bytes(bytes, OpenOptions::default()).unwrap();
        let mut buffer = ChunkBuffer::new();
        for index in 0..3 {
            let chunk = trace.decode(index, &mut buffer).unwrap();
            assert!(chunk.steps().eq(steps.iter().copied()), "chunk {index}");
        }
    }
}
