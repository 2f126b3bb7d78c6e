//! Reader of perf.data files, regular and pipe mode.
//!
//! Records are streamed: what is held is the description of the events and one record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::abi::{
    FILE_HEADER_SIZE, Feature, MAGIC, MAGIC_SWAPPED, PIPE_HEADER_SIZE, RecordType, SampleType,
};
use super::attr::{ATTR_SIZE_VER0, EventAttr};
use super::cursor::{Cursor, until_zero};
use super::error::PerfReadError;
use super::features::Features;
use super::record::RawRecord;
use super::records::Records;
use crate::files::open_regular;

/// Largest feature section that is read into memory.
const MAX_FEATURE: u64 = 64 << 20;

/// A part of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Offset in the file.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// An event of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it counts and what its samples hold.
    pub attr: EventAttr,
    /// Ids of its instances.
    pub ids: Vec<u64>,
}

/// What a perf.data file says before its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Written to a pipe: attributes and features stand between the records.
    pub pipe: bool,
    /// Where the records are.
    pub data: Section,
    /// The events.
    pub events: Vec<Event>,
    /// Where the features are, in the order of their bits.
    pub features: BTreeMap<Feature, Section>,
    by_id: BTreeMap<u64, usize>,
    id_position: IdPosition,
}

/// How a record's event is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdPosition {
    /// Every event has the same sample type, so the first one tells how to read any.
    Any,
    /// The first word of a sample is the id.
    First,
    /// Neither.
    Unknown,
}

impl Metadata {
    fn new(
        pipe: bool,
        data: Section,
        events: Vec<Event>,
        features: BTreeMap<Feature, Section>,
    ) -> Self {
        let by_id = events
            .iter()
            .enumerate()
            .flat_map(|(index, event)| event.ids.iter().map(move |&id| (id, index)))
            .collect();
        let id_position = match events.split_first() {
            Some((first, rest)) if rest.iter().all(|e| same_layout(&first.attr, &e.attr)) => {
                IdPosition::Any
            }
            _ if events
                .iter()
                .all(|e| e.attr.sample_type.contains(SampleType::IDENTIFIER)) =>
            {
                IdPosition::First
            }
            _ => IdPosition::Unknown,
        };
        Self {
            pipe,
            data,
            events,
            features,
            by_id,
            id_position,
        }
    }

    /// The attribute whose trailer layout every record has.
    pub(super) fn common_attr(&self) -> Option<&EventAttr> {
        self.events.first().map(|event| &event.attr)
    }

    pub(super) fn attr_of(&self, record: &RawRecord<'_>) -> Result<&EventAttr, PerfReadError> {
        let offset = record.offset;
        let first = self
            .common_attr()
            .ok_or(PerfReadError::NoEvent { offset })?;
        match self.id_position {
            IdPosition::Any => Ok(first),
            IdPosition::Unknown => Err(PerfReadError::AmbiguousEvent { offset }),
            IdPosition::First => {
                let id =
                    Cursor::new(record.body)
                        .u64("")
                        .map_err(|_| PerfReadError::ShortRecord {
                            offset,
                            kind: record.kind,
                            what: "the identifier",
                        })?;
                let index = self
                    .by_id
                    .get(&id)
                    .ok_or(PerfReadError::UnknownId { offset, id })?;
                Ok(&self.events[*index].attr)
            }
        }
    }
}

/// Whether two events' samples are read alike.
fn same_layout(a: &EventAttr, b: &EventAttr) -> bool {
    a.sample_type == b.sample_type
        && a.read_format == b.read_format
        && a.branch_sample_type == b.branch_sample_type
        && a.sample_regs_user == b.sample_regs_user
        && a.sample_regs_intr == b.sample_regs_intr
}

/// An open perf.data file.
#[derive(Debug)]
pub struct PerfFile<R> {
    source: BufReader<R>,
    length: u64,
    meta: Metadata,
}

impl PerfFile<File> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Those of [`PerfFile::new`] and of opening.
    pub fn open(path: &Path) -> Result<Self, PerfReadError> {
        let file = open_regular(path).map_err(|source| PerfReadError::Io { offset: 0, source })?;
        Self::new(file)
    }
}

impl<R: Read + Seek> PerfFile<R> {
    /// Reads the header and the events.
    ///
    /// A file in pipe mode is read once to its end to find them.
    ///
    /// # Errors
    /// [`PerfReadError`] says what is wrong with the header, and where.
    pub fn new(source: R) -> Result<Self, PerfReadError> {
        let mut source = BufReader::with_capacity(1 << 16, source);
        let length = source
            .seek(SeekFrom::End(0))
            .map_err(|source| PerfReadError::Io { offset: 0, source })?;
        let mut file = Self {
            source,
            length,
            meta: Metadata::new(true, Section::default(), Vec::new(), BTreeMap::new()),
        };
        let magic: [u8; 8] = file.array(0, "the magic")?;
        match magic {
            MAGIC => {}
            MAGIC_SWAPPED => return Err(PerfReadError::BigEndian),
            magic => return Err(PerfReadError::Magic { magic }),
        }
        match u64::from_le_bytes(file.array(8, "the header size")?) {
            FILE_HEADER_SIZE => file.read_header()?,
            PIPE_HEADER_SIZE => file.read_pipe()?,
            value => {
                return Err(PerfReadError::Field {
                    offset: 8,
                    what: "header size (104 or 16 expected)",
                    value,
                });
            }
        }
        Ok(file)
    }

    /// Events, sections, mode.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.meta
    }

    /// The records from the first one on.
    ///
    /// # Errors
    /// I/O errors.
    pub fn records(&mut self) -> Result<Records<'_, R>, PerfReadError> {
        Records::new(&mut self.source, &self.meta)
    }

    /// The bytes of a feature, as they stand; `None` when the file lacks it.
    ///
    /// # Errors
    /// [`PerfReadError::Truncated`], [`PerfReadError::Field`] for one above 64 MiB, I/O errors.
    pub fn feature_bytes(&mut self, feature: Feature) -> Result<Option<Vec<u8>>, PerfReadError> {
        match self.meta.features.get(&feature) {
            Some(&section) => self.section(section, "a header feature").map(Some),
            None => Ok(None),
        }
    }

    /// The known features.
    ///
    /// # Errors
    /// Those of [`PerfFile::feature_bytes`], and [`PerfReadError::Feature`] for a malformed one.
    pub fn features(&mut self) -> Result<Features, PerfReadError> {
        let mut features = Features::default();
        let sections: Vec<_> = self.meta.features.iter().map(|(f, s)| (*f, *s)).collect();
        for (feature, section) in sections {
            self.check(section, "a header feature")?;
            if Features::knows(feature) {
                let bytes = self.section(section, "a header feature")?;
                features.decode(feature, &bytes, section.offset)?;
            }
        }
        Ok(features)
    }

    fn read_header(&mut self) -> Result<(), PerfReadError> {
        let header: [u8; FILE_HEADER_SIZE as usize] = self.array(0, "the header")?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let section = |at: usize| Section {
            offset: word(at),
            size: word(at + 8),
        };
        let entry_size = word(16);
        let attrs = section(24);
        let data = section(40);
        self.check(attrs, "the attributes")?;
        self.check(data, "the records")?;
        let bits: Vec<u32> = (0..256)
            .filter(|bit| word(72 + bit / 64 * 8) >> (bit % 64) & 1 != 0)
            .map(|b| b as u32)
            .collect();
        if data.size == 0 && bits.is_empty() && self.length > data.offset {
            return Err(PerfReadError::Field {
                offset: 40,
                what: "size of the records of an unfinished recording",
                value: 0,
            });
        }
        let events = self.read_events(attrs, entry_size)?;
        let table = Section {
            offset: data.offset + data.size,
            size: bits.len() as u64 * 16,
        };
        let table = self.section(table, "the feature table")?;
        let mut features = BTreeMap::new();
        for (bit, entry) in bits.into_iter().zip(table.chunks_exact(16)) {
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| entry[at + i]));
            features.insert(
                Feature(bit),
                Section {
                    offset: word(0),
                    size: word(8),
                },
            );
        }
        self.meta = Metadata::new(false, data, events, features);
        Ok(())
    }

    fn read_events(
        &mut self,
        attrs: Section,
        entry_size: u64,
    ) -> Result<Vec<Event>, PerfReadError> {
        let mut events = Vec::new();
        if attrs.size == 0 {
            return Ok(events);
        }
        if entry_size < ATTR_SIZE_VER0 as u64 + 16 || !attrs.size.is_multiple_of(entry_size) {
            return Err(PerfReadError::Field {
                offset: 16,
                what: "size of an attribute",
                value: entry_size,
            });
        }
        let bytes = self.section(attrs, "the attributes")?;
        let mut id_bytes = 0u64;
        for entry in bytes.chunks_exact(entry_size as usize) {
            let (attr, ids) = entry.split_at(entry.len() - 16);
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| ids[at + i]));
            let ids = Section {
                offset: word(0),
                size: word(8),
            };
            // Sections may overlap: together they still must not exceed the file.
            id_bytes = id_bytes.saturating_add(ids.size);
            if id_bytes > self.length {
                return Err(PerfReadError::Field {
                    offset: attrs.offset,
                    what: "size of the ids",
                    value: id_bytes,
                });
            }
            let ids = if ids.size == 0 {
                Vec::new()
            } else {
                self.section(ids, "the ids")?
            };
            events.push(Event {
                attr: decode_attr(attr),
                ids: words(&ids),
            });
        }
        Ok(events)
    }

    fn read_pipe(&mut self) -> Result<(), PerfReadError> {
        let data = Section {
            offset: PIPE_HEADER_SIZE,
            size: self.length - PIPE_HEADER_SIZE,
        };
        self.meta = Metadata::new(true, data, Vec::new(), BTreeMap::new());
        let mut events = Vec::new();
        let mut features = BTreeMap::new();
        let mut records = Records::new(&mut self.source, &self.meta)?;
        while let Some(record) = records.next_record()? {
            let body = record.body;
            match record.kind {
                RecordType::HEADER_ATTR => {
                    let stated = Cursor::new(body.get(4..).unwrap_or_default()).u32("");
                    let size = stated
                        .map_or(body.len(), |s| s as usize)
                        .max(ATTR_SIZE_VER0);
                    let attr = body.get(..size).ok_or(PerfReadError::ShortRecord {
                        offset: record.offset,
                        kind: record.kind,
                        what: "the attribute",
                    })?;
                    events.push(Event {
                        attr: decode_attr(attr),
                        ids: words(&body[size..]),
                    });
                }
                // Out of a COMPRESSED record it has no offset of its own, and perf writes none there.
                RecordType::HEADER_FEATURE if body.len() >= 8 && !record.packed => {
                    let bit = u64::from_le_bytes(std::array::from_fn(|i| body[i]));
                    if let Ok(bit) = u32::try_from(bit) {
                        let section = Section {
                            offset: record.offset + 16,
                            size: body.len() as u64 - 8,
                        };
                        features.insert(Feature(bit), section);
                    }
                }
                _ => {}
            }
        }
        self.meta = Metadata::new(true, data, events, features);
        Ok(())
    }

    fn check(&self, section: Section, what: &'static str) -> Result<(), PerfReadError> {
        let available = self.length.saturating_sub(section.offset);
        if section.size > available {
            return Err(PerfReadError::Truncated {
                offset: section.offset,
                what,
                needed: section.size,
                available,
            });
        }
        Ok(())
    }

    fn section(&mut self, section: Section, what: &'static str) -> Result<Vec<u8>, PerfReadError> {
        self.check(section, what)?;
        if section.size > MAX_FEATURE {
            return Err(PerfReadError::Field {
                offset: section.offset,
                what: "size of a section of more than 64 MiB",
                value: section.size,
            });
        }
        let io = |source| PerfReadError::Io {
            offset: section.offset,
            source,
        };
        self.source
            .seek(SeekFrom::Start(section.offset))
            .map_err(io)?;
        let mut bytes = vec![0; section.size as usize];
        self.source.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    fn array<const N: usize>(
        &mut self,
        offset: u64,
        what: &'static str,
    ) -> Result<[u8; N], PerfReadError> {
        let bytes = self.section(
            Section {
                offset,
                size: N as u64,
            },
            what,
        )?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }
}

/// The attribute with what its stated size leaves out as 0.
fn decode_attr(bytes: &[u8]) -> EventAttr {
    let stated = EventAttr::decode(bytes).size as usize;
    if stated >= ATTR_SIZE_VER0 && stated < bytes.len() {
        return EventAttr::decode(&bytes[..stated]);
    }
    EventAttr::decode(bytes)
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().copied().map(u64::from_le_bytes).collect()
}

/// A padded string of a feature as text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(until_zero(bytes)).into_owned()
}
