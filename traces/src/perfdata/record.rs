//! The records of a perf.data file, as they stand and with their fields.

use super::abi::{AttrFlags, RecordType, SampleType, misc};
use super::attr::EventAttr;
use super::cursor::{Cursor, Cut, until_zero};
use super::error::PerfReadError;
use super::info::TaskId;
use super::read::Metadata;
use super::sample::Sample;

/// A record as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Offset in the file; of a compressed record, that of the COMPRESSED record around it.
    pub offset: u64,
    /// Type.
    pub kind: RecordType,
    /// `perf_event_header.misc`.
    pub misc: u16,
    /// What follows the header.
    pub body: &'a [u8],
    /// It came out of a COMPRESSED record.
    pub packed: bool,
    pub(super) meta: &'a Metadata,
}

/// The trailer that `sample_id_all` puts behind records other than samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleId {
    /// Process and thread.
    pub task: Option<(u32, u32)>,
    /// Time in ns.
    pub time: Option<u64>,
    /// Id of the event.
    pub id: Option<u64>,
    /// Id of the event's instance.
    pub stream_id: Option<u64>,
    /// CPU.
    pub cpu: Option<u32>,
}

/// What an MMAP2 record says of the mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileIdentity<'a> {
    /// Nothing: an MMAP record.
    Unknown,
    /// Device and inode.
    Inode {
        /// Device, major number.
        major: u32,
        /// Device, minor number.
        minor: u32,
        /// Inode.
        inode: u64,
        /// Generation of the inode.
        generation: u64,
    },
    /// Build-id.
    BuildId(&'a [u8]),
}

/// MMAP and MMAP2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapRecord<'a> {
    /// Process and thread; the kernel's mappings have pid -1.
    pub task: TaskId,
    /// First address.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// Offset in the file.
    pub pgoff: u64,
    /// Which file.
    pub identity: FileIdentity<'a>,
    /// Protection and flags, of MMAP2.
    pub prot_flags: Option<(u32, u32)>,
    /// Path.
    pub path: &'a [u8],
    /// Mapped by the kernel for itself.
    pub kernel: bool,
}

/// A record with its fields. Types without fields here are [`Record::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a record lives on the stack until the next one; samples are the common kind"
)]
pub enum Record<'a> {
    /// MMAP or MMAP2.
    Mmap(MmapRecord<'a>),
    /// COMM.
    Comm {
        /// Who.
        task: TaskId,
        /// The name.
        comm: &'a [u8],
        /// Set by exec.
        exec: bool,
    },
    /// FORK or EXIT.
    Task {
        /// It is an exit.
        exit: bool,
        /// The new or ended task.
        task: TaskId,
        /// Its parent.
        parent: TaskId,
        /// Time in ns.
        time: u64,
    },
    /// LOST.
    Lost {
        /// Id of the event.
        id: u64,
        /// Records lost.
        count: u64,
    },
    /// LOST_SAMPLES.
    LostSamples {
        /// Samples lost.
        count: u64,
    },
    /// THROTTLE or UNTHROTTLE.
    Throttle {
        /// Sampling goes on.
        end: bool,
        /// Time in ns.
        time: u64,
        /// Id of the event.
        id: u64,
        /// Id of the event's instance.
        stream_id: u64,
    },
    /// SAMPLE.
    Sample(Sample<'a>),
    /// Any other record; the body is in [`RawRecord::body`].
    Other,
}

impl<'a> RawRecord<'a> {
    /// The CPU mode bits of `misc`: 1 kernel, 2 user.
    #[must_use]
    pub const fn cpumode(&self) -> u16 {
        self.misc & misc::CPUMODE_MASK
    }

    /// The attribute of the event this record belongs to.
    ///
    /// # Errors
    /// [`PerfReadError::NoEvent`], [`PerfReadError::UnknownId`], [`PerfReadError::AmbiguousEvent`].
    pub fn attr(&self) -> Result<&'a EventAttr, PerfReadError> {
        self.meta.attr_of(self)
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// [`PerfReadError::ShortRecord`] when they do not fit the record, and those of
    /// [`RawRecord::attr`].
    pub fn parse(&self) -> Result<Record<'a>, PerfReadError> {
        let short = |Cut(what)| PerfReadError::ShortRecord {
            offset: self.offset,
            kind: self.kind,
            what,
        };
        match self.kind {
            RecordType::SAMPLE => Sample::decode(self.body, self.attr()?)
                .map(Record::Sample)
                .map_err(short),
            _ => self.parse_plain().map_err(short),
        }
    }

    fn parse_plain(&self) -> Result<Record<'a>, Cut> {
        let mut c = Cursor::new(self.body);
        Ok(match self.kind {
            RecordType::MMAP | RecordType::MMAP2 => Record::Mmap(self.mmap(&mut c)?),
            RecordType::COMM => {
                let task = TaskId {
                    pid: c.u32("the process")?,
                    tid: c.u32("the thread")?,
                };
                let comm = until_zero(c.rest());
                Record::Comm {
                    task,
                    comm,
                    exec: self.misc & misc::COMM_EXEC != 0,
                }
            }
            RecordType::FORK | RecordType::EXIT => {
                let pid = c.u32("the process")?;
                let parent_pid = c.u32("the parent")?;
                let tid = c.u32("the thread")?;
                let parent_tid = c.u32("the parent thread")?;
                Record::Task {
                    exit: self.kind == RecordType::EXIT,
                    task: TaskId { pid, tid },
                    parent: TaskId {
                        pid: parent_pid,
                        tid: parent_tid,
                    },
                    time: c.u64("the time")?,
                }
            }
            RecordType::LOST => Record::Lost {
                id: c.u64("the id")?,
                count: c.u64("the count")?,
            },
            RecordType::LOST_SAMPLES => Record::LostSamples {
                count: c.u64("the count")?,
            },
            RecordType::THROTTLE | RecordType::UNTHROTTLE => Record::Throttle {
                end: self.kind == RecordType::UNTHROTTLE,
                time: c.u64("the time")?,
                id: c.u64("the id")?,
                stream_id: c.u64("the stream id")?,
            },
            _ => Record::Other,
        })
    }

    fn mmap(&self, c: &mut Cursor<'a>) -> Result<MmapRecord<'a>, Cut> {
        let task = TaskId {
            pid: c.u32("the process")?,
            tid: c.u32("the thread")?,
        };
        let start = c.u64("the start")?;
        let len = c.u64("the length")?;
        let pgoff = c.u64("the offset")?;
        let (identity, prot_flags) = if self.kind == RecordType::MMAP {
            (FileIdentity::Unknown, None)
        } else {
            let identity = if self.misc & misc::MMAP_BUILD_ID != 0 {
                let size = c.array::<4>("the build-id")?[0];
                let id = c.bytes(20, "the build-id")?;
                FileIdentity::BuildId(id.get(..usize::from(size)).ok_or(Cut("the build-id"))?)
            } else {
                FileIdentity::Inode {
                    major: c.u32("the device")?,
                    minor: c.u32("the device")?,
                    inode: c.u64("the inode")?,
                    generation: c.u64("the generation")?,
                }
            };
            (
                identity,
                Some((c.u32("the protection")?, c.u32("the flags")?)),
            )
        };
        let path = until_zero(c.rest());
        let kernel = self.cpumode() == misc::KERNEL;
        Ok(MmapRecord {
            task,
            start,
            len,
            pgoff,
            identity,
            prot_flags,
            path,
            kernel,
        })
    }

    /// The `sample_id_all` trailer, `None` for samples, perf's own records and events without it.
    ///
    /// # Errors
    /// [`PerfReadError::ShortRecord`] when the record is too short for it.
    pub fn sample_id(&self) -> Result<Option<SampleId>, PerfReadError> {
        let Some(attr) = self.meta.common_attr() else {
            return Ok(None);
        };
        let of_the_kernel = self.kind.0 < RecordType::HEADER_ATTR.0;
        if !of_the_kernel
            || self.kind == RecordType::SAMPLE
            || !attr.flags.contains(AttrFlags::SAMPLE_ID_ALL)
        {
            return Ok(None);
        }
        self.decode_sample_id(attr)
            .map(Some)
            .map_err(|Cut(what)| PerfReadError::ShortRecord {
                offset: self.offset,
                kind: self.kind,
                what,
            })
    }

    fn decode_sample_id(&self, attr: &EventAttr) -> Result<SampleId, Cut> {
        const WHAT: &str = "the id trailer";
        let has = |bit| attr.sample_type.contains(bit);
        let size = 8 * trailer_words(attr.sample_type);
        let start = self.body.len().checked_sub(size).ok_or(Cut(WHAT))?;
        let mut c = Cursor::new(&self.body[start..]);
        let mut id = SampleId::default();
        if has(SampleType::TID) {
            id.task = Some((c.u32(WHAT)?, c.u32(WHAT)?));
        }
        if has(SampleType::TIME) {
            id.time = Some(c.u64(WHAT)?);
        }
        if has(SampleType::ID) {
            id.id = Some(c.u64(WHAT)?);
        }
        if has(SampleType::STREAM_ID) {
            id.stream_id = Some(c.u64(WHAT)?);
        }
        if has(SampleType::CPU) {
            id.cpu = Some(c.u32(WHAT)?);
            c.u32(WHAT)?;
        }
        if has(SampleType::IDENTIFIER) {
            id.id = Some(c.u64(WHAT)?);
        }
        Ok(id)
    }
}

/// Words of the trailer, one for each of its fields.
fn trailer_words(sample_type: SampleType) -> usize {
    [
        SampleType::TID,
        SampleType::TIME,
        SampleType::ID,
        SampleType::STREAM_ID,
        SampleType::CPU,
        SampleType::IDENTIFIER,
    ]
    .into_iter()
    .filter(|&bit| sample_type.contains(bit))
    .count()
}
