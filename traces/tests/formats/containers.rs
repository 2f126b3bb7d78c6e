//! The same records, packed with zstd or written to a pipe, read the same.

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use vlbr_traces::perfdata::{
    EventInfo, Feature, FileInfo, Mapping, PerfDataWriter, PerfFile, PerfReadError, PerfWriteError,
    Record,
};

use super::files::{entries, packed, piped, regular, sample, word};

/// Every record that is not about the container, as type, misc and body.
fn records(bytes: &[u8]) -> Result<Vec<(u32, u16, Vec<u8>)>, PerfReadError> {
    let mut file = PerfFile::new(Cursor::new(bytes))?;
    let mut records = file.records()?;
    let mut out = Vec::new();
    while let Some(raw) = records.next_record()? {
        raw.parse()?;
        raw.sample_id()?;
        if raw.kind.0 < 64 {
            out.push((raw.kind.0, raw.misc, raw.body.to_vec()));
        }
    }
    Ok(out)
}

#[test]
fn packed_and_piped_records_are_the_regular_ones() {
    let folder = tempfile::tempdir().expect("folder");
    let regular = regular(folder.path(), 200);
    let expected = records(&regular).expect("read");
    assert_eq!(expected.len(), 202);
    for piece in [7, 1000, 60_000] {
        assert!(
            records(&packed(&regular, piece)).expect("read") == expected,
            "piece {piece}"
        );
    }
    let piped = piped(&regular);
    assert!(records(&piped).expect("read") == expected);
    let mut file = PerfFile::new(Cursor::new(piped.as_slice())).expect("header");
    assert!(file.metadata().pipe);
    let features = file.features().expect("features");
    assert_eq!(features.events[0].name, "branches");
    assert!(features.branch_stack);
    assert!(
        file.feature_bytes(Feature::NUMA_TOPOLOGY)
            .expect("looked up")
            .is_none()
    );
}

#[test]
fn a_packed_record_that_is_cut_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let regular = regular(folder.path(), 200);
    let packed = packed(&regular, 500);
    let mut cut = packed.clone();
    let size = word(&packed, 48) - word(&packed, 48) % 508 - 508;
    cut[48..56].copy_from_slice(&(size as u64).to_le_bytes());
    let whole = records(&packed).expect("read").len();
    match records(&cut) {
        Err(PerfReadError::Truncated { .. }) => {}
        Ok(found) => assert!(found.len() < whole, "cut exactly between two records"),
        Err(other) => panic!("{other}"),
    }
    let mut damaged = packed;
    damaged[232 + 48 + 200] ^= 0xff;
    assert!(records(&damaged).is_err());
}

#[test]
fn the_recordings_of_perf_itself_are_read() {
    let found = |path: &str| Path::new(path).exists();
    if !found("/usr/bin/perf") && !found("/usr/local/bin/perf") {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "perf is missing"
        );
        eprintln!("skipped: perf is missing");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("perf.data");
    for compressed in [false, true] {
        let mut command = Command::new("perf");
        command
            .args(["record", "-q", "-e", "cpu-clock", "-c", "100000", "-o"])
            .arg(&data);
        if compressed {
            command.arg("-z");
        }
        let recorded = command
            .args(["--", "sh", "-c", "for i in 1 2 3 4; do ls /; done"])
            .output();
        // A kernel may forbid perf events; that is no fault of the reader.
        if !recorded.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: perf record is not permitted here");
            return;
        }
        let script = Command::new("perf")
            .args(["script", "-F", "ip", "-i"])
            .arg(&data)
            .output()
            .expect("perf script");
        let expected: Vec<u64> = String::from_utf8_lossy(&script.stdout)
            .split_whitespace()
            .map(|ip| u64::from_str_radix(ip, 16).expect("an address"))
            .collect();
        let mut file = PerfFile::open(&data).expect("opened");
        assert_eq!(
            file.features().expect("features").compression.is_some(),
            compressed
        );
        let mut records = file.records().expect("records");
        let mut ips = Vec::new();
        while let Some(raw) = records.next_record().expect("record") {
            if let Record::Sample(sample) = raw.parse().expect("fields") {
                ips.push(sample.ip.expect("an address"));
            }
        }
        assert!(!ips.is_empty());
        // perf sorts by time across CPUs; the file need not be in that order.
        let sorted = |mut ips: Vec<u64>| {
            ips.sort_unstable();
            ips
        };
        assert_eq!(sorted(ips), sorted(expected));
    }
}

#[test]
fn nothing_is_left_behind_by_a_writer_that_does_not_finish() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("perf.data");
    let info = FileInfo::new(EventInfo::branches(1));
    let mut writer = PerfDataWriter::create(&path, info.clone()).expect("created");
    let refused = writer
        .sample(&sample(0, &entries(3000)))
        .expect_err("too large");
    assert!(
        matches!(refused, PerfWriteError::TooLarge { size, .. } if size > 65535),
        "{refused}"
    );
    let id = Some(vec![1; 21]);
    let mapping = Mapping {
        build_id: id,
        ..Mapping::user(1, 0, 1, 0, "/x")
    };
    assert!(matches!(
        writer.mapping(&mapping, 0),
        Err(PerfWriteError::BuildId { length: 21, .. })
    ));
    let mapping = Mapping::user(1, 0, 1, 0, "/".repeat(4096));
    assert!(matches!(
        writer.mapping(&mapping, 0),
        Err(PerfWriteError::Path { .. })
    ));
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    let device = PerfDataWriter::create(Path::new("/dev/full"), info.clone());
    assert!(matches!(
        device,
        Err(PerfWriteError::NotARegularFile { .. })
    ));
    let nowhere = PerfDataWriter::create(&folder.path().join("no/perf.data"), info);
    assert!(matches!(nowhere, Err(PerfWriteError::Io { .. })));
}

#[test]
fn a_sample_must_have_what_its_event_asks_for() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("perf.data");
    let info = FileInfo::new(EventInfo::branches(1)).with_lbr_callgraph();
    let mut writer = PerfDataWriter::create(&path, info).expect("created");
    let refused = writer.sample(&sample(0, &[])).expect_err("no call chain");
    assert!(
        matches!(refused, PerfWriteError::MissingField("call chain")),
        "{refused}"
    );
}
