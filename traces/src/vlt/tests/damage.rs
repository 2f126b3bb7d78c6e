use std::io;

use super::*;

/// Offsets of the frames, the end of the file last.
pub(super) fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = 32;
    let mut all = vec![at];
    while at < bytes.len() {
        let length: [u8; 4] = bytes[at + 4..at + 8].try_into().unwrap();
        at += 16 + u32::from_le_bytes(length) as usize;
        all.push(at);
    }
    all
}

/// Makes the checksums of the frame at `at` right again.
fn reseal(bytes: &mut [u8], at: usize) {
    let length: [u8; 4] = bytes[at + 4..at + 8].try_into().unwrap();
    let end = (at + 16 + u32::from_le_bytes(length) as usize).min(bytes.len());
    let payload = crc32c::crc32c(&bytes[at + 16..end]);
    bytes[at + 8..at + 12].copy_from_slice(&payload.to_le_bytes());
    let header = crc32c::crc32c(&bytes[at..at + 12]);
    bytes[at + 12..at + 16].copy_from_slice(&header.to_le_bytes());
}

fn refusal(bytes: &[u8]) -> VltError {
    open(bytes, false).expect_err("damage was not noticed")
}

#[test]
fn files_that_are_no_traces_are_told_apart() {
    assert!(matches!(refusal(b"").damage, Damage::Empty));
    assert!(matches!(refusal(b"PERFILE2").damage, Damage::WrongMagic));
    assert!(matches!(
        refusal(&b"\x89VLT\r\n\x1a\n\x01"[..]).damage,
        Damage::Truncated { .. }
    ));
    let mut version = sample(1, 500).bytes;
    version[8] = 9;
    let error = refusal(&version);
    assert!(matches!(
        error.damage,
        Damage::UnsupportedVersion { major: 9, .. }
    ));
    assert_eq!(
        error.to_string(),
        "offset 0x0: format version 9.0 is not supported, this reader knows major 1"
    );
}

#[test]
fn truncation_is_found_at_every_frame_boundary_and_salvaged_up_to_there() {
    let sample = sample(2, 2_000);
    let all = boundaries(&sample.bytes);
    assert_eq!(*all.last().unwrap(), sample.bytes.len());
    let mut usable = 0;
    for (frame, &end) in all[..all.len() - 1].iter().enumerate() {
        let cut = &sample.bytes[..end];
        let error = refusal(cut);
        assert!(matches!(error.damage, Damage::Unfinished), "{error}");
        assert_eq!(error.offset, end as u64);
        // The first frame is the meta frame, without which nothing can be used.
        if frame == 0 {
            assert!(open(cut, true).is_err());
            continue;
        }
        let trace = open(cut, true).unwrap();
        assert!(trace.damage().is_some());
        assert!(trace.chunks().len() >= usable);
        usable = trace.chunks().len();
        let mut buffer = ChunkBuffer::new();
        for (index, (_, steps)) in sample.chunks[..usable].iter().enumerate() {
            let chunk = trace.decode(index, &mut buffer).unwrap();
            assert!(chunk.steps().eq(steps.iter().copied()));
        }
    }
    assert_eq!(usable, sample.chunks.len());
}

#[test]
fn truncation_inside_a_frame_names_the_frame() {
    let sample = sample(3, 500);
    let all = boundaries(&sample.bytes);
    for size in 33..sample.bytes.len() {
        if all.contains(&size) {
            continue;
        }
        let error = refusal(&sample.bytes[..size]);
        assert!(matches!(error.damage, Damage::Truncated { .. }));
        let frame = all.iter().rev().find(|&&b| b < size).unwrap();
        assert_eq!(error.offset, *frame as u64);
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sample = sample(4, 300);
    let mut bytes = sample.bytes;
    for at in 0..bytes.len() {
        let bit = 1 << (at % 8);
        bytes[at] ^= bit;
        assert!(open(&bytes, false).is_err(), "byte {at}");
        bytes[at] ^= bit;
    }
    assert!(open(&bytes, false).is_ok());
}

#[test]
fn lengths_beyond_the_limits_are_refused_before_allocating() {
    let sample = sample(5, 500);
    let mut bytes = sample.bytes;
    bytes[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut bytes, 32);
    assert!(matches!(
        refusal(&bytes).damage,
        Damage::Oversized {
            what: "frame payload",
            ..
        }
    ));
}

#[test]
fn missing_repeated_and_swapped_frames_are_noticed() {
    let sample = sample(6, 1_000);
    let all = boundaries(&sample.bytes);
    let frame = |index: usize| &sample.bytes[all[index]..all[index + 1]];
    let frames = all.len() - 1;
    let join = |order: &[usize]| {
        let mut bytes = sample.bytes[..32].to_vec();
        order
            .iter()
            .for_each(|&f| bytes.extend_from_slice(frame(f)));
        bytes
    };
    let order: Vec<usize> = (0..frames).collect();
    assert_eq!(join(&order), sample.bytes);
    for index in 0..frames {
        let mut missing = order.clone();
        missing.remove(index);
        assert!(open(&join(&missing), false).is_err(), "without {index}");
        let mut repeated = order.clone();
        repeated.insert(index, index);
        assert!(open(&join(&repeated), false).is_err(), "{index} twice");
        if index + 1 < frames {
            let mut swapped = order.clone();
            swapped.swap(index, index + 1);
            assert!(open(&join(&swapped), false).is_err(), "{index} swapped");
        }
    }
}

#[test]
fn unknown_frames_are_skipped_if_optional_and_refused_if_not() {
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    writer.add_process(&process()).unwrap();
    let empty = writer.finish(&[]).unwrap();
    let all = boundaries(&empty);
    // In front of the end frame, whose counts then do not fit: so salvage.
    let with = |flags: u16| {
        let at = all[all.len() - 2];
        let mut bytes = empty[..at].to_vec();
        bytes.extend(super::super::frame::frame(99, flags, b"later"));
        bytes
    };
    let trace = open(&with(1), true).unwrap();
    assert!(matches!(trace.damage().unwrap().damage, Damage::Unfinished));
    assert!(matches!(refusal(&with(0)).damage, Damage::UnknownFrame(99)));
}

#[test]
fn bytes_behind_the_end_are_noticed() {
    let mut bytes = sample(7, 500).bytes;
    bytes.push(0);
    assert!(matches!(refusal(&bytes).damage, Damage::TrailingData(1)));
}

#[test]
fn code_beyond_the_memory_limit_is_refused() {
    let sample = sample(8, 5_000);
    let options = OpenOptions {
        memory_limit: 10_000,
        ..OpenOptions::default()
    };
    let error = Trace::from_bytes(sample.bytes, options).unwrap_err();
    assert!(matches!(error.damage, Damage::MemoryLimit(10_000)));
}

#[test]
fn checksums_of_chunks_can_be_left_to_decoding() {
    let sample = sample(9, 2_000);
    let trace = open(&sample.bytes, false).unwrap();
    let info = trace.chunks()[0];
    let mut bytes = sample.bytes.clone();
    bytes[info.offset as usize + 16 + info.length as usize - 1] ^= 1;
    assert_eq!(refusal(&bytes).offset, info.offset);
    let options = OpenOptions {
        check_chunks: false,
        ..OpenOptions::default()
    };
    let trace = Trace::from_bytes(bytes, options).unwrap();
    let mut buffer = ChunkBuffer::new();
    let error = trace.decode(0, &mut buffer).unwrap_err();
    assert!(matches!(error.damage, Damage::Checksum { .. }));
    assert_eq!(error.offset, info.offset);
    assert!(trace.decode(1, &mut buffer).is_ok());
}

/// An output with room for so many bytes.
#[derive(Debug)]
struct Small {
    bytes: Vec<u8>,
    room: usize,
}

impl Output for Small {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fits]);
        if fits == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        Output::truncate(&mut self.bytes, size)
    }
}

#[test]
fn a_full_disk_leaves_a_valid_prefix() {
    let mut program = Synthetic::new(&SyntheticConfig::default()).unwrap();
    let output = Small {
        bytes: Vec::new(),
        room: 20_000,
    };
    let mut writer = Writer::new(output, &meta(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&process()).unwrap();
    let thread = Thread {
        process,
        tid: 1,
        vcpu: None,
        name: String::new(),
    };
    let thread = writer.add_thread(&thread).unwrap();
    let mut written = 0;
    let error = loop {
        let steps = program.run(0, 5_000).unwrap();
        let sides = SideStreams::default();
        let chunk = encode_chunk(thread, &steps, program.code(), &sides, 1).unwrap();
        let result = writer
            .sync_code(program.code())
            .and_then(|()| writer.write_chunk(&chunk));
        match result {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::DiskFull { offset } if offset == writer.size()));
    assert!(matches!(writer.add_symbols(""), Err(WriteError::Failed)));
    let bytes = writer.into_output().bytes;
    let trace = open(&bytes, true).unwrap();
    assert!(written > 0);
    assert_eq!(trace.chunks().len(), written);
    assert!(matches!(trace.damage().unwrap().damage, Damage::Unfinished));
}

#[test]
fn an_existing_file_is_replaced_only_if_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vlt");
    let create = |overwrite| {
        let options = WriterOptions {
            overwrite,
            ..WriterOptions::default()
        };
        Writer::create(&path, &meta(), options)
    };
    create(false).unwrap().finish(&[]).unwrap();
    assert!(matches!(create(false), Err(WriteError::Exists)));
    assert!(Trace::open(&path, OpenOptions::default()).is_ok());
    // Not finished: found when it is opened, usable up to there.
    create(true).unwrap().add_process(&process()).unwrap();
    assert!(Trace::open(&path, OpenOptions::default()).is_err());
    let options = OpenOptions {
        salvage: true,
        ..OpenOptions::default()
    };
    let trace = Trace::open(&path, options).unwrap();
    assert_eq!(trace.processes().len(), 1);
}
