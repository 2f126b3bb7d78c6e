//! Finding and checking everything in a file but the content of its chunks.

use super::bytes::Fields;
use super::chunk::{CHUNK_HEADER, ChunkHeader};
use super::code::{Budget, decode_blocks, decode_steps};
use super::error::{Damage, VltError};
use super::frame::{
    FILE_HEADER, FRAME_HEADER, FrameHeader, MINOR_VERSION, SUMMED_HEADER, check_crc,
    check_file_header, kind,
};
use super::functions::decode_functions;
use super::meta::{Mapping, Meta, Process, Thread, notes};
use super::packed::decompress;
use super::source::Source;
use super::trace::{ChunkInfo, Contents, OpenOptions, SideInfo};

/// Largest decompressed size of the kernel's symbols.
pub(super) const MAX_SYMBOLS: u32 = 1 << 26;
/// Memory charged for a process, thread or mapping besides its payload.
const RECORD_COST: u64 = 512;

/// Reads `source` up to its end or, with [`OpenOptions::salvage`], up to a damage.
pub(super) fn scan(source: &dyn Source, options: OpenOptions) -> Result<Contents, VltError> {
    let mut scan = Scan::begin(source, options)?;
    let damage = scan.run().err();
    match (damage, scan.meta) {
        (Some(damage), None) => Err(damage),
        (Some(damage), Some(_)) if !options.salvage => Err(damage),
        (damage, meta) => Ok(Contents {
            meta: meta.unwrap_or_default(),
            damage,
            ..scan.trace
        }),
    }
}

/// One pass over the frames of a file.
struct Scan<'a> {
    source: &'a dyn Source,
    options: OpenOptions,
    size: u64,
    offset: u64,
    /// The file is of a later minor version: records may have fields behind those known.
    later: bool,
    budget: Budget,
    payload: Vec<u8>,
    frames: u64,
    headers_crc: u32,
    meta: Option<Meta>,
    /// Chunks and instructions of each thread so far.
    progress: Vec<(u32, u64)>,
    ended: bool,
    trace: Contents,
}

impl<'a> Scan<'a> {
    fn begin(source: &'a dyn Source, options: OpenOptions) -> Result<Self, VltError> {
        let size = source.size().map_err(|e| Damage::Io(e).at(0))?;
        if size == 0 {
            return Err(Damage::Empty.at(0));
        }
        let mut header = [0; FILE_HEADER];
        let have = size.min(FILE_HEADER as u64) as usize;
        source
            .read_exact_at(0, &mut header[..have])
            .map_err(|e| Damage::Io(e).at(0))?;
        if have < FILE_HEADER {
            // A short file that is something else should not be called a truncated trace.
            let known = have.min(super::frame::MAGIC.len());
            return Err(if header[..known] == super::frame::MAGIC[..known] {
                truncated(FILE_HEADER as u64, size).at(size)
            } else {
                Damage::WrongMagic.at(0)
            });
        }
        let minor = check_file_header(&header).map_err(|e| e.at(0))?;
        let mut trace = Contents::default();
        trace.sizes.description = FILE_HEADER as u64;
        Ok(Self {
            source,
            options,
            size,
            offset: FILE_HEADER as u64,
            later: minor > MINOR_VERSION,
            budget: Budget::new(options.memory_limit),
            payload: Vec::new(),
            frames: 0,
            headers_crc: 0,
            meta: None,
            progress: Vec::new(),
            ended: false,
            trace,
        })
    }

    fn run(&mut self) -> Result<(), VltError> {
        while self.offset < self.size {
            if self.ended {
                return Err(Damage::TrailingData(self.size - self.offset).at(self.offset));
            }
            self.frame().map_err(|damage| damage.at(self.offset))?;
        }
        if self.ended {
            Ok(())
        } else {
            Err(Damage::Unfinished.at(self.size))
        }
    }

    fn frame(&mut self) -> Result<(), Damage> {
        let left = self.size - self.offset;
        if left < FRAME_HEADER as u64 {
            return Err(truncated(FRAME_HEADER as u64, left));
        }
        let mut bytes = [0; FRAME_HEADER];
        self.source.read_exact_at(self.offset, &mut bytes)?;
        let header = FrameHeader::decode(&bytes)?;
        let whole = FRAME_HEADER as u64 + u64::from(header.length);
        if left < whole {
            return Err(truncated(whole, left));
        }
        let known = (kind::META..=kind::FUNCTIONS).contains(&header.kind);
        if !known && !header.is_optional() {
            return Err(Damage::UnknownFrame(header.kind));
        }
        if known && header.unknown_flags() != 0 {
            return Err(Damage::UnknownFlags(header.unknown_flags().into()));
        }
        self.read_payload(&header)?;
        // Taken out so that it can be borrowed beside `self`; put back for the next frame.
        let payload = std::mem::take(&mut self.payload);
        let result = self.dispatch(&header, &payload);
        self.payload = payload;
        result?;
        let sizes = &mut self.trace.sizes;
        *match header.kind {
            kind::SYMBOLS | kind::FUNCTIONS => &mut sizes.symbols,
            kind::BLOCKS => &mut sizes.blocks,
            kind::STEPS => &mut sizes.steps,
            kind::CHUNK => &mut sizes.chunks,
            kind::SIDE => &mut sizes.sides,
            _ => &mut sizes.description,
        } += whole;
        self.frames += 1;
        self.headers_crc = crc32c::crc32c_append(self.headers_crc, &bytes[..SUMMED_HEADER]);
        self.offset += whole;
        Ok(())
    }

    /// Reads and checks the payload; of chunks and side streams only the fixed part, if their
    /// checksums are left for later.
    fn read_payload(&mut self, header: &FrameHeader) -> Result<(), Damage> {
        let all = header.length as usize;
        let large = matches!(header.kind, kind::CHUNK | kind::SIDE);
        let part = large && !self.options.check_chunks;
        let wanted = if part { all.min(CHUNK_HEADER) } else { all };
        // `all` fits what is left of the file, so this allocates no more than the file holds.
        self.payload.resize(wanted, 0);
        self.source
            .read_exact_at(self.offset + FRAME_HEADER as u64, &mut self.payload)?;
        if part {
            return Ok(());
        }
        check_crc("payload", header.payload_crc, &self.payload)
    }

    fn dispatch(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), Damage> {
        if self.meta.is_none() != (header.kind == kind::META) {
            return Err(Damage::OutOfOrder {
                what: "frame type",
                expected: kind::META.into(),
                found: header.kind.into(),
            });
        }
        let trace = &mut self.trace;
        match header.kind {
            kind::META => {
                self.budget
                    .charge(RECORD_COST + payload.len() as u64 * 24)?;
                let mut fields = Fields::new(payload, "meta frame");
                let meta = Meta::decode(&mut fields)?;
                finish(&fields, self.later)?;
                self.meta = Some(meta);
            }
            kind::PROCESS => {
                self.budget
                    .charge(RECORD_COST + payload.len() as u64 * 24)?;
                let mut fields = Fields::new(payload, "process frame");
                let (index, process) = Process::decode(&mut fields)?;
                finish(&fields, self.later)?;
                in_order("process", trace.processes.len(), index)?;
                trace.processes.push(process);
            }
            kind::THREAD => {
                self.budget.charge(RECORD_COST + payload.len() as u64)?;
                let mut fields = Fields::new(payload, "thread frame");
                let (index, thread) = Thread::decode(&mut fields)?;
                finish(&fields, self.later)?;
                in_order("thread", trace.threads.len(), index)?;
                exists("process", thread.process.0, trace.processes.len())?;
                trace.threads.push(thread);
                self.progress.push((0, 0));
            }
            kind::MAPPING => {
                self.budget.charge(RECORD_COST + payload.len() as u64)?;
                let mut fields = Fields::new(payload, "mapping frame");
                let mapping = Mapping::decode(&mut fields)?;
                finish(&fields, self.later)?;
                exists("process", mapping.process.0, trace.processes.len())?;
                trace.mappings.push(mapping);
            }
            kind::SYMBOLS => {
                let mut fields = Fields::new(payload, "symbols frame");
                let size = fields.u32()?;
                self.budget.charge(size.into())?;
                let stored = fields.bytes(fields.left())?;
                let text = decompress("kernel symbols", stored, size, MAX_SYMBOLS)?;
                let text = String::from_utf8(text)
                    .map_err(|_| Damage::Malformed("kernel symbols: not UTF-8"))?;
                trace.symbols = Some(text);
            }
            kind::BLOCKS => decode_blocks(payload, &mut trace.code, &mut self.budget)?,
            kind::STEPS => decode_steps(payload, &mut trace.code, &mut self.budget)?,
            kind::CHUNK => self.chunk(header, payload)?,
            kind::SIDE => self.side(header, payload)?,
            kind::END => self.end(payload)?,
            kind::FUNCTIONS => {
                trace.functions = Some(decode_functions(payload, &mut self.budget)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn chunk(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<(), Damage> {
        let fixed = Fields::new(payload, "chunk header").bytes(CHUNK_HEADER)?;
        let header = ChunkHeader::decode(fixed)?;
        if u64::from(header.map_stored) + CHUNK_HEADER as u64 > frame.length.into() {
            return Err(Damage::Malformed("chunk: step map beyond the frame"));
        }
        let threads = self.progress.len() as u64;
        let Some(progress) = self.progress.get_mut(header.thread.0 as usize) else {
            return Err(Damage::NoSuch {
                what: "thread",
                index: header.thread.0.into(),
                count: threads,
            });
        };
        for (what, expected, found) in [
            ("chunk", progress.0.into(), header.ordinal.into()),
            ("first instruction", progress.1, header.first_instruction),
        ] {
            if expected != found {
                return Err(Damage::OutOfOrder {
                    what,
                    expected,
                    found,
                });
            }
        }
        progress.0 += 1;
        progress.1 += header.counts.instructions.total();
        self.trace.chunks.push(ChunkInfo {
            offset: self.offset,
            length: frame.length,
            thread: header.thread,
            ordinal: header.ordinal,
            first_instruction: header.first_instruction,
            steps: header.steps,
            distinct: header.distinct,
            counts: header.counts,
            steps_known: self.trace.code.steps().len() as u32,
        });
        Ok(())
    }

    fn side(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<(), Damage> {
        let mut fields = Fields::new(payload, "side stream");
        let (chunk, tag) = (fields.u32()?, fields.u16()?);
        exists("chunk", chunk, self.trace.chunks.len())?;
        // In the order of chunks and tags, so that they can be found by bisection.
        if let Some(last) = self.trace.sides.last()
            && (last.chunk, last.tag) >= (chunk, tag)
        {
            return Err(Damage::OutOfOrder {
                what: "side stream of chunk",
                expected: u64::from(last.chunk) + 1,
                found: chunk.into(),
            });
        }
        self.trace.sides.push(SideInfo {
            chunk,
            tag,
            offset: self.offset,
            length: frame.length,
        });
        Ok(())
    }

    fn end(&mut self, payload: &[u8]) -> Result<(), Damage> {
        let mut fields = Fields::new(payload, "end frame");
        let frames = fields.varint()?;
        let crc = fields.u32()?;
        let trace = &self.trace;
        let executed: u64 = trace.chunks.iter().map(|c| u64::from(c.steps)).sum();
        let instructions: u64 = self.progress.iter().map(|p| p.1).sum();
        same("frames", frames, self.frames)?;
        if crc != self.headers_crc {
            return Err(Damage::Checksum {
                what: "frame headers",
                stated: crc,
                found: self.headers_crc,
            });
        }
        for (what, found) in [
            ("processes", trace.processes.len() as u64),
            ("threads", trace.threads.len() as u64),
            ("mappings", trace.mappings.len() as u64),
            ("blocks", trace.code.blocks().len() as u64),
            ("steps", trace.code.steps().len() as u64),
            ("chunks", trace.chunks.len() as u64),
            ("executed steps", executed),
            ("instructions", instructions),
        ] {
            same(what, fields.varint()?, found)?;
        }
        self.budget.charge(payload.len() as u64 * 24)?;
        let mut text = fields.part()?;
        self.trace.notes = notes(&mut text)?;
        text.finish()?;
        finish(&fields, self.later)?;
        self.ended = true;
        Ok(())
    }
}

const fn truncated(need: u64, have: u64) -> Damage {
    Damage::Truncated { need, have }
}

/// Refuses bytes behind the last field, unless a later version may have put them there.
const fn finish(fields: &Fields<'_>, later: bool) -> Result<(), Damage> {
    if later { Ok(()) } else { fields.finish() }
}

const fn in_order(what: &'static str, expected: usize, found: u32) -> Result<(), Damage> {
    if expected as u64 == found as u64 {
        return Ok(());
    }
    Err(Damage::OutOfOrder {
        what,
        expected: expected as u64,
        found: found as u64,
    })
}

const fn exists(what: &'static str, index: u32, count: usize) -> Result<(), Damage> {
    if (index as usize) < count {
        return Ok(());
    }
    Err(Damage::NoSuch {
        what,
        index: index as u64,
        count: count as u64,
    })
}

const fn same(what: &'static str, stated: u64, found: u64) -> Result<(), Damage> {
    if stated == found {
        return Ok(());
    }
    Err(Damage::CountMismatch {
        what,
        stated,
        found,
    })
}
