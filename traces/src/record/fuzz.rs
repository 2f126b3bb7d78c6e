//! Plugins that send anything, recorded; and texts of `/proc/PID/maps`.

use std::path::Path;
use std::sync::Arc;

use vlbr_fuzz::{Form, folder, throw};

use super::RecordOptions;
use super::mappings::tests::images;
use super::run::{Recording, meta};
use super::sink::FileSink;
use crate::qemu::fuzz::{controls, messages, read_ring, rings};
use crate::qemu::{Origin, ProcessEnd, ProcessId, ProcessInfo, Sink as _, TargetMode, parse_maps};
use crate::vlt::{OpenOptions, ProcessIndex, Scope, Trace};

/// Records what comes on the control connection and through one ring, and reads the trace. Whether
/// all of it made sense.
fn record(folder: &Path, mode: TargetMode, control: &[u8], ring: &[u8]) -> bool {
    let output = folder.join("trace.vlt");
    let options = RecordOptions {
        overwrite: true,
        ..RecordOptions::new(output.clone())
    };
    let scope = match mode {
        TargetMode::User => Scope::User,
        TargetMode::System => Scope::System,
    };
    let description = meta("fuzz", String::new(), scope, &[]);
    let recording = Recording::create(&options, &description).unwrap();
    let sink = FileSink::new(Arc::clone(recording.file()), 64);
    sink.process(&ProcessInfo {
        id: ProcessId(0),
        pid: 10,
        parent_pid: 1,
        origin: Origin::Started,
        mode,
        target: "x86_64".into(),
        api: 4,
        registers: true,
        program: b"/nonexistent".to_vec(),
        arguments: Vec::new(),
    })
    .unwrap();
    let (blocks, whole) = messages(&sink, control);
    let taken = read_ring(&sink, folder, &blocks, ring);
    sink.process_end(ProcessId(0), ProcessEnd::Exited(0))
        .unwrap();
    drop(sink);
    recording.finish(&[], false).unwrap();
    let trace = Trace::open(&output, OpenOptions::default()).unwrap();
    assert!(trace.damage().is_none());
    whole && taken
}

#[test]
fn fuzz_recording() {
    let folder = folder();
    // Length of the control part, control part, ring.
    let seeds: Vec<Vec<u8>> = controls()
        .iter()
        .zip(rings())
        .enumerate()
        .map(|(mode, (control, ring))| {
            let head = [[mode as u8, 0], (control.len() as u16).to_le_bytes()];
            [head.concat(), control.clone(), ring].concat()
        })
        .collect();
    let tally = throw("recording", 500, Form::Binary, &seeds, |bytes| {
        let Some((&[mode, _, low, high], rest)) = bytes.split_first_chunk() else {
            return false;
        };
        let mode = if mode == 0 {
            TargetMode::User
        } else {
            TargetMode::System
        };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (control, ring) = rest.split_at(length.min(rest.len()));
        record(folder.path(), mode, control, ring)
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_maps() {
    let seeds = [
        b"00400000-00401000 r--p 00000000 fe:01 77                         /lib/x\n\
        00401000-00403000 r--p 00001000 fe:01 77                         /lib/x\n\
        7f0000000000-7f0000004000 r-xp 00000000 fe:01 78                 /lib/x (deleted)\n\
        7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                  [stack]\n\
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n"
            .to_vec(),
    ];
    let mut images = images();
    let tally = throw("maps", 10_000, Form::Text, &seeds, |bytes| {
        let mappings = parse_maps(bytes);
        for mapping in &mappings {
            assert!(mapping.start < mapping.end && mapping.path.starts_with(b"/"));
        }
        // Files but those that are known are not opened: what a path names is up to chance.
        let known: Vec<_> = mappings
            .into_iter()
            .filter(|mapping| mapping.path == b"/lib/x")
            .collect();
        let pieces = images.pieces(&known);
        let mapped = |mapping: crate::qemu::Mapping| mapping.end - mapping.start;
        let mut sum = 0_u64;
        for piece in &pieces {
            let mapping = piece.to_mapping(ProcessIndex(0));
            assert!(mapping.length > 0);
            sum = sum.wrapping_add(mapping.length);
        }
        assert_eq!(
            sum,
            known.into_iter().map(mapped).fold(0, u64::wrapping_add)
        );
        !pieces.is_empty()
    });
    assert!(tally.taken > 0);
}
