//! Writing a trace frame by frame.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use vlbr_cpu::Code;

use super::bytes::{put_bytes, put_varint};
use super::chunk::{CHUNK_HEADER, ChunkHeader, EncodedChunk};
use super::code::{encode_blocks, encode_steps};
use super::error::WriteError;
use super::frame::{MAX_PAYLOAD, OPTIONAL, SUMMED_HEADER, file_header, frame, kind};
use super::functions::{FileFunctions, encode_functions};
use super::meta::{Mapping, Meta, Process, ProcessIndex, Thread, ThreadIndex, put_notes};
use super::packed::compress;
use super::scan::MAX_SYMBOLS;

/// Where a trace is written to.
pub trait Output {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// The system's. Some of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the output to its first `size` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
}

impl Output for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

impl Output for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        Vec::truncate(self, usize::try_from(size).unwrap_or(usize::MAX));
        Ok(())
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Replace a file that exists.
    pub overwrite: bool,
    /// zstd level of code and symbols.
    pub code_level: i32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            overwrite: false,
            code_level: 17,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ThreadState {
    chunks: u32,
    instructions: u64,
}

/// Writes a trace.
///
/// Every frame reaches the system with one call, under the file's own name, so that a recording
/// that is cut off at any moment is valid up to its last whole frame. [`Writer::finish`] writes
/// the end frame, without which readers take the file for cut off.
#[derive(Debug)]
pub struct Writer<O: Output = File> {
    output: O,
    options: WriterOptions,
    failed: bool,
    /// End of the last whole frame.
    offset: u64,
    frames: u64,
    /// CRC-32C of all frame headers, without their own checksums.
    headers_crc: u32,
    processes: u32,
    threads: Vec<ThreadState>,
    mappings: u32,
    blocks: u32,
    steps: u32,
    chunks: u32,
    executed: u64,
}

impl Writer<File> {
    /// Creates `path` and begins a trace in it.
    ///
    /// # Errors
    /// [`WriteError::Exists`] unless overwriting is asked for; the system's.
    pub fn create(path: &Path, meta: &Meta, options: WriterOptions) -> Result<Self, WriteError> {
        // A pipe would wait for a reader, and frames are not written in their order.
        if options.overwrite && std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Err(WriteError::Io {
                offset: 0,
                source: io::Error::new(ErrorKind::InvalidInput, "not a regular file"),
            });
        }
        let mut open = OpenOptions::new();
        open.write(true);
        if options.overwrite {
            open.create(true).truncate(true);
        } else {
            open.create_new(true);
        }
        let file = open.open(path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => WriteError::Exists,
            _ => WriteError::Io { offset: 0, source },
        })?;
        Self::new(file, meta, options)
    }
}

impl<O: Output> Writer<O> {
    /// Begins a trace in `output`, which must be empty.
    ///
    /// # Errors
    /// The output's.
    pub fn new(output: O, meta: &Meta, options: WriterOptions) -> Result<Self, WriteError> {
        let mut writer = Self {
            output,
            options,
            failed: false,
            offset: 0,
            frames: 0,
            headers_crc: 0,
            processes: 0,
            threads: Vec::new(),
            mappings: 0,
            blocks: 0,
            steps: 0,
            chunks: 0,
            executed: 0,
        };
        writer.append(&file_header())?;
        writer.frame(kind::META, 0, &meta.encode())?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Failed);
        }
        let offset = self.offset;
        if let Err(source) = self.output.append(bytes) {
            self.failed = true;
            // If this fails too, the half frame is found and named by the reader.
            let _ = self.output.truncate(offset);
            return Err(match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    WriteError::DiskFull { offset }
                }
                _ => WriteError::Io { offset, source },
            });
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn frame(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Result<(), WriteError> {
        if payload.len() > MAX_PAYLOAD as usize {
            return Err(WriteError::Oversized {
                what: "frame",
                size: payload.len() as u64,
                limit: MAX_PAYLOAD.into(),
            });
        }
        let bytes = frame(kind, flags, payload);
        self.append(&bytes)?;
        self.frames += 1;
        self.headers_crc = crc32c::crc32c_append(self.headers_crc, &bytes[..SUMMED_HEADER]);
        Ok(())
    }

    /// Adds a process.
    ///
    /// # Errors
    /// The output's.
    pub fn add_process(&mut self, process: &Process) -> Result<ProcessIndex, WriteError> {
        let index = self.processes;
        self.frame(kind::PROCESS, 0, &process.encode(index))?;
        self.processes += 1;
        Ok(ProcessIndex(index))
    }

    /// Adds a thread or vCPU of a process added before.
    ///
    /// # Errors
    /// No such process; the output's.
    pub fn add_thread(&mut self, thread: &Thread) -> Result<ThreadIndex, WriteError> {
        self.known_process(thread.process)?;
        let index = self.threads.len() as u32;
        self.frame(kind::THREAD, 0, &thread.encode(index))?;
        self.threads.push(ThreadState::default());
        Ok(ThreadIndex(index))
    }

    /// Adds a mapping of a process added before.
    ///
    /// # Errors
    /// No such process; a build-id above 64 bytes; the output's.
    pub fn add_mapping(&mut self, mapping: &Mapping) -> Result<(), WriteError> {
        self.known_process(mapping.process)?;
        if mapping.build_id.len() > super::meta::MAX_BUILD_ID {
            return Err(WriteError::Oversized {
                what: "build-id",
                size: mapping.build_id.len() as u64,
                limit: super::meta::MAX_BUILD_ID as u64,
            });
        }
        self.frame(kind::MAPPING, 0, &mapping.encode())?;
        self.mappings += 1;
        Ok(())
    }

    fn known_process(&self, process: ProcessIndex) -> Result<(), WriteError> {
        if process.0 < self.processes {
            return Ok(());
        }
        Err(WriteError::NoSuch {
            what: "process",
            index: process.0.into(),
            count: self.processes.into(),
        })
    }

    /// Adds the kernel's symbols, in the form of `/proc/kallsyms`. A later call replaces them.
    ///
    /// # Errors
    /// More than 64 MiB of text; the output's.
    pub fn add_symbols(&mut self, kallsyms: &str) -> Result<(), WriteError> {
        if kallsyms.len() > MAX_SYMBOLS as usize {
            return Err(WriteError::Oversized {
                what: "kernel symbols",
                size: kallsyms.len() as u64,
                limit: MAX_SYMBOLS.into(),
            });
        }
        let mut payload = (kallsyms.len() as u32).to_le_bytes().to_vec();
        payload.extend(compress(self.options.code_level, kallsyms.as_bytes())?);
        self.frame(kind::SYMBOLS, OPTIONAL, &payload)
    }

    /// Adds the functions that ran, by ascending path and build-id. A later call replaces them.
    ///
    /// # Errors
    /// [`WriteError::Malformed`]: not in order, or fields that contradict each other; more than
    /// 16 MiB of them; the output's.
    pub fn add_functions(&mut self, files: &[FileFunctions]) -> Result<(), WriteError> {
        let payload = encode_functions(files, self.options.code_level)?;
        self.frame(kind::FUNCTIONS, OPTIONAL, &payload)
    }

    /// Writes the blocks and steps of `code` that were not written yet. `code` must be the same
    /// table each time, grown only.
    ///
    /// # Errors
    /// The output's.
    pub fn sync_code(&mut self, code: &Code) -> Result<(), WriteError> {
        let level = self.options.code_level;
        while (self.blocks as usize) < code.blocks().len() {
            let (payload, count) = encode_blocks(code, self.blocks as usize, level)?;
            self.frame(kind::BLOCKS, 0, &payload)?;
            self.blocks += count as u32;
        }
        while (self.steps as usize) < code.steps().len() {
            let (payload, count) = encode_steps(code, self.steps as usize, level)?;
            self.frame(kind::STEPS, 0, &payload)?;
            self.steps += count as u32;
        }
        Ok(())
    }

    /// Writes a chunk. The chunks of one thread must come in the order of execution, and the
    /// steps must have been written; returns the number of the chunk in the file.
    ///
    /// # Errors
    /// Unknown thread or steps; the output's.
    pub fn write_chunk(&mut self, chunk: &EncodedChunk) -> Result<u32, WriteError> {
        if chunk.steps_needed > self.steps {
            return Err(WriteError::NoSuch {
                what: "step",
                index: u64::from(chunk.steps_needed) - 1,
                count: self.steps.into(),
            });
        }
        let thread = chunk.header.thread.0 as usize;
        let Some(state) = self.threads.get_mut(thread) else {
            return Err(WriteError::NoSuch {
                what: "thread",
                index: thread as u64,
                count: self.threads.len() as u64,
            });
        };
        let header = ChunkHeader {
            ordinal: state.chunks,
            first_instruction: state.instructions,
            ..chunk.header
        };
        let mut payload = Vec::with_capacity(CHUNK_HEADER + chunk.body.len());
        header.encode(&mut payload);
        payload.extend_from_slice(&chunk.body);
        self.frame(kind::CHUNK, 0, &payload)?;
        let state = &mut self.threads[thread];
        state.chunks += 1;
        state.instructions += header.counts.instructions.total();
        self.executed += u64::from(header.steps);
        let index = self.chunks;
        self.chunks += 1;
        for (tag, tail) in &chunk.sides {
            let mut payload = index.to_le_bytes().to_vec();
            payload.extend_from_slice(&tag.to_le_bytes());
            payload.extend_from_slice(tail);
            self.frame(kind::SIDE, OPTIONAL, &payload)?;
        }
        Ok(index)
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.offset
    }

    /// Chunks written so far: the number the next one gets.
    #[must_use]
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The output as it is, without an end frame.
    #[must_use]
    pub fn into_output(self) -> O {
        self.output
    }

    /// Writes the end frame and gives the output back. `notes` say what is to be known about the
    /// end: why it came early, what was lost.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self, notes: &[(String, String)]) -> Result<O, WriteError> {
        let mut payload = Vec::new();
        put_varint(&mut payload, self.frames);
        payload.extend_from_slice(&self.headers_crc.to_le_bytes());
        let instructions: u64 = self.threads.iter().map(|t| t.instructions).sum();
        for total in [
            self.processes.into(),
            self.threads.len() as u64,
            self.mappings.into(),
            self.blocks.into(),
            self.steps.into(),
            self.chunks.into(),
            self.executed,
            instructions,
        ] {
            put_varint(&mut payload, total);
        }
        let mut text = Vec::new();
        put_notes(&mut text, notes);
        put_bytes(&mut payload, &text);
        self.frame(kind::END, 0, &payload)?;
        Ok(self.output)
    }
}
