//! Writer of perf.data files that perf, BOLT and llvm-profgen accept.
//!
//! Records are streamed behind a placeholder header; [`PerfDataWriter::finish`] appends the header
//! features, patches the header and renames the file into place. Memory does not grow with the
//! number of samples. Nothing is taken from the clock or from this machine: same calls, same bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::abi::{
    BranchSampleType, FILE_HEADER_SIZE, Feature, MAGIC, RECORD_HEADER_SIZE, RecordType, SampleType,
    misc,
};
use super::attr::{ATTR_SIZE, EventAttr};
use super::entry::{BranchEntry, ENTRY_SIZE};
use super::error::PerfWriteError;
use super::events_write::{Instances, attrs_of};
use super::features_write::{self as features, KnownBuildId};
use super::info::{FileInfo, Mapping, SampleRecord, TaskId};

/// Bytes of a build-id that the perf ABI has room for.
const MAX_BUILD_ID: usize = 20;
/// `TASK_COMM_LEN` without the final zero.
const MAX_COMM: usize = 15;
/// Longest path of a mapping that perf takes, final zero included.
const PATH_MAX: usize = 4096;
/// An attribute in the file, with the place of its ids.
const ATTR_ENTRY_SIZE: u64 = ATTR_SIZE as u64 + 16;

/// What a finished file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records of every kind.
    pub records: u64,
    /// Samples among them.
    pub samples: u64,
    /// Branch entries in all samples.
    pub entries: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Streams records into a perf.data file.
///
/// The file appears under its name only when [`PerfDataWriter::finish`] returns; a writer that is
/// dropped leaves nothing behind.
#[derive(Debug)]
pub struct PerfDataWriter {
    out: BufWriter<tempfile::NamedTempFile>,
    path: PathBuf,
    info: FileInfo,
    /// One an event, the sampled one first.
    attrs: Vec<EventAttr>,
    instances: Instances,
    /// Offset of the records: behind the header and the attributes.
    data_offset: u64,
    record: Vec<u8>,
    /// Keyed by path and mode: one entry a file, in a fixed order.
    build_ids: BTreeMap<(Vec<u8>, bool), Vec<u8>>,
    sample_time: Option<(u64, u64)>,
    position: u64,
    written: Written,
}

impl PerfDataWriter {
    /// Starts a file that [`PerfDataWriter::finish`] puts at `path`.
    ///
    /// # Errors
    /// [`PerfWriteError::NotARegularFile`] when `path` exists and is not a regular file, and I/O
    /// errors of creating or writing the temporary beside it.
    pub fn create(path: &Path, info: FileInfo) -> Result<Self, PerfWriteError> {
        let attrs = attrs_of(&info);
        let data_offset = FILE_HEADER_SIZE + attrs.len() as u64 * ATTR_ENTRY_SIZE;
        match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => {
                return Err(PerfWriteError::NotARegularFile {
                    path: path.to_owned(),
                });
            }
            _ => {}
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let io = |source| PerfWriteError::Io {
            path: path.to_owned(),
            source,
        };
        let file = tempfile::Builder::new()
            .prefix(".perf-data-")
            .tempfile_in(folder)
            .map_err(io)?;
        let mut writer = Self {
            out: BufWriter::with_capacity(1 << 17, file),
            path: path.to_owned(),
            instances: Instances::new(info.group.len()),
            info,
            attrs,
            data_offset,
            record: Vec::with_capacity(4096),
            build_ids: BTreeMap::new(),
            sample_time: None,
            position: data_offset,
            written: Written::default(),
        };
        writer
            .out
            .write_all(&vec![0; data_offset as usize])
            .map_err(io)?;
        Ok(writer)
    }

    /// The attribute of the event that is sampled.
    #[must_use]
    pub fn attr(&self) -> &EventAttr {
        &self.attrs[0]
    }

    /// A task got the name `comm`, at an exec when `exec` is set.
    ///
    /// The name is cut to 15 bytes, as the kernel does.
    ///
    /// # Errors
    /// I/O errors.
    pub fn comm(
        &mut self,
        task: TaskId,
        comm: &str,
        exec: bool,
        time_ns: u64,
    ) -> Result<(), PerfWriteError> {
        let name = comm.as_bytes();
        let end = name
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(name.len())
            .min(MAX_COMM);
        self.begin();
        self.u32(task.pid);
        self.u32(task.tid);
        self.padded_string(&name[..end]);
        self.sample_id(task, time_ns, 0);
        self.end(RecordType::COMM, if exec { misc::COMM_EXEC } else { 0 })
    }

    /// Executable code was mapped.
    ///
    /// A user mapping becomes MMAP2 (perf2bolt 16, 19 and 22 do not take the older MMAP), a kernel
    /// one the MMAP that perf synthesises for the kernel and its modules.
    ///
    /// # Errors
    /// [`PerfWriteError::Path`] for a path with a zero byte or of 4096 bytes and more,
    /// [`PerfWriteError::BuildId`] for an empty build-id or one of more than 20 bytes, I/O errors.
    pub fn mapping(&mut self, mapping: &Mapping, time_ns: u64) -> Result<(), PerfWriteError> {
        let path = mapping.path.as_os_str().as_bytes();
        if path.contains(&0) || path.len() >= PATH_MAX {
            return Err(PerfWriteError::Path {
                path: mapping.path.clone(),
            });
        }
        if let Some(id) = &mapping.build_id {
            if id.is_empty() || id.len() > MAX_BUILD_ID {
                return Err(PerfWriteError::BuildId {
                    path: mapping.path.clone(),
                    length: id.len(),
                });
            }
            self.build_ids.insert(
                (build_id_name(path, mapping.kernel), mapping.kernel),
                id.clone(),
            );
        }
        let task = TaskId {
            pid: mapping.pid,
            tid: mapping.tid,
        };
        self.begin();
        if mapping.kernel {
            // perf gives kernel mappings to pid -1.
            self.u32(u32::MAX);
            self.u32(0);
        } else {
            self.u32(task.pid);
            self.u32(task.tid);
        }
        self.u64(mapping.start);
        self.u64(mapping.len);
        self.u64(mapping.pgoff);
        if mapping.kernel {
            self.padded_string(path);
            self.sample_id(
                TaskId {
                    pid: u32::MAX,
                    tid: 0,
                },
                time_ns,
                0,
            );
            return self.end(RecordType::MMAP, misc::KERNEL);
        }
        let mut bits = misc::USER;
        match &mapping.build_id {
            Some(id) if self.info.build_id_in_mmap => {
                bits |= misc::MMAP_BUILD_ID;
                let mut field = [0; 24];
                field[0] = id.len() as u8;
                field[4..4 + id.len()].copy_from_slice(id);
                self.record.extend_from_slice(&field);
            }
            // Device, inode and generation: not known, and not the same on every machine.
            _ => self.record.extend_from_slice(&[0; 24]),
        }
        self.u32(mapping.prot);
        self.u32(mapping.flags);
        self.padded_string(path);
        self.sample_id(task, time_ns, 0);
        self.end(RecordType::MMAP2, bits)
    }

    /// `parent` created the task `child`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn fork(
        &mut self,
        parent: TaskId,
        child: TaskId,
        time_ns: u64,
    ) -> Result<(), PerfWriteError> {
        self.task_record(RecordType::FORK, parent, child, time_ns)
    }

    /// The task `task`, created by `parent`, ended.
    ///
    /// # Errors
    /// I/O errors.
    pub fn exit(
        &mut self,
        parent: TaskId,
        task: TaskId,
        time_ns: u64,
    ) -> Result<(), PerfWriteError> {
        self.task_record(RecordType::EXIT, parent, task, time_ns)
    }

    /// `count` samples were lost.
    ///
    /// # Errors
    /// I/O errors.
    pub fn lost(&mut self, task: TaskId, count: u64, time_ns: u64) -> Result<(), PerfWriteError> {
        self.begin();
        self.u64(0);
        self.u64(count);
        self.sample_id(task, time_ns, 0);
        self.end(RecordType::LOST, 0)
    }

    /// A sample.
    ///
    /// # Errors
    /// [`PerfWriteError::TooLarge`] when entries and call chain do not fit 64 KiB;
    /// [`PerfWriteError::MissingField`] when the file was declared with call chains or hardware
    /// indices and the sample has none; [`PerfWriteError::GroupSize`] when it has not one count an
    /// event of the group, or counts without a group; [`PerfWriteError::CountFell`] for a count below
    /// that of the sample before; I/O errors.
    pub fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), PerfWriteError> {
        self.instances.count(sample)?;
        let sample_type = self.attr().sample_type;
        self.begin();
        self.u64(sample.ip);
        self.u32(sample.pid);
        self.u32(sample.tid);
        self.u64(sample.time_ns);
        if sample_type.contains(SampleType::ID) {
            self.u64(self.instances.id(sample.instance, 0));
        }
        self.u32(sample.cpu);
        self.u32(0);
        self.u64(sample.period);
        if sample_type.contains(SampleType::READ) {
            self.u64(sample.counts.len() as u64);
            for (event, &count) in sample.counts.iter().enumerate() {
                self.u64(count);
                self.u64(self.instances.id(sample.instance, event));
            }
        }
        if sample_type.contains(SampleType::CALLCHAIN) {
            let chain = sample
                .callchain
                .ok_or(PerfWriteError::MissingField("call chain"))?;
            self.u64(chain.len() as u64);
            for &address in chain {
                self.u64(address);
            }
        }
        if sample_type.contains(SampleType::BRANCH_STACK) {
            self.u64(sample.branches.len() as u64);
            if self
                .attr()
                .branch_sample_type
                .contains(BranchSampleType::HW_INDEX)
            {
                self.u64(
                    sample
                        .hw_idx
                        .ok_or(PerfWriteError::MissingField("hardware index"))?,
                );
            }
            self.entries(sample.branches);
        }
        self.end(
            RecordType::SAMPLE,
            if sample.kernel {
                misc::KERNEL
            } else {
                misc::USER
            },
        )?;
        let (first, last) = self.sample_time.unwrap_or((sample.time_ns, sample.time_ns));
        self.sample_time = Some((first.min(sample.time_ns), last.max(sample.time_ns)));
        self.written.samples += 1;
        self.written.entries += sample.branches.len() as u64;
        Ok(())
    }

    /// Writes the features and the header and puts the file in its place.
    ///
    /// # Errors
    /// I/O errors, a full disk among them; nothing is left at `path` then.
    pub fn finish(mut self) -> Result<Written, PerfWriteError> {
        let path = std::mem::take(&mut self.path);
        let io = |source| PerfWriteError::Io {
            path: path.clone(),
            source,
        };
        let build_ids: Vec<KnownBuildId> = std::mem::take(&mut self.build_ids)
            .into_iter()
            .map(|((path, kernel), id)| KnownBuildId { path, kernel, id })
            .collect();
        let sections = features::sections(
            &self.info,
            &self.attrs,
            &self.instances,
            &build_ids,
            self.sample_time,
        );
        let bytes = self.write_tail(&sections).map_err(io)?;
        self.written.bytes = bytes;
        let file = self.out.into_inner().map_err(|e| io(e.into_error()))?;
        file.persist(&path).map_err(|e| io(e.error))?;
        Ok(self.written)
    }

    fn write_tail(&mut self, sections: &[(Feature, Vec<u8>)]) -> io::Result<u64> {
        let mut at = self.position + sections.len() as u64 * 16;
        let mut bitmap = [0u64; 4];
        for (feature, bytes) in sections {
            self.out.write_all(&at.to_le_bytes())?;
            self.out.write_all(&(bytes.len() as u64).to_le_bytes())?;
            at += bytes.len() as u64;
            bitmap[feature.0 as usize / 64] |= 1 << (feature.0 % 64);
        }
        for (_, bytes) in sections {
            self.out.write_all(bytes)?;
        }
        // perf puts the ids before the attributes; here they are known only now.
        let mut places = Vec::new();
        for event in 0..self.attrs.len() {
            let start = at;
            for id in self.instances.ids(event) {
                self.out.write_all(&id.to_le_bytes())?;
                at += 8;
            }
            places.push(if at > start {
                [start, at - start]
            } else {
                [0, 0]
            });
        }
        self.out.flush()?;
        let mut head = Vec::with_capacity(self.data_offset as usize);
        head.extend_from_slice(&MAGIC);
        let words = [
            FILE_HEADER_SIZE,
            ATTR_ENTRY_SIZE,
            FILE_HEADER_SIZE,
            self.data_offset - FILE_HEADER_SIZE,
            self.data_offset,
            self.position - self.data_offset,
            0,
            0,
        ];
        for word in words.into_iter().chain(bitmap) {
            head.extend_from_slice(&word.to_le_bytes());
        }
        for (attr, place) in self.attrs.iter().zip(places) {
            head.extend_from_slice(&attr.encode());
            head.extend(place.into_iter().flat_map(u64::to_le_bytes));
        }
        let file: &mut File = self.out.get_mut().as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head)?;
        file.sync_data()?;
        Ok(at)
    }

    fn task_record(
        &mut self,
        kind: RecordType,
        parent: TaskId,
        task: TaskId,
        time_ns: u64,
    ) -> Result<(), PerfWriteError> {
        self.begin();
        self.u32(task.pid);
        self.u32(parent.pid);
        self.u32(task.tid);
        self.u32(parent.tid);
        self.u64(time_ns);
        self.sample_id(task, time_ns, 0);
        self.end(kind, 0)
    }

    fn begin(&mut self) {
        self.record.clear();
        self.record.extend_from_slice(&[0; RECORD_HEADER_SIZE]);
    }

    fn u32(&mut self, value: u32) {
        self.record.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.record.extend_from_slice(&value.to_le_bytes());
    }

    fn entries(&mut self, entries: &[BranchEntry]) {
        self.record.reserve(entries.len().min(4096) * ENTRY_SIZE);
        for entry in entries {
            self.record.extend_from_slice(&entry.encode());
        }
    }

    /// The string, a final zero, and zeros up to a multiple of 8.
    fn padded_string(&mut self, string: &[u8]) {
        self.record.extend_from_slice(string);
        let padded = (string.len() + 1).next_multiple_of(8);
        self.record
            .resize(self.record.len() + padded - string.len(), 0);
    }

    /// The trailer of `sample_id_all` for this file's sample type.
    fn sample_id(&mut self, task: TaskId, time_ns: u64, cpu: u32) {
        self.u32(task.pid);
        self.u32(task.tid);
        self.u64(time_ns);
        if self.attr().sample_type.contains(SampleType::ID) {
            // No event's: perf gives the id 0 to the records that it synthesises.
            self.u64(0);
        }
        self.u32(cpu);
        self.u32(0);
    }

    fn end(&mut self, kind: RecordType, bits: u16) -> Result<(), PerfWriteError> {
        let size = u16::try_from(self.record.len()).map_err(|_| PerfWriteError::TooLarge {
            kind,
            size: self.record.len(),
        })?;
        self.record[..4].copy_from_slice(&kind.0.to_le_bytes());
        self.record[4..6].copy_from_slice(&bits.to_le_bytes());
        self.record[6..8].copy_from_slice(&size.to_le_bytes());
        self.out
            .write_all(&self.record)
            .map_err(|source| PerfWriteError::Io {
                path: self.path.clone(),
                source,
            })?;
        self.position += u64::from(size);
        self.written.records += 1;
        Ok(())
    }
}

/// The name under which perf keeps the build-id of a mapping.
fn build_id_name(path: &[u8], kernel: bool) -> Vec<u8> {
    if kernel && path.starts_with(b"[kernel.kallsyms]") {
        b"[kernel.kallsyms]".to_vec()
    } else {
        OsStr::from_bytes(path).as_bytes().to_vec()
    }
}
