//! Decoding chunks and their side streams.

use vlbr_cpu::StepId;
use vlbr_cpu::run::StepIds;

use super::bytes::Fields;
use super::chunk::{CHUNK_HEADER, ChunkHeader, Counts, Encoding};
use super::error::{Damage, VltError};
use super::frame::{FRAME_HEADER, FrameHeader, check_crc, kind};
use super::matches::{MAX_VARINT, MatchDecoder};
use super::packed::{decompress_into, new_decompressor};
use super::paths::{LocalId, Paths, SLACK};
use super::side::{
    self, MachineAccess, MemoryAccesses, Position, Timestamp, decode_machine, decode_times,
};
use super::trace::{ChunkInfo, SideInfo, Trace};

/// Memory for decoding, used again for every chunk. Each thread has its own.
#[derive(Default)]
pub struct ChunkBuffer {
    payload: Vec<u8>,
    map_raw: Vec<u8>,
    paths: Paths,
    matches: MatchDecoder,
    /// Words, for the alignment of the 16-bit or 32-bit ids in them.
    heads: Vec<u32>,
    ids: Vec<u32>,
    times: Vec<u32>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for ChunkBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkBuffer")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl ChunkBuffer {
    /// Nothing allocated yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes allocated.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.payload.capacity()
            + self.map_raw.capacity()
            + self.paths.capacity()
            + self.matches.capacity()
            + 4 * (self.heads.capacity() + self.ids.capacity() + self.times.capacity())
    }
}

/// A decoded chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The different steps in it, ascending. Local ids are indices into this.
    pub map: &'a [StepId],
    /// The steps in the order of execution, as local ids, each below `map.len()`.
    pub ids: StepIds<'a>,
}

impl Chunk<'_> {
    /// The steps in the order of execution.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = StepId> {
        (0..self.ids.len()).map(|index| self.map[self.ids.local(index)])
    }
}

/// Memory for decoding side streams.
#[derive(Debug, Default)]
pub struct SideBuffer {
    payload: Vec<u8>,
    raw: Vec<u8>,
}

impl Trace {
    /// Decodes chunk `index`, which must be below the number of chunks.
    ///
    /// # Errors
    /// The chunk is damaged, or the file changed since it was opened.
    pub fn decode<'b>(
        &self,
        index: usize,
        buffer: &'b mut ChunkBuffer,
    ) -> Result<Chunk<'b>, VltError> {
        let info = self.chunk_info(index)?;
        self.decode_at(info, buffer)
            .map_err(|damage| damage.at(info.offset))
    }

    fn chunk_info(&self, index: usize) -> Result<&ChunkInfo, VltError> {
        self.chunks().get(index).ok_or_else(|| {
            Damage::NoSuch {
                what: "chunk",
                index: index as u64,
                count: self.chunks().len() as u64,
            }
            .at(0)
        })
    }

    fn decode_at<'b>(
        &self,
        info: &ChunkInfo,
        buffer: &'b mut ChunkBuffer,
    ) -> Result<Chunk<'b>, Damage> {
        self.read_frame(kind::CHUNK, info.offset, info.length, &mut buffer.payload)?;
        let mut fields = Fields::new(&buffer.payload, "chunk");
        let header = ChunkHeader::decode(fields.bytes(CHUNK_HEADER)?)?;
        if (header.steps, header.distinct) != (info.steps, info.distinct) {
            return Err(Damage::Malformed("chunk: changed since it was opened"));
        }
        let stored_map = fields.bytes(header.map_stored as usize)?;
        let stored_ids = fields.bytes(fields.left())?;
        let decompressor = match &mut buffer.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(new_decompressor("chunk")?),
        };

        buffer.map_raw.resize(header.map_raw as usize, 0);
        decompress_into(decompressor, "step map", stored_map, &mut buffer.map_raw)?;
        let paths = &mut buffer.paths;
        paths.read_map(&buffer.map_raw, header.distinct, info.steps_known)?;
        let mut parts = Sequence {
            steps: header.steps as usize,
            count: header.heads as usize,
            stored: stored_ids,
            matches: (header.encoding == Encoding::Matches).then_some(&mut buffer.matches),
            heads: &mut buffer.heads,
            paths,
            decompressor,
        };
        let narrow = match header.encoding {
            Encoding::Narrow => true,
            Encoding::Wide => false,
            Encoding::Matches => header.distinct <= 1 << 16,
        };
        let ids = if narrow {
            StepIds::U16(parts.expand(&mut buffer.ids)?)
        } else {
            StepIds::U32(parts.expand(&mut buffer.ids)?)
        };
        Ok(Chunk {
            map: &buffer.paths.map,
            ids,
        })
    }

    /// Decodes chunk `index` and checks that its steps sum to what its header says.
    ///
    /// # Errors
    /// As [`Trace::decode`], and sums that do not match.
    pub fn check_chunk(&self, index: usize, buffer: &mut ChunkBuffer) -> Result<(), VltError> {
        let info = *self.chunk_info(index)?;
        let mut times = std::mem::take(&mut buffer.times);
        let chunk = self.decode(index, buffer)?;
        times.clear();
        times.resize(chunk.map.len(), 0);
        match chunk.ids {
            StepIds::U16(ids) => ids.iter().for_each(|&id| times[usize::from(id)] += 1),
            StepIds::U32(ids) => ids.iter().for_each(|&id| times[id as usize] += 1),
        }
        let mut counts = Counts::default();
        let summed = chunk
            .map
            .iter()
            .zip(&times)
            .try_for_each(|(&step, &times)| counts.add(self.code(), step, times));
        buffer.times = times;
        if summed.is_some() && counts == info.counts {
            return Ok(());
        }
        Err(Damage::CountMismatch {
            what: "instructions, branches or transfers of the chunk (instructions shown)",
            stated: info.counts.instructions.total(),
            found: counts.instructions.total(),
        }
        .at(info.offset))
    }

    /// The data accesses of chunk `index`, decoded before as `chunk`; `None` if they were not
    /// recorded.
    ///
    /// # Errors
    /// The stream is damaged.
    pub fn memory_accesses<'b>(
        &self,
        index: usize,
        chunk: &Chunk<'b>,
        buffer: &'b mut SideBuffer,
    ) -> Result<Option<MemoryAccesses<'b>>, VltError> {
        let Some((info, count)) = self.read_side(index, side::MEMORY, u32::MAX, buffer)? else {
            return Ok(None);
        };
        MemoryAccesses::new(&buffer.raw, count, chunk.ids)
            .map(Some)
            .map_err(|damage| damage.at(info.offset))
    }

    /// The MSR, port and CPUID accesses of chunk `index`; none if they were not recorded.
    ///
    /// # Errors
    /// The stream is damaged.
    pub fn machine_accesses(
        &self,
        index: usize,
        buffer: &mut SideBuffer,
    ) -> Result<Vec<(Position, MachineAccess)>, VltError> {
        let steps = self.chunk_info(index)?.steps;
        match self.read_side(index, side::MACHINE, side::MAX_ENTRIES, buffer)? {
            None => Ok(Vec::new()),
            Some((info, count)) => {
                decode_machine(&buffer.raw, count, steps).map_err(|damage| damage.at(info.offset))
            }
        }
    }

    /// The times of chunk `index`; none if they were not recorded.
    ///
    /// # Errors
    /// The stream is damaged.
    pub fn timestamps(
        &self,
        index: usize,
        buffer: &mut SideBuffer,
    ) -> Result<Vec<Timestamp>, VltError> {
        let steps = self.chunk_info(index)?.steps;
        match self.read_side(index, side::TIMES, side::MAX_ENTRIES, buffer)? {
            None => Ok(Vec::new()),
            Some((info, count)) => {
                decode_times(&buffer.raw, count, steps).map_err(|damage| damage.at(info.offset))
            }
        }
    }

    /// Reads and decompresses a side stream into `buffer.raw`; returns where it is and its count.
    fn read_side(
        &self,
        chunk: usize,
        tag: u16,
        most: u32,
        buffer: &mut SideBuffer,
    ) -> Result<Option<(SideInfo, u32)>, VltError> {
        self.chunk_info(chunk)?;
        let Some(info) = self.side(chunk as u32, tag) else {
            return Ok(None);
        };
        self.unpack_side(&info, most, buffer)
            .map(|count| Some((info, count)))
            .map_err(|damage| damage.at(info.offset))
    }

    fn unpack_side(
        &self,
        info: &SideInfo,
        most: u32,
        buffer: &mut SideBuffer,
    ) -> Result<u32, Damage> {
        self.read_frame(kind::SIDE, info.offset, info.length, &mut buffer.payload)?;
        let mut fields = Fields::new(&buffer.payload, "side stream");
        fields.bytes(6)?;
        if fields.u16()? != side::ENCODING {
            return Err(Damage::Malformed("side stream: unknown encoding"));
        }
        let (count, size) = (fields.u32()?, fields.u32()?);
        for (what, size, limit) in [
            ("side stream", size, side::MAX_RAW),
            ("side stream entries", count, most),
        ] {
            if size > limit {
                return Err(Damage::Oversized {
                    what,
                    size: size.into(),
                    limit: limit.into(),
                });
            }
        }
        buffer.raw.resize(size as usize, 0);
        let mut decompressor = new_decompressor("side stream")?;
        let stored = fields.bytes(fields.left())?;
        decompress_into(&mut decompressor, "side stream", stored, &mut buffer.raw)?;
        Ok(count)
    }

    /// Reads the payload of a frame found when the trace was opened, and checks it again.
    fn read_frame(
        &self,
        kind: u16,
        offset: u64,
        length: u32,
        payload: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let mut bytes = [0; FRAME_HEADER];
        self.source.read_exact_at(offset, &mut bytes)?;
        let header = FrameHeader::decode(&bytes)?;
        if header.kind != kind || header.length != length {
            return Err(Damage::Malformed("frame: changed since it was opened"));
        }
        payload.resize(length as usize, 0);
        self.source
            .read_exact_at(offset + FRAME_HEADER as u64, payload)?;
        check_crc("payload", header.payload_crc, payload)
    }
}

/// The parts a chunk's sequence of steps is made from.
struct Sequence<'a> {
    steps: usize,
    count: usize,
    stored: &'a [u8],
    /// If heads are stored as matches.
    matches: Option<&'a mut MatchDecoder>,
    heads: &'a mut Vec<u32>,
    paths: &'a mut Paths,
    decompressor: &'a mut zstd::bulk::Decompressor<'static>,
}

impl Sequence<'_> {
    fn expand<'b, T: LocalId>(&mut self, ids: &'b mut Vec<u32>) -> Result<&'b [T], Damage> {
        let words = |count: usize| count.div_ceil(size_of::<u32>() / size_of::<T>());
        // Grown only, so that nothing is cleared twice.
        for (buffer, count) in [
            (&mut *self.heads, self.count),
            (&mut *ids, self.steps + SLACK),
        ] {
            if buffer.len() < words(count) {
                buffer.resize(words(count), 0);
            }
        }
        let heads = &mut bytemuck::cast_slice_mut(self.heads)[..self.count];
        if let Some(matches) = &mut self.matches {
            let mut fields = Fields::new(self.stored, "step sequence");
            for column in [
                &mut matches.tokens,
                &mut matches.lengths,
                &mut matches.literals,
            ] {
                let (size, stored) = (fields.u32()?, fields.u32()?);
                if size as usize > MAX_VARINT as usize * self.count {
                    return Err(Damage::Malformed("chunk: more tokens than path heads"));
                }
                column.resize(size as usize, 0);
                let stored = fields.bytes(stored as usize)?;
                decompress_into(self.decompressor, "step sequence", stored, column)?;
            }
            fields.finish()?;
            matches.decode(self.paths.map.len(), heads)?;
        } else {
            let bytes = bytemuck::cast_slice_mut::<T, u8>(heads);
            decompress_into(self.decompressor, "step sequence", self.stored, bytes)?;
        }
        let ids = &mut bytemuck::cast_slice_mut(ids)[..self.steps + SLACK];
        self.paths.expand(heads, ids)?;
        Ok(&ids[..self.steps])
    }
}
