//! The functions frame: what is written is read, what contradicts itself is refused on both sides.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::frame::{FRAME_HEADER, frame, kind};
use super::super::packed::{compress, decompress};
use super::damage::boundaries;
use super::*;

fn written(files: &[FileFunctions]) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    writer.add_functions(files)?;
    Ok(writer.finish(&[]).unwrap())
}

/// A trace cut off behind a functions frame that holds `raw` and states `size` for it.
fn with_raw(raw: &[u8], size: u32, flags: u16) -> Vec<u8> {
    let whole = written(&[]).unwrap();
    let all = boundaries(&whole);
    let mut payload = size.to_le_bytes().to_vec();
    payload.extend(compress(1, raw).unwrap());
    let mut bytes = whole[..all[1]].to_vec();
    bytes.extend(frame(kind::FUNCTIONS, flags, &payload));
    bytes
}

/// What the frame of one file holds, decompressed.
fn raw_of(file: &FileFunctions) -> Vec<u8> {
    let bytes = written(std::slice::from_ref(file)).unwrap();
    let all = boundaries(&bytes);
    let payload = &bytes[all[1] + FRAME_HEADER..all[2]];
    let (size, stored) = payload.split_first_chunk().unwrap();
    decompress("test", stored, u32::from_le_bytes(*size), 1 << 24).unwrap()
}

fn file() -> FileFunctions {
    functions().swap_remove(1)
}

/// What is wrong with the frame, found by salvaging.
fn damage(bytes: &[u8]) -> VltError {
    let trace = open(bytes, true).unwrap();
    assert_eq!(trace.functions(), None);
    open(bytes, false).unwrap_err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn functions_read_back_and_repeat_byte_for_byte(
        paths in btree_set(("/[a-z]{0,8}", vec(any::<u8>(), 0..=64)), 0..5),
        addresses in btree_map(any::<u64>(), (1..=u64::MAX, vec(any::<u8>(), 1..40)), 0..50),
        segments in vec((any::<u32>(), any::<u32>(), 1..=u32::MAX), 0..4),
    ) {
        let functions: Vec<_> = addresses
            .into_iter()
            .filter(|(address, _)| *address < u64::MAX)
            .map(|(address, (size, name))| Function {
                address,
                size: size.min(u64::MAX - address),
                name,
            })
            .collect();
        let segments: Vec<_> = segments
            .into_iter()
            .map(|(address, offset, size)| CodeSegment {
                address: address.into(),
                offset: offset.into(),
                size: size.into(),
            })
            .collect();
        let files: Vec<_> = paths
            .into_iter()
            .map(|(path, build_id)| FileFunctions {
                path: path.into(),
                build_id,
                state: FileState::Read,
                segments: segments.clone(),
                functions: functions.clone(),
            })
            .collect();
        let bytes = written(&files).unwrap();
        let trace = open(&bytes, false).unwrap();
        prop_assert_eq!(trace.functions(), Some(files.as_slice()));
        prop_assert_eq!(trace.sizes().total(), bytes.len() as u64);
        prop_assert_eq!(written(trace.functions().unwrap()).unwrap(), bytes);
    }
}

#[test]
fn a_trace_without_the_frame_says_so_and_the_last_frame_counts() {
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    writer.add_process(&process()).unwrap();
    let none = writer.finish(&[]).unwrap();
    assert_eq!(open(&none, false).unwrap().functions(), None);
    let mut writer = Writer::new(Vec::new(), &meta(), WriterOptions::default()).unwrap();
    writer.add_functions(&functions()).unwrap();
    writer.add_functions(&[file()]).unwrap();
    let bytes = writer.finish(&[]).unwrap();
    let trace = open(&bytes, false).unwrap();
    assert_eq!(trace.functions(), Some([file()].as_slice()));
}

/// Spoils a file.
type Change<'a> = &'a dyn Fn(&mut FileFunctions);

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let with = |change: Change<'_>| {
        let mut file = file();
        change(&mut file);
        written(&[file])
    };
    let malformed: [(&str, Change<'_>); 8] = [
        ("a name of no bytes", &|file| file.functions[0].name.clear()),
        ("a name too long", &|file| {
            file.functions[0].name = vec![b'a'; (1 << 14) + 1];
        }),
        ("no size", &|file| file.functions[0].size = 0),
        ("an end beyond the address space", &|file| {
            file.functions[2].size += 1;
        }),
        ("out of order", &|file| file.functions.swap(0, 1)),
        ("twice the same address", &|file| {
            file.functions[1].address = file.functions[0].address;
        }),
        ("a build-id too long", &|file| file.build_id = vec![0; 65]),
        ("functions of a file that was not read", &|file| {
            file.state = FileState::Unreadable;
        }),
    ];
    for (what, change) in malformed {
        let error = with(change).expect_err(what);
        assert!(matches!(error, WriteError::Malformed(_)), "{what}: {error}");
    }
    let mut files = functions();
    files.swap(0, 1);
    assert!(matches!(written(&files), Err(WriteError::Malformed(_))));
    files[0] = files[1].clone();
    assert!(matches!(written(&files), Err(WriteError::Malformed(_))));
}

#[test]
fn more_than_16_mib_are_refused_when_written() {
    let mut file = file();
    file.functions = (0..1025)
        .map(|number| Function {
            address: number,
            size: 1,
            name: vec![b'a'; 1 << 14],
        })
        .collect();
    let error = written(&[file]).unwrap_err();
    assert!(matches!(
        error,
        WriteError::Oversized {
            what: "functions",
            ..
        }
    ));
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_allocating() {
    let error = damage(&with_raw(b"\0", (1 << 24) + 1, 1));
    assert!(
        matches!(error.damage, Damage::Oversized { size, .. } if size == (1 << 24) + 1),
        "{error}"
    );
    assert!(error.offset > 32);
    // Counts of files and of segments that what is left cannot hold.
    let raw = raw_of(&file());
    let segments = 1 + 1 + "/usr/bin/program".len() + 1 + 20 + 1;
    for at in [0, segments] {
        let mut raw = raw.clone();
        raw.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
        let error = damage(&with_raw(&raw, raw.len() as u32, 1));
        assert!(matches!(error.damage, Damage::Malformed(_)), "{error}");
    }
}

#[test]
fn every_cut_and_every_byte_left_over_is_refused() {
    let raw = raw_of(&file());
    let bytes = with_raw(&raw, raw.len() as u32, 1);
    let whole = open(&bytes, true).unwrap();
    assert_eq!(whole.functions(), Some([file()].as_slice()));
    for size in 0..raw.len() {
        let error = damage(&with_raw(&raw[..size], size as u32, 1));
        assert!(
            matches!(error.damage, Damage::Malformed(_)),
            "{size}: {error}"
        );
    }
    let mut longer = raw.clone();
    longer.push(0);
    damage(&with_raw(&longer, longer.len() as u32, 1));
    let error = damage(&with_raw(&raw, raw.len() as u32 + 1, 1));
    assert!(
        matches!(error.damage, Damage::CountMismatch { .. }),
        "{error}"
    );
    let error = damage(&with_raw(&raw, raw.len() as u32, 2));
    assert!(matches!(error.damage, Damage::UnknownFlags(2)), "{error}");
}

#[test]
fn functions_beyond_the_memory_limit_are_refused() {
    let mut file = file();
    file.functions = (0..10_000)
        .map(|number| Function {
            address: number,
            size: 1,
            name: b"a".to_vec(),
        })
        .collect();
    let bytes = written(&[file]).unwrap();
    let options = OpenOptions {
        memory_limit: 100_000,
        ..OpenOptions::default()
    };
    let error = Trace::from_bytes(bytes, options).unwrap_err();
    assert!(matches!(error.damage, Damage::MemoryLimit(100_000)));
}
