//! Walks the records of a perf.data file, those inside COMPRESSED records included.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::abi::{RECORD_HEADER_SIZE, RecordType};
use super::cursor::{Cursor, Cut};
use super::error::PerfReadError;
use super::read::Metadata;
use super::record::RawRecord;
use super::unpack::Unpacker;

/// The records of a file in their order. Not an [`Iterator`]: a record borrows its buffer.
#[derive(Debug)]
pub struct Records<'f, R> {
    source: &'f mut BufReader<R>,
    meta: &'f Metadata,
    /// Offset of the next record.
    at: u64,
    end: u64,
    body: Vec<u8>,
    unpacker: Option<Unpacker>,
    /// Offset of the COMPRESSED record that is being unpacked.
    container: u64,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: RecordType,
    misc: u16,
    size: u16,
}

impl Header {
    fn decode(bytes: &[u8], offset: u64) -> Result<Self, PerfReadError> {
        let mut c = Cursor::new(bytes);
        let short = |Cut(what)| PerfReadError::ShortRecord {
            offset,
            kind: RecordType(0),
            what,
        };
        let header = Self {
            kind: RecordType(c.u32("the record header").map_err(short)?),
            misc: c.u16("the record header").map_err(short)?,
            size: c.u16("the record header").map_err(short)?,
        };
        if usize::from(header.size) < RECORD_HEADER_SIZE {
            return Err(PerfReadError::Field {
                offset,
                what: "size of a record",
                value: u64::from(header.size),
            });
        }
        Ok(header)
    }
}

impl<'f, R: Read + Seek> Records<'f, R> {
    pub(super) fn new(
        source: &'f mut BufReader<R>,
        meta: &'f Metadata,
    ) -> Result<Self, PerfReadError> {
        let at = meta.data.offset;
        source
            .seek(SeekFrom::Start(at))
            .map_err(|source| PerfReadError::Io { offset: at, source })?;
        Ok(Self {
            source,
            meta,
            at,
            end: at.saturating_add(meta.data.size),
            body: Vec::new(),
            unpacker: None,
            container: 0,
        })
    }

    /// What the file says before its records.
    #[must_use]
    pub const fn metadata(&self) -> &'f Metadata {
        self.meta
    }

    /// The next record, or `None` after the last one.
    ///
    /// After an error the walk is over: a record's size is what leads to the next one.
    ///
    /// # Errors
    /// [`PerfReadError::Truncated`], [`PerfReadError::Field`] for a size that cannot be,
    /// [`PerfReadError::Zstd`], I/O errors.
    pub fn next_record(&mut self) -> Result<Option<RawRecord<'_>>, PerfReadError> {
        let result = self.advance();
        if result.is_err() {
            self.at = self.end;
            self.unpacker = None;
        }
        Ok(result?.map(|(offset, header, packed)| RawRecord {
            offset,
            kind: header.kind,
            misc: header.misc,
            body: &self.body,
            packed,
            meta: self.meta,
        }))
    }

    /// Puts the next record's body into `self.body`.
    fn advance(&mut self) -> Result<Option<(u64, Header, bool)>, PerfReadError> {
        loop {
            if let Some(header) = self.unpack()? {
                return Ok(Some((self.container, header, true)));
            }
            if self.at >= self.end {
                let left = self.unpacker.as_ref().map_or(0, Unpacker::left);
                if left > 0 {
                    return Err(PerfReadError::Truncated {
                        offset: self.container,
                        what: "a compressed record",
                        needed: left as u64 + 1,
                        available: left as u64,
                    });
                }
                return Ok(None);
            }
            let offset = self.at;
            let header = self.read_plain(offset)?;
            match header.kind {
                RecordType::COMPRESSED => self.feed(offset, 0)?,
                RecordType::COMPRESSED2 => self.feed(offset, 8)?,
                _ => return Ok(Some((offset, header, false))),
            }
        }
    }

    fn read_plain(&mut self, offset: u64) -> Result<Header, PerfReadError> {
        let io = |source| PerfReadError::Io { offset, source };
        let available = self.end - offset;
        let truncated = |needed: u64| PerfReadError::Truncated {
            offset,
            what: "a record",
            needed,
            available,
        };
        if available < RECORD_HEADER_SIZE as u64 {
            return Err(truncated(RECORD_HEADER_SIZE as u64));
        }
        let mut head = [0; RECORD_HEADER_SIZE];
        self.source.read_exact(&mut head).map_err(io)?;
        let header = Header::decode(&head, offset)?;
        if u64::from(header.size) > available {
            return Err(truncated(u64::from(header.size)));
        }
        self.body
            .resize(usize::from(header.size) - RECORD_HEADER_SIZE, 0);
        self.source.read_exact(&mut self.body).map_err(io)?;
        self.at = offset + u64::from(header.size);
        let payload = payload_behind(header.kind, &self.body);
        if payload > 0 {
            if payload > self.end - self.at {
                return Err(PerfReadError::Truncated {
                    offset,
                    what: "the data behind a record",
                    needed: payload,
                    available: self.end - self.at,
                });
            }
            self.at += payload;
            self.source.seek(SeekFrom::Start(self.at)).map_err(io)?;
        }
        Ok(header)
    }

    /// Hands the payload of the COMPRESSED record in `self.body` to the unpacker.
    fn feed(&mut self, offset: u64, start: usize) -> Result<(), PerfReadError> {
        let short = PerfReadError::ShortRecord {
            offset,
            kind: RecordType::COMPRESSED2,
            what: "the size of the data",
        };
        let mut payload = self.body.get(start..).ok_or(short)?;
        if start == 8 {
            // The record is padded: the data may end before it does.
            let stated = u64::from_le_bytes(std::array::from_fn(|i| self.body[i]));
            payload = usize::try_from(stated)
                .ok()
                .and_then(|size| payload.get(..size))
                .ok_or(PerfReadError::Field {
                    offset,
                    what: "size of compressed data",
                    value: stated,
                })?;
        }
        self.container = offset;
        let unpacker = match self.unpacker.take() {
            Some(unpacker) => unpacker,
            None => Unpacker::new().map_err(|source| PerfReadError::Zstd { offset, source })?,
        };
        self.unpacker.insert(unpacker).feed(payload);
        Ok(())
    }

    /// The next record of the current COMPRESSED record, when it holds a whole one.
    fn unpack(&mut self) -> Result<Option<Header>, PerfReadError> {
        let Some(unpacker) = &mut self.unpacker else {
            return Ok(None);
        };
        let offset = self.container;
        let zstd = |source| PerfReadError::Zstd { offset, source };
        if !unpacker.fill(RECORD_HEADER_SIZE).map_err(zstd)? {
            return Ok(None);
        }
        let header = Header::decode(unpacker.peek(RECORD_HEADER_SIZE), offset)?;
        let size = usize::from(header.size);
        if !unpacker.fill(size).map_err(zstd)? {
            return Ok(None);
        }
        self.body.clear();
        self.body
            .extend_from_slice(&unpacker.peek(size)[RECORD_HEADER_SIZE..]);
        unpacker.consume(size);
        Ok(Some(header))
    }
}

/// Bytes that follow a record without being counted in its size.
fn payload_behind(kind: RecordType, body: &[u8]) -> u64 {
    match kind {
        RecordType::AUXTRACE => body.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)),
        RecordType::HEADER_TRACING_DATA => body
            .first_chunk()
            .map_or(0, |b| u64::from(u32::from_le_bytes(*b)).next_multiple_of(8)),
        _ => 0,
    }
}
