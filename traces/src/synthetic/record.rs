//! A synthetic trace as a file.

use thiserror::Error;
use vlbr_arch::CodeSize;
use vlbr_cpu::CodeError;

use super::{Synthetic, SyntheticConfig};
use crate::vlt::{
    CHUNK_INSTRUCTIONS, ChunkEncoder, Mapping, MappingFlags, Meta, Output, Process,
    RECORDING_LEVEL, SideStreams, Thread, WriteError, Writer, WriterOptions,
};

/// Why a synthetic trace was not written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The code table is full.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The output failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes a trace of at least `instructions` instructions of each thread to `output`, in chunks
/// of about `chunk` instructions ([`CHUNK_INSTRUCTIONS`] at most).
///
/// # Errors
/// See [`RecordError`].
pub fn record<O: Output>(
    config: &SyntheticConfig,
    instructions: u64,
    chunk: u64,
    output: O,
) -> Result<O, RecordError> {
    let mut program = Synthetic::new(config)?;
    let meta = Meta {
        recorder: concat!("vlbr ", env!("CARGO_PKG_VERSION")).into(),
        engine: "synthetic".into(),
        arch: match config.code_size {
            CodeSize::Bits64 => "x86_64".into(),
            CodeSize::Bits16 | CodeSize::Bits32 => "i386".into(),
        },
        notes: vec![("seed".into(), config.seed.to_string())],
        ..Meta::default()
    };
    let mut writer = Writer::new(output, &meta, WriterOptions::default())?;
    let process = writer.add_process(&Process {
        pid: 1,
        path: "synthetic".into(),
        ..Process::default()
    })?;
    writer.add_mapping(&Mapping {
        process,
        start: program.user_code().start,
        length: program.user_code().end - program.user_code().start,
        flags: MappingFlags {
            read: true,
            execute: true,
            ..MappingFlags::default()
        },
        path: "synthetic".into(),
        ..Mapping::default()
    })?;
    let mut threads = Vec::new();
    for number in 0..program.threads() as u32 {
        threads.push(writer.add_thread(&Thread {
            process,
            tid: number + 1,
            vcpu: None,
            name: "synthetic".into(),
        })?);
    }
    let mut encoder = ChunkEncoder::new(RECORDING_LEVEL);
    // A step can retire a few instructions more than are asked for.
    let chunk = chunk.clamp(1, CHUNK_INSTRUCTIONS - 1000);
    let mut left = instructions;
    while left > 0 {
        let now = left.min(chunk);
        for (number, &thread) in threads.iter().enumerate() {
            let steps = program.run(number, now)?;
            writer.sync_code(program.code())?;
            let sides = SideStreams::default();
            writer.write_chunk(&encoder.encode(thread, &steps, program.code(), &sides)?)?;
        }
        left -= now;
    }
    Ok(writer.finish(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlt::{ChunkBuffer, OpenOptions, Trace};

    #[test]
    fn the_file_holds_what_was_asked_for() {
        let config = SyntheticConfig {
            threads: 2,
            ..SyntheticConfig::default()
        };
        let bytes = record(&config, 100_000, 30_000, Vec::new()).unwrap();
        assert_eq!(bytes, record(&config, 100_000, 30_000, Vec::new()).unwrap());
        let trace = Trace::from_bytes(bytes, OpenOptions::default()).unwrap();
        assert_eq!(trace.chunks().len(), 8);
        assert!((200_000..202_000).contains(&trace.instructions()));
        let mut buffer = ChunkBuffer::new();
        for index in 0..8 {
            trace.check_chunk(index, &mut buffer).unwrap();
        }
        let mapping = &trace.mappings()[0];
        let code = trace.code();
        for block in code.blocks() {
            let user = block.mode().cpl == vlbr_arch::Cpl::Ring3;
            assert_eq!(mapping.contains(block.address()), user);
        }
    }
}
