//! Converting a QEMU log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vlbr_arch::Cpl;

use super::error::RecordError;
use super::run::{Recording, meta, stats_notes};
use super::stream::StreamRecorder;
use super::{Outcome, RecordOptions};
use crate::assemble::Kind;
use crate::files::open_regular;
use crate::qemulog::{LogCode, LogReader};
use crate::symbols::{CodeBytes, ElfImage};
use crate::vlt::{
    Mapping, MappingFlags, Process, ProcessIndex, ProcessStart, Scope, Thread, ThreadIndex,
};

/// Blocks handed to the assembler at once.
const BATCH: usize = 4096;

/// What the log alone does not say.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// The program, for code without listing, mappings and symbols.
    pub elf: Option<PathBuf>,
    /// Distance from its linked to its loaded addresses.
    pub bias: u64,
}

/// Code of the program, loaded.
struct Loaded {
    code: Option<CodeBytes>,
    bias: u64,
}

impl LogCode for Loaded {
    fn code(&self, address: u64) -> &[u8] {
        let code = self.code.as_ref();
        code.and_then(|code| code.at(address.wrapping_sub(self.bias)))
            .unwrap_or_default()
    }
}

/// Reads the log `input` and writes a trace. The first block's privilege level says whether it is
/// the log of a user program (ring 3) or of a machine. When `stop` becomes true, the trace ends
/// where the reader is.
///
/// # Errors
/// The log cannot be read or understood; the trace cannot be written.
pub fn convert_qemulog(
    input: &Path,
    log: &LogOptions,
    options: &RecordOptions,
    stop: &AtomicBool,
) -> Result<Outcome, RecordError> {
    let read_error = |source| RecordError::Read {
        path: input.into(),
        source,
    };
    let file = open_regular(input).map_err(read_error)?;
    let image = match &log.elf {
        Some(path) => Some(ElfImage::open(path)?),
        None => None,
    };
    let code = match &image {
        Some(image) => Some(image.read_code()?),
        None => None,
    };
    let loaded = Loaded {
        code,
        bias: log.bias,
    };
    let mut reader = LogReader::with_code(BufReader::with_capacity(1 << 18, file), loaded);
    let Some(first) = reader.next_executed()? else {
        return Err(read_error(std::io::ErrorKind::UnexpectedEof.into()));
    };
    let system = first.cpl != Cpl::Ring3;
    let scope = if system { Scope::System } else { Scope::User };
    let program = log.elf.clone().unwrap_or_default();
    let command_line: Vec<_> = log.elf.iter().map(|path| path.clone().into()).collect();
    let recording = Recording::create(
        options,
        &meta("qemu-log", String::new(), scope, &command_line),
    )?;
    let mut streams = Streams {
        recording,
        system,
        process: ProcessIndex(0),
        streams: BTreeMap::new(),
    };
    let result = streams
        .begin(program, image.as_ref(), log.bias)
        .and_then(|()| streams.add(&reader, first.cpu, first.block))
        .and_then(|()| {
            while !stop.load(Ordering::Relaxed)
                && let Some(executed) = reader.next_executed()?
            {
                streams.add(&reader, executed.cpu, executed.block)?;
            }
            streams.end(&reader)
        });
    let Streams {
        recording, streams, ..
    } = streams;
    let count = streams.len() as u32;
    drop(streams);
    if let Err(error) = result {
        return recording.fail(error);
    }
    let stopped = stop.load(Ordering::Relaxed);
    let stats = recording.file().stats();
    let mut notes: Vec<_> = stats_notes(&stats).collect();
    if stopped {
        notes.insert(0, ("stopped".to_owned(), "by the user".to_owned()));
    }
    Ok(Outcome {
        engine: "qemu-log",
        end: None,
        stopped,
        processes: 1,
        streams: count,
        stats,
        size: recording.finish(&notes, false)?,
        lost: Vec::new(),
    })
}

struct LogStream {
    /// `None` once it has ended.
    recorder: Option<StreamRecorder>,
    ids: Vec<u32>,
}

struct Streams {
    recording: Recording,
    system: bool,
    process: ProcessIndex,
    streams: BTreeMap<u32, LogStream>,
}

type Reader = LogReader<BufReader<File>, Loaded>;

impl Streams {
    fn begin(
        &mut self,
        program: PathBuf,
        image: Option<&ElfImage>,
        bias: u64,
    ) -> Result<(), RecordError> {
        let file = self.recording.file();
        self.process = file.process(&Process {
            pid: 1,
            ppid: 0,
            start: if self.system {
                ProcessStart::System
            } else {
                ProcessStart::Initial
            },
            path: program.clone(),
            command_line: Vec::new(),
        })?;
        let Some(image) = image else {
            return Ok(());
        };
        let path = program.canonicalize().unwrap_or(program);
        let segments = image.segments().iter().filter(|segment| segment.executable);
        file.mappings(segments.map(|segment| {
            let page = segment.address & 0xfff;
            Mapping {
                process: self.process,
                from_chunk: 0,
                start: (segment.address - page).wrapping_add(bias),
                length: segment.file_size.saturating_add(page + 0xfff) & !0xfff,
                offset: segment.file_offset.wrapping_sub(page),
                flags: MappingFlags {
                    read: true,
                    execute: true,
                    kernel: self.system,
                    ..MappingFlags::default()
                },
                path: path.clone(),
                build_id: image.build_id().unwrap_or_default().to_vec(),
            }
        }))
    }

    fn add(&mut self, reader: &Reader, cpu: u32, block: u32) -> Result<(), RecordError> {
        if !self.streams.contains_key(&cpu) {
            let stream = self.start(cpu)?;
            self.streams.insert(cpu, stream);
        }
        if let Some(stream) = self.streams.get_mut(&cpu) {
            stream.ids.push(block);
            if stream.ids.len() == BATCH {
                stream.flush(reader)?;
            }
        }
        Ok(())
    }

    fn start(&self, cpu: u32) -> Result<LogStream, RecordError> {
        let file = self.recording.file();
        let thread: ThreadIndex = file.thread(&Thread {
            process: self.process,
            tid: cpu + u32::from(!self.system),
            vcpu: self.system.then_some(cpu),
            name: String::new(),
        })?;
        let kind = if self.system {
            Kind::System
        } else {
            Kind::User { space: 0 }
        };
        let limit = self.recording.chunk_instructions();
        Ok(LogStream {
            recorder: Some(StreamRecorder::new(Arc::clone(file), thread, kind, limit)),
            ids: Vec::new(),
        })
    }

    fn end(&mut self, reader: &Reader) -> Result<(), RecordError> {
        for stream in self.streams.values_mut() {
            stream.flush(reader)?;
            if let Some(recorder) = stream.recorder.take() {
                recorder.end()?;
            }
        }
        Ok(())
    }
}

impl LogStream {
    fn flush(&mut self, reader: &Reader) -> Result<(), RecordError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.push(reader, &self.ids)?;
        }
        self.ids.clear();
        Ok(())
    }
}
