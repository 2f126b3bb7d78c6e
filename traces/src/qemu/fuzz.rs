//! Plugins that send anything: over the socket and through the ring.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use vlbr_fuzz::{Form, folder, throw};

use super::blocks::{BlockTable, RawBlock};
use super::connection::{Lifetime, Received, Shared, receive, serve};
use super::protocol::{
    HELLO_FORK, HELLO_REGISTERS, HELLO_SYSTEM, Message, RING_CURSOR, RING_DATA, RING_HEADER,
    STAGE_WORDS, VERSION, encode,
};
use super::ring::Ring;
use super::session::Progress;
use super::sink::{
    Batch, ProcessEnd, ProcessId, ProcessInfo, Sink, StreamEnd, StreamId, StreamInfo, StreamSink,
};
use super::{Mapping, SinkError, maps, stream};

/// Words of a ring here.
const WORDS: u32 = 64;

/// A message of the plugin.
fn frame(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode(kind, [0; 3], None);
    frame.truncate(8);
    frame[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn text(text: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[text.len() as u32]);
    bytes.extend_from_slice(text);
    bytes
}

fn hello(flags: u32) -> Vec<u8> {
    // No process has this number.
    let pid = u32::MAX;
    let mut payload = words(&[VERSION, flags, pid, 1, 4, 0, 0, u32::MAX]);
    for part in [&b"x86_64"[..], b"/bin/true", b"true\0-x\0"] {
        payload.extend(text(part));
    }
    frame(1, &payload)
}

fn block(id: u32, start: u64, mode: Option<(u32, u64)>, sizes: &[u8], code: &[u8]) -> Vec<u8> {
    let mut payload = words(&[id]);
    payload.extend(start.to_le_bytes());
    payload.extend(words(&[u32::from(mode.is_some()), sizes.len() as u32]));
    if let Some((cs, cr0)) = mode {
        payload.extend(words(&[cs, 2]));
        for register in [cr0, 0x1000, 0xd00] {
            payload.extend(register.to_le_bytes());
        }
    }
    payload.extend_from_slice(sizes);
    payload.extend_from_slice(code);
    frame(2, &payload)
}

/// Control connections: of a program, and of a machine.
pub(crate) fn controls() -> Vec<Vec<u8>> {
    let maps = b"00001000-00003000 r--p 00000000 fe:01 77      /bin/true\n\
        7f0000000000-7f0000001000 r-xp 00002000 fe:01 78   /lib/x.so\n";
    let program = [
        hello(0),
        frame(3, maps),
        block(0, 0x1000, None, &[1, 2], &[0x90, 0x75, 0xfd]),
        block(1, 0x1003, None, &[1, 2], &[0x90, 0x0f, 0x05]),
        block(2, 0x1006, None, &[1, 2], &[0x90, 0xf3, 0xa4]),
        block(3, 0x1007, None, &[2], &[0xf3, 0xa4]),
        block(4, 0x1009, None, &[1], &[0xc3]),
        frame(4, &words(&[0, 10])),
        frame(9, &text(b"something")),
        frame(5, &text(b"/bin/false")),
        frame(6, &words(&[2])),
        frame(4, &words(&[1, 11])),
        frame(7, &words(&[0])),
    ];
    let kernel = Some((0x10, 0x8000_0011));
    let user = Some((0x33, 0x8000_0011));
    let machine = [
        hello(HELLO_SYSTEM | HELLO_REGISTERS),
        block(
            0,
            0xffff_fff0,
            Some((0xf000, 0x10)),
            &[5],
            &[0xea, 0x5b, 0xe0, 0, 0xf0],
        ),
        block(
            1,
            0xffff_ffff_8100_0000,
            kernel,
            &[1, 2],
            &[0x90, 0x0f, 0x32],
        ),
        block(
            2,
            0xffff_ffff_8100_0003,
            kernel,
            &[1, 2],
            &[0x90, 0x48, 0xcf],
        ),
        block(3, 0x1000, user, &[1, 2], &[0x90, 0xcd, 0x80]),
        block(4, 0xffff_ffff_8100_0006, kernel, &[2], &[0xec, 0xc3]),
        frame(4, &words(&[0, 10])),
        frame(8, &[]),
    ];
    vec![program.concat(), machine.concat()]
}

/// A ring in short: cursor, end and address of the stage, words written, what the stage follows;
/// the words in the stage, the words in the ring.
fn ring(in_ring: &[u32], in_stage: &[u32]) -> Vec<u8> {
    let stage = 0x7000_0000_0000_u64;
    let written = in_ring.len() as u64;
    let mut image = Vec::new();
    for field in [
        stage + 4 * in_stage.len() as u64,
        stage + 4 * STAGE_WORDS,
        stage,
        written,
        written,
    ] {
        image.extend_from_slice(&field.to_le_bytes());
    }
    image.extend(text(&words(in_stage)));
    image.extend(words(in_ring));
    image
}

/// Rings that go with [`controls`].
pub(crate) fn rings() -> Vec<Vec<u8>> {
    const TAG: u32 = 1 << 31;
    let load = TAG | 3;
    let store = TAG | 1 << 16 | 1 << 4 | 2;
    let program = ring(
        &[
            0, 0, store, 0x10, 0, 0, 1, load, 8, 0, 2, 3, load, 9, 0, 3, 4, 0, 1,
        ],
        &[2, 3, 4, 1],
    );
    let (before, after, cr3, event, late) = (1 << 28, 2 << 28, 3 << 28, 4 << 28, 5 << 28);
    let machine = ring(
        &[
            0,
            1,
            TAG | before | 1 << 16 | 1,
            0,
            0x1d9,
            0,
            0,
            TAG | after,
            5,
            0,
            0,
            0,
            2,
            TAG | cr3,
            0x2000,
            0,
            3,
            TAG | event | 1,
            0x1000,
            0,
            0x8100_0000,
            0xffff_ffff,
            1,
            2,
            3,
        ],
        &[
            4,
            TAG | before | 1 << 8 | 4,
            0,
            0,
            0x71,
            0x71,
            1,
            TAG | late,
            5,
            0,
            0,
            0,
            2,
            3,
        ],
    );
    vec![program, machine]
}

/// Sends `frames` and hangs up. The result is what was lost, or `None` if the sink failed.
fn connect<S: Sink>(sink: &S, directory: &Path, frames: &[u8]) -> Option<usize> {
    let progress = Progress::default();
    let shared = Shared::new(sink, &progress, directory, WORDS);
    std::thread::scope(|scope| {
        let (mut plugin, recorder) = UnixStream::pair().expect("a pair of sockets");
        let shared = &shared;
        scope.spawn(move || serve(scope, shared, recorder));
        // The recorder may have hung up already.
        let _ = plugin.write_all(frames);
        drop(plugin);
        shared.close();
    });
    let lost = shared.take_losses().len();
    shared.take_failure().is_none().then_some(lost)
}

/// What the recorder takes of `frames`; whether it is all.
pub(crate) fn messages<S: Sink>(sink: &S, frames: &[u8]) -> (Vec<Arc<RawBlock>>, bool) {
    let mut blocks = Vec::new();
    let mut rest = frames;
    loop {
        match receive(&mut rest) {
            Ok(Received::Message(Message::Block { block, .. })) => blocks.push(Arc::new(block)),
            Ok(Received::Message(Message::Mappings(text))) => {
                let done = sink.mappings(ProcessId(0), &maps::parse(&text));
                done.expect("a sink that takes mappings");
            }
            Ok(Received::Message(_)) => {}
            Ok(Received::End) => return (blocks, rest.is_empty()),
            Ok(Received::Malformed) | Err(_) => return (blocks, false),
        }
    }
}

/// Reads a ring as [`ring`] states it to its end. Whether it made sense and the sink took it.
pub(crate) fn read_ring<S: Sink>(
    sink: &S,
    directory: &Path,
    blocks: &[Arc<RawBlock>],
    image: &[u8],
) -> bool {
    let path = directory.join("ring");
    let ring = Ring::create(&path, WORDS).expect("a ring");
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the ring");
    let write = |bytes: &[u8], offset: u64, room: u64| {
        let bytes = &bytes[..bytes.len().min(room as usize)];
        file.write_all_at(bytes, offset).expect("written");
    };
    let (header, rest) = image.split_at(image.len().min(40));
    write(header, RING_CURSOR, 40);
    let (length, rest) = rest.split_at(rest.len().min(4));
    let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
    let (stage, words) = rest.split_at(rest.len().min(length));
    write(stage, RING_HEADER, 4 * STAGE_WORDS);
    write(words, RING_DATA, 4 * u64::from(WORDS));
    drop(file);
    let table = BlockTable::new(blocks.to_vec());
    table.close();
    let lifetime = Lifetime::default();
    lifetime.end(ProcessEnd::Exited(0));
    let info = StreamInfo {
        id: StreamId(0),
        process: ProcessId(0),
        vcpu: 0,
        tid: 10,
    };
    let progress = Progress::default();
    let shared = Shared::new(sink, &progress, directory, WORDS);
    stream::run(&shared, &info, ring, &table, &lifetime);
    shared.take_failure().is_none() && shared.take_losses().is_empty()
}

/// Checks what is delivered against what [`Sink`] promises.
struct Checker;

impl Sink for Checker {
    type Stream = Checker;

    fn process(&self, _: &ProcessInfo) -> Result<(), SinkError> {
        Ok(())
    }

    fn mappings(&self, _: ProcessId, mappings: &[Mapping]) -> Result<(), SinkError> {
        let fine = |mapping: &Mapping| mapping.start < mapping.end && !mapping.path.is_empty();
        assert!(mappings.iter().all(fine), "{mappings:?}");
        Ok(())
    }

    fn stream(&self, _: &StreamInfo) -> Result<Checker, SinkError> {
        Ok(Checker)
    }

    fn process_end(&self, _: ProcessId, _: ProcessEnd) -> Result<(), SinkError> {
        Ok(())
    }
}

impl StreamSink for Checker {
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let known = batch.blocks.len();
        assert!(batch.ids.iter().all(|&id| (id as usize) < known));
        let memory = batch.memory.iter().map(|access| access.preceding);
        let events = batch.events.iter().map(|event| event.preceding);
        for preceding in [memory.collect::<Vec<_>>(), events.collect()] {
            assert!(preceding.is_sorted());
            assert!(preceding.iter().all(|&p| p as usize <= batch.ids.len()));
        }
        Ok(())
    }

    fn end(self, _: StreamEnd) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn fuzz_control_frames() {
    let tally = throw(
        "control frames",
        10_000,
        Form::Binary,
        &controls(),
        |bytes| {
            let (blocks, whole) = messages(&Checker, bytes);
            for block in blocks {
                let length: usize = block.sizes.iter().map(|&size| usize::from(size)).sum();
                assert!(length == block.bytes.len() && block.instructions() > 0);
            }
            whole
        },
    );
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_control_connection() {
    let folder = folder();
    let mut seeds = controls();
    seeds.push([hello(HELLO_FORK), frame(7, &words(&[1]))].concat());
    seeds.push([hello(0), frame(8, &[])].concat());
    let tally = throw("control connection", 500, Form::Binary, &seeds, |bytes| {
        connect(&Checker, folder.path(), bytes).is_some()
    });
    assert!(tally.taken > 0);
}

#[test]
fn fuzz_ring() {
    let folder = folder();
    let block = |id: u64| {
        Arc::new(RawBlock {
            start: id,
            sizes: [1].into(),
            bytes: [0x90].into(),
            mode: None,
        })
    };
    let blocks: Vec<_> = (0..5).map(block).collect();
    let tally = throw("ring", 2000, Form::Binary, &rings(), |bytes| {
        read_ring(&Checker, folder.path(), &blocks, bytes)
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
