//! Throws damaged files at the reader. Runs on stable Rust, in memory, as long as one likes.

use vlbr_cpu::CodeError;

use super::chunk::CHUNK_HEADER;
use super::error::{VltError, WriteError};
use super::frame::{FILE_HEADER, FRAME_HEADER, FrameHeader, frame, kind};
use super::packed::{compress, decompress};
use super::{
    ChunkBuffer, CodeSegment, FileFunctions, FileState, Function, MachineAccess, MemoryAccess,
    Meta, OpenOptions, Position, Process, SideBuffer, SideStreams, Thread, Timestamp, Trace,
    Writer, WriterOptions, encode_chunk,
};
use crate::symbols::ElfImage;
use crate::synthetic::{Rng, Synthetic, SyntheticConfig};

/// Different files that mutations start from.
const SEEDS: u64 = 6;
/// Largest decompressed part that is mutated.
const MAX_PART: u32 = 1 << 20;
/// Memory for code while fuzzing.
const MEMORY_LIMIT: u64 = 1 << 24;

/// What became of the inputs. None of the outcomes is a fault; faults are panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuzzReport {
    /// Inputs tried.
    pub inputs: u64,
    /// Refused with nothing to salvage.
    pub refused: u64,
    /// Damaged, with a usable beginning.
    pub salvaged: u64,
    /// Opened without complaint.
    pub opened: u64,
    /// Chunks decoded.
    pub chunks: u64,
    /// Chunks refused when decoded or checked against their counts.
    pub chunks_refused: u64,
}

/// Feeds `iterations` mutations of valid files to the reader, the same ones for the same `seed`,
/// and decodes all that it lets through. Half of them have right checksums around wrong content.
///
/// # Panics
/// If the reader has a fault: a reference outside what it refers to.
///
/// # Errors
/// The valid files could not be made.
pub fn fuzz_reader(seed: u64, iterations: u64) -> Result<FuzzReport, FuzzError> {
    let seeds = (0..SEEDS).map(seed_file).collect::<Result<Vec<_>, _>>()?;
    let mut rng = Rng::new(seed);
    let mut report = FuzzReport::default();
    let mut buffer = ChunkBuffer::new();
    for _ in 0..iterations {
        let mut bytes = seeds[rng.below(seeds.len())].clone();
        for _ in 0..1 + rng.below(3) {
            mutate(&mut bytes, &mut rng);
        }
        run_one(bytes, &mut buffer, &mut report);
    }
    Ok(report)
}

/// Why fuzzing could not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a file to start from: {0}")]
pub enum FuzzError {
    /// The generator failed.
    Generate(#[from] CodeError),
    /// The writer failed.
    Write(#[from] WriteError),
}

/// Opens `bytes` and decodes everything in it.
fn run_one(bytes: Vec<u8>, buffer: &mut ChunkBuffer, report: &mut FuzzReport) {
    report.inputs += 1;
    let options = OpenOptions {
        salvage: true,
        memory_limit: MEMORY_LIMIT,
        check_chunks: bytes.len().is_multiple_of(2),
    };
    let size = bytes.len() as u64;
    let Ok(trace) = Trace::from_bytes(bytes, options) else {
        report.refused += 1;
        return;
    };
    match trace.damage() {
        None => report.opened += 1,
        Some(damage) => {
            assert!(damage.offset <= size, "{damage} in a file of {size} bytes");
            report.salvaged += 1;
        }
    }
    for file in trace.functions().unwrap_or_default() {
        let image = ElfImage::from_functions(file);
        for function in &file.functions {
            assert!(image.lookup(function.address).is_some());
        }
    }
    for index in 0..trace.chunks().len() {
        let result = decode_all(&trace, index, buffer);
        match result {
            Ok(()) => report.chunks += 1,
            Err(error) => {
                assert!(error.offset <= size);
                report.chunks_refused += 1;
            }
        }
    }
}

fn decode_all(trace: &Trace, index: usize, buffer: &mut ChunkBuffer) -> Result<(), VltError> {
    trace.check_chunk(index, buffer)?;
    let chunk = trace.decode(index, buffer)?;
    for step in chunk.steps() {
        // Panics if the reader let a wrong id through.
        let _ = trace.code().block_of(step);
    }
    let mut side = SideBuffer::default();
    trace.machine_accesses(index, &mut side)?;
    trace.timestamps(index, &mut side)?;
    if let Some(accesses) = trace.memory_accesses(index, &chunk, &mut side)? {
        for access in accesses.map_while(Result::ok) {
            let _ = chunk.map[chunk.ids.local(access.position.step as usize)];
        }
    }
    Ok(())
}

/// A small valid file.
fn seed_file(seed: u64) -> Result<Vec<u8>, FuzzError> {
    let config = SyntheticConfig {
        functions: 4,
        blocks_per_function: 5,
        one_in_interrupted: 20,
        ..SyntheticConfig::with_seed(seed)
    };
    let mut program = Synthetic::new(&config)?;
    let meta = Meta {
        recorder: "fuzz".into(),
        notes: vec![("seed".into(), seed.to_string())],
        ..Meta::default()
    };
    let mut writer = Writer::new(
        Vec::new(),
        &meta,
        WriterOptions {
            code_level: 1,
            ..Default::default()
        },
    )?;
    let process = writer.add_process(&Process::default())?;
    let thread = writer.add_thread(&Thread {
        process,
        tid: 1,
        vcpu: Some(0),
        name: "t".into(),
    })?;
    writer.add_symbols("0 T start\n")?;
    writer.add_functions(&functions(seed))?;
    for turn in 0..2 {
        let steps = program.run(0, 100 << seed)?;
        let position = Position {
            step: 1,
            instruction: 0,
        };
        let memory = [MemoryAccess {
            position,
            address: seed << 40,
            size_log2: 3,
            store: true,
        }];
        let machine = [(
            position,
            MachineAccess::ReadMsr {
                msr: 0x10,
                value: Some(seed),
            },
        )];
        let times = [Timestamp {
            step: 0,
            nanoseconds: seed,
        }];
        let sides = SideStreams {
            memory: &memory,
            machine: &machine,
            times: &times,
        };
        writer.sync_code(program.code())?;
        let sides = if turn == 0 {
            sides
        } else {
            SideStreams::default()
        };
        writer.write_chunk(&encode_chunk(thread, &steps, program.code(), &sides, 1)?)?;
    }
    Ok(writer.finish(&[])?)
}

/// A file without build-id and with functions, and one that was not there.
fn functions(seed: u64) -> Vec<FileFunctions> {
    let function = |number: u64| Function {
        address: 0x1000 + number * 0x20 * (seed + 1),
        size: 0x10 + number,
        name: format!("function{number}").into_bytes(),
    };
    let read = FileFunctions {
        path: "/bin/a".into(),
        segments: vec![CodeSegment {
            address: 0x1000,
            offset: 0x400,
            size: 0x1000,
        }],
        functions: (0..4 + seed).map(function).collect(),
        ..FileFunctions::default()
    };
    let missing = FileFunctions {
        path: "/bin/b".into(),
        build_id: vec![seed as u8; 20],
        state: FileState::Unreadable,
        ..FileFunctions::default()
    };
    vec![read, missing]
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    match rng.below(10) {
        0 => scramble(bytes, rng),
        1 => {
            let size = rng.below(bytes.len());
            bytes.truncate(size);
        }
        2..=5 => with_frame(bytes, rng, |_, payload, rng| {
            scramble(payload, rng);
            Some(())
        }),
        6..=8 => with_frame(bytes, rng, mutate_packed),
        _ => {
            // A frame doubled, removed or moved.
            let all = frames(bytes);
            let (Some(&(from, end)), Some(&(to, _))) =
                (all.get(rng.below(all.len())), all.get(rng.below(all.len())))
            else {
                return;
            };
            let copy = bytes[from..end].to_vec();
            if rng.one_in(2) {
                bytes.drain(from..end);
            }
            let to = to.min(bytes.len());
            bytes.splice(to..to, copy);
        }
    }
}

/// Changes some bytes: flips, extremes, insertions, removals.
fn scramble(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 => bytes.insert(at, rng.next() as u8),
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 if at + 4 <= bytes.len() => {
                let number = [0, 1, u32::MAX, 1 << 22, 1 << 26, 1 << 31][rng.below(6)];
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
}

/// Start and end of each frame, as far as they can be followed.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    let mut at = FILE_HEADER;
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let Ok(header) = FrameHeader::decode(header) else {
            break;
        };
        let end = at + FRAME_HEADER + header.length as usize;
        if end > bytes.len() {
            break;
        }
        all.push((at, end));
        at = end;
    }
    all
}

/// Replaces the payload of one frame by a mutated one and makes its checksums right.
fn with_frame(
    bytes: &mut Vec<u8>,
    rng: &mut Rng,
    change: impl Fn(u16, &mut Vec<u8>, &mut Rng) -> Option<()>,
) {
    let all = frames(bytes);
    let Some(&(start, end)) = all.get(rng.below(all.len())) else {
        return;
    };
    let kind = u16::from_le_bytes([bytes[start], bytes[start + 1]]);
    let flags = u16::from_le_bytes([bytes[start + 2], bytes[start + 3]]);
    let mut payload = bytes[start + FRAME_HEADER..end].to_vec();
    if change(kind, &mut payload, rng).is_some() {
        bytes.splice(start..end, frame(kind, flags, &payload));
    }
}

/// Unpacks the compressed part of a payload, changes it and packs it again; `None` if it cannot.
fn mutate_packed(kind: u16, payload: &mut Vec<u8>, rng: &mut Rng) -> Option<()> {
    let number = |payload: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(*payload.get(at..)?.first_chunk()?))
    };
    // Where the sizes are stated, raw and stored; where the compressed part begins and ends.
    let (size_at, stored_at, start, end) = match kind {
        kind::BLOCKS | kind::STEPS => (8, None, 12, payload.len()),
        kind::SIDE => (12, None, 16, payload.len()),
        kind::SYMBOLS | kind::FUNCTIONS => (0, None, 4, payload.len()),
        kind::CHUNK => {
            let stored_at = CHUNK_HEADER - 8;
            let map_end = CHUNK_HEADER + number(payload, stored_at)? as usize;
            let mut part = (CHUNK_HEADER - 4, Some(stored_at), CHUNK_HEADER, map_end);
            // The map or one of the sequence's columns.
            for _ in 0..rng.below(4) {
                let size_at = part.3;
                let (stored_at, start) = (size_at + 4, size_at + 8);
                let stored = number(payload, stored_at)? as usize;
                part = (size_at, Some(stored_at), start, start + stored);
            }
            part
        }
        _ => return None,
    };
    let size = number(payload, size_at)?;
    let mut raw = decompress("part", payload.get(start..end)?, size, MAX_PART).ok()?;
    if rng.one_in(2) {
        scramble_in_place(&mut raw, rng);
    } else {
        scramble(&mut raw, rng);
    }
    let packed = compress(1, &raw).ok()?;
    if let Some(at) = stored_at {
        payload[at..at + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    }
    payload[size_at..size_at + 4].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    payload.splice(start..end, packed);
    Some(())
}

/// Changes bytes without moving any.
fn scramble_in_place(bytes: &mut [u8], rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
    }
}
