//! What the engines deliver, written to the trace.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vlbr_arch::FarKind;

use super::file::TraceFile;
use super::mappings::{Images, Piece};
use super::stream::StreamRecorder;
use crate::assemble::{Kind, RawBlock, RawBlocks, RecordedMode};
use crate::qemu::{
    self, Batch, EventKind, Origin, ProcessEnd, ProcessId, ProcessInfo, Sink, SinkError, StreamEnd,
    StreamInfo, StreamSink, TargetMode,
};
use crate::vlt::{MachineAccess, Process, ProcessIndex, ProcessStart, Thread};

/// Low bits of CR3 that do not tell address spaces apart: the PCID, and the bit by which the page
/// tables of kernel and user differ under page-table isolation. Linux, `PTI_PGTABLE_SWITCH_BIT`.
const CR3_IGNORED: u64 = 0x8000_0000_0000_1fff;

struct KnownProcess {
    index: ProcessIndex,
    mode: TargetMode,
    name: String,
    pieces: BTreeSet<Piece>,
}

#[derive(Default)]
struct Known {
    processes: BTreeMap<ProcessId, KnownProcess>,
    images: Images,
    /// Number of each CR3 value, from 1.
    spaces: BTreeMap<u64, u32>,
    notes: Vec<String>,
}

/// Writes a recording.
pub(super) struct FileSink {
    file: Arc<TraceFile>,
    chunk_instructions: u64,
    /// The engine's blocks hold what retired.
    exact: bool,
    known: Arc<Mutex<Known>>,
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileSink {
    pub(super) fn new(file: Arc<TraceFile>, chunk_instructions: u64) -> Self {
        Self {
            file,
            chunk_instructions,
            exact: false,
            known: Arc::default(),
        }
    }

    /// As [`Assembler::exact`](crate::assemble::Assembler::exact).
    pub(super) fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// What else is to be said about the recording.
    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.known).notes)
    }
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The name the kernel gives a task: the last 15 bytes at most of the program's file name.
fn comm(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(15).collect()
}

impl Sink for FileSink {
    type Stream = FileStream;

    fn process(&self, process: &ProcessInfo) -> Result<(), SinkError> {
        let path = PathBuf::from(os(&process.program));
        let start = match (process.mode, process.origin) {
            (TargetMode::System, _) => ProcessStart::System,
            (TargetMode::User, Origin::Started) => ProcessStart::Initial,
            (TargetMode::User, Origin::Forked { .. }) => ProcessStart::Fork,
            (TargetMode::User, Origin::Replaced(_)) => ProcessStart::Exec,
        };
        let name = comm(&path);
        // As the mappings name it, so that the program is found among them. A system's path is that
        // of a kernel image, which is not mapped by name.
        let path = path.canonicalize().unwrap_or(path);
        let index = self.file.process(&Process {
            pid: process.pid,
            ppid: process.parent_pid,
            start,
            path,
            command_line: process
                .arguments
                .iter()
                .map(|argument| os(argument))
                .collect(),
        })?;
        let mut known = lock(&self.known);
        let pieces = match process.origin {
            Origin::Forked { parent, .. } => {
                let parent = known.processes.get(&parent);
                parent
                    .map(|parent| parent.pieces.clone())
                    .unwrap_or_default()
            }
            _ => BTreeSet::new(),
        };
        self.file
            .mappings(pieces.iter().map(|piece| piece.to_mapping(index)))?;
        known.processes.insert(
            process.id,
            KnownProcess {
                index,
                mode: process.mode,
                name,
                pieces,
            },
        );
        Ok(())
    }

    fn mappings(&self, id: ProcessId, mappings: &[qemu::Mapping]) -> Result<(), SinkError> {
        let mut known = lock(&self.known);
        let Known {
            processes, images, ..
        } = &mut *known;
        let Some(process) = processes.get_mut(&id) else {
            return Ok(());
        };
        if process.mode == TargetMode::System {
            // The mappings of the emulator say nothing about the guest.
            return Ok(());
        }
        let now: BTreeSet<Piece> = images.pieces(mappings).into_iter().collect();
        let index = process.index;
        let new = now
            .difference(&process.pieces)
            .map(|piece| piece.to_mapping(index));
        self.file.mappings(new)?;
        process.pieces = now;
        Ok(())
    }

    fn stream(&self, stream: &StreamInfo) -> Result<FileStream, SinkError> {
        let (index, mode, name) = {
            let known = lock(&self.known);
            let process = known
                .processes
                .get(&stream.process)
                .ok_or("a stream of an unknown process")?;
            (process.index, process.mode, process.name.clone())
        };
        let (tid, vcpu, name, kind) = match mode {
            TargetMode::User => (stream.tid, None, name, Kind::User { space: index.0 }),
            TargetMode::System => (
                stream.vcpu,
                Some(stream.vcpu),
                format!("vcpu {}", stream.vcpu),
                Kind::System,
            ),
        };
        let thread = self.file.thread(&Thread {
            process: index,
            tid,
            vcpu,
            name,
        })?;
        let file = Arc::clone(&self.file);
        let recorder = StreamRecorder::new(file, thread, kind, self.chunk_instructions);
        Ok(FileStream {
            recorder: if self.exact {
                recorder.exact()
            } else {
                recorder
            },
            number: thread.0,
            known: Arc::clone(&self.known),
        })
    }

    fn process_end(&self, process: ProcessId, _: ProcessEnd) -> Result<(), SinkError> {
        lock(&self.known).processes.remove(&process);
        Ok(())
    }
}

/// Writes one stream.
pub(super) struct FileStream {
    recorder: StreamRecorder,
    number: u32,
    known: Arc<Mutex<Known>>,
}

/// Blocks of an engine as the assembler reads them.
struct EngineBlocks<'a>(&'a [Arc<qemu::RawBlock>]);

impl RawBlocks for EngineBlocks<'_> {
    fn raw(&self, id: u32) -> Option<RawBlock<'_>> {
        let block = self.0.get(id as usize)?;
        Some(RawBlock {
            start: block.start,
            lengths: &block.sizes,
            bytes: &block.bytes,
            mode: block.mode.map(|mode| RecordedMode {
                cpl: mode.cpl(),
                code_size: mode.code_size(),
                cs_base: None,
                space: None,
            }),
        })
    }
}

impl FileStream {
    fn space(&self, cr3: u64) -> u32 {
        let mut known = lock(&self.known);
        let next = known.spaces.len() as u32 + 1;
        *known.spaces.entry(cr3 & !CR3_IGNORED).or_insert(next)
    }

    fn event(&mut self, event: &qemu::Event) -> Result<(), SinkError> {
        let access = match event.kind {
            EventKind::Discontinuity {
                interrupt,
                certain,
                from,
                ..
            } => {
                let kind = if interrupt {
                    FarKind::Interrupt
                } else {
                    FarKind::Exception
                };
                self.recorder.event(kind, from, certain);
                return Ok(());
            }
            EventKind::AddressSpace { cr3 } => {
                let space = self.space(cr3);
                self.recorder.address_space(space);
                return Ok(());
            }
            EventKind::ReadMsr { msr, value } => MachineAccess::ReadMsr { msr, value },
            EventKind::WriteMsr { msr, value } => MachineAccess::WriteMsr {
                msr,
                value: Some(value),
            },
            EventKind::Cpuid {
                leaf,
                subleaf,
                value,
            } => MachineAccess::Cpuid {
                leaf,
                subleaf,
                result: value,
            },
            EventKind::In { port, value, .. } => MachineAccess::PortIn {
                port,
                value: value.map(u64::from),
            },
            EventKind::Out { port, value, .. } => MachineAccess::PortOut {
                port,
                value: Some(value.into()),
            },
        };
        self.recorder.machine(event.instruction, access)?;
        Ok(())
    }
}

impl StreamSink for FileStream {
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let blocks = EngineBlocks(batch.blocks);
        let (mut memory, mut events) = (batch.memory.iter(), batch.events.iter());
        let mut done = 0;
        loop {
            let (next_memory, next_event) = (memory.as_slice().first(), events.as_slice().first());
            let preceding = [
                next_memory.map(|access| access.preceding),
                next_event.map(|event| event.preceding),
            ];
            let Some(until) = preceding.into_iter().flatten().min() else {
                break;
            };
            let until = (until as usize).clamp(done, batch.ids.len());
            self.recorder.push(&blocks, &batch.ids[done..until])?;
            done = until;
            if let Some(access) = next_memory.filter(|access| access.preceding as usize <= until) {
                memory.next();
                let size_log2 = access.size.checked_ilog2().unwrap_or(0) as u8;
                self.recorder.memory(
                    access.instruction,
                    access.address,
                    size_log2,
                    access.store,
                )?;
            } else if let Some(event) = events.next() {
                self.event(event)?;
            }
        }
        self.recorder.push(&blocks, &batch.ids[done..])?;
        Ok(())
    }

    fn end(mut self, end: StreamEnd) -> Result<(), SinkError> {
        let mut note = None;
        if let StreamEnd::Damaged(reason) = end {
            self.recorder.gap()?;
            note = Some(format!("thread {}: {reason}", self.number));
        }
        let dropped = self.recorder.end()?;
        let mut known = lock(&self.known);
        known.notes.extend(note);
        if dropped > 0 {
            let number = self.number;
            known
                .notes
                .push(format!("thread {number}: {dropped} accesses were left out"));
        }
        Ok(())
    }
}
