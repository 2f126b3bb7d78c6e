//! A generated trace as a file.

use thiserror::Error;
use vlbr_cpu::{BlockError, Code, CodeError};

use super::check::SpecError;
use super::layout::USER_BASE;
use super::measure::{Measure, Measured};
use super::program::Program;
use super::schedule::Rates;
use super::spec::Spec;
use super::walk::{Executed, Shared, Walk};
use crate::synthetic::Rng;
use crate::vlt::{
    ChunkEncoder, Mapping, MappingFlags, Meta, Output, Process, ProcessStart, Scope, SideStreams,
    Thread, ThreadIndex, WriteError, Writer, WriterOptions,
};

/// Instructions of a chunk, which is what is in memory at once.
const CHUNK: u64 = 1_000_000;

/// Why a trace was not generated.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// The spec asks for what cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The code cannot be laid out.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The code table is full.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The output failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What was generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// Instructions of all threads.
    pub instructions: u64,
    /// Blocks that ran.
    pub blocks: u64,
    /// Bytes of the trace.
    pub bytes: u64,
}

/// Runs every thread of `spec` in turn, a chunk at a time, and hands `each` what ran.
fn run(
    spec: &Spec,
    program: &Program,
    each: &mut dyn FnMut(usize, &Code, &Executed) -> Result<(), GenerateError>,
) -> Result<(), GenerateError> {
    let rates = Rates::new(spec, &program.kinds);
    let mut seeds = Rng::new(!spec.seed);
    let mut walks: Vec<Walk> = (0..spec.threads)
        .map(|_| Walk::new(program, &rates, seeds.next()))
        .collect();
    let mut shared = Shared::new(program);
    let mut executed = Executed::default();
    let mut left = spec.instructions;
    while left > 0 {
        let now = left.min(CHUNK);
        for (number, walk) in walks.iter_mut().enumerate() {
            executed.clear();
            while executed.instructions < now {
                walk.advance(&mut shared, &mut executed)?;
            }
            each(number, shared.interner.code(), &executed)?;
        }
        left -= now;
    }
    Ok(())
}

/// Writes a trace of `spec` to `output`, chunks compressed at `level` (1 to 19). `progress` is told
/// the instructions done.
///
/// # Errors
/// See [`GenerateError`].
pub fn generate<O: Output>(
    spec: &Spec,
    output: O,
    level: i32,
    progress: &mut dyn FnMut(u64),
) -> Result<(O, Generated), GenerateError> {
    spec.check()?;
    let program = Program::build(spec)?;
    let system = spec.kernel.is_some();
    let options = WriterOptions {
        code_level: level,
        ..WriterOptions::default()
    };
    let mut writer = Writer::new(output, &meta(spec), options)?;
    let process = writer.add_process(&Process {
        pid: 1,
        start: match system {
            true => ProcessStart::System,
            false => ProcessStart::Initial,
        },
        path: if system {
            "".into()
        } else {
            (&spec.name).into()
        },
        command_line: vec![(&spec.name).into()],
        ..Process::default()
    })?;
    if !system {
        writer.add_mapping(&Mapping {
            process,
            start: USER_BASE,
            length: program.user_end - USER_BASE,
            flags: MappingFlags {
                read: true,
                execute: true,
                ..MappingFlags::default()
            },
            path: (&spec.name).into(),
            ..Mapping::default()
        })?;
    }
    if !program.symbols.is_empty() {
        writer.add_symbols(&program.symbols)?;
    }
    for number in 0..spec.threads {
        writer.add_thread(&Thread {
            process,
            tid: if system { number } else { number + 1 },
            vcpu: system.then_some(number),
            name: spec.name.chars().take(15).collect(),
        })?;
    }
    let mut encoder = ChunkEncoder::new(level);
    let mut generated = Generated::default();
    run(spec, &program, &mut |thread, code, executed| {
        writer.sync_code(code)?;
        let sides = SideStreams {
            machine: &executed.machine,
            ..SideStreams::default()
        };
        let thread = ThreadIndex(thread as u32);
        writer.write_chunk(&encoder.encode(thread, &executed.steps, code, &sides)?)?;
        generated.instructions += executed.instructions;
        generated.blocks = code.blocks().len() as u64;
        progress(generated.instructions);
        Ok(())
    })?;
    generated.bytes = writer.size();
    Ok((writer.finish(&[])?, generated))
}

fn meta(spec: &Spec) -> Meta {
    let note = |name: &str, value: String| (name.to_owned(), value);
    Meta {
        recorder: concat!("vlbr ", env!("CARGO_PKG_VERSION")).into(),
        engine: "synthetic".into(),
        arch: "x86_64".into(),
        scope: match spec.kernel {
            Some(_) => Scope::System,
            None => Scope::User,
        },
        command_line: vec![(&spec.name).into()],
        notes: vec![
            note("synthetic", "generated from a spec, not recorded".into()),
            note("spec", spec.name.clone()),
            note("spec sha256", spec.digest()),
            note("seed", spec.seed.to_string()),
        ],
        ..Meta::default()
    }
}

/// What a trace of `spec` would measure, without writing it.
///
/// # Errors
/// As [`generate`].
pub fn measure_spec(spec: &Spec, progress: &mut dyn FnMut(u64)) -> Result<Measured, GenerateError> {
    spec.check()?;
    let program = Program::build(spec)?;
    let mut measure = Measure::new(spec.threads as usize);
    let mut done = 0;
    run(spec, &program, &mut |thread, code, executed| {
        measure.add(thread, code, executed.steps.iter().copied());
        done += executed.instructions;
        progress(done);
        Ok(())
    })?;
    Ok(measure.finish())
}
