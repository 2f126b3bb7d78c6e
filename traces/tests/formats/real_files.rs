//! Real perf.data files are read whole, and their branch stacks survive the typed entries.

use std::io::Cursor;

use vlbr_traces::perfdata::{BranchEntry, BranchSampleType, PerfFile, Record, RecordType};

use super::files::reference;

const FILES: [&str; 5] = [
    "flags.perf.data",
    "perf.data.branch-4.14",
    "perf.data.callgraph_and_branch-3.4",
    "propeller_sample_1.perfdata1",
    "ro_sample.perf",
];

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    records: u64,
    samples: u64,
    entries: u64,
    mispredicted: u64,
    predicted: u64,
    empty_stacks: u64,
}

/// Reads `bytes` as perf.data and replaces every branch stack by its re-encoded self.
fn rebuild(bytes: &[u8]) -> (Vec<u8>, Counts) {
    let mut out = bytes.to_vec();
    let mut counts = Counts::default();
    let mut file = PerfFile::new(Cursor::new(bytes)).expect("header");
    let mut records = file.records().expect("records");
    while let Some(raw) = records.next_record().expect("record") {
        counts.records += 1;
        let record = raw.parse().unwrap_or_else(|e| panic!("{e}"));
        raw.sample_id().unwrap_or_else(|e| panic!("{e}"));
        let Record::Sample(sample) = record else {
            assert_ne!(raw.kind, RecordType::SAMPLE);
            continue;
        };
        assert!(
            sample.rest.is_empty(),
            "{:#x}: sample not read to its end",
            raw.offset
        );
        counts.samples += 1;
        let Some(stack) = &sample.branch_stack else {
            continue;
        };
        counts.empty_stacks += u64::from(stack.entries.is_empty());
        counts.entries += stack.entries.len() as u64;
        counts.mispredicted += stack.entries.iter().filter(|e| e.flags.mispred).count() as u64;
        // Empty ring slots read as 0 -> 0, predicted.
        let used = |e: &&BranchEntry| e.flags.predicted && (e.from, e.to) != (0, 0);
        counts.predicted += stack.entries.iter().filter(used).count() as u64;
        let range = sample
            .branch_stack_range
            .clone()
            .expect("a stack has a place");
        let start = raw.offset as usize + 8 + range.start;
        out[start..start + range.len()].fill(0xa5);
        out[start..start + range.len()].copy_from_slice(&stack.encode());
    }
    (out, counts)
}

#[test]
fn branch_stacks_of_every_real_file_re_encode_to_the_same_bytes() {
    for name in FILES {
        let Some(bytes) = reference(name) else { return };
        let (rebuilt, counts) = rebuild(&bytes);
        assert!(counts.samples > 0, "{name}");
        assert!(rebuilt == bytes, "{name} changed");
    }
}

#[test]
fn every_flipped_flag_bit_of_a_real_entry_changes_the_re_encoded_stack() {
    let Some(bytes) = reference("flags.perf.data") else {
        return;
    };
    let (_, counts) = rebuild(&bytes);
    assert_eq!(counts.entries, 5);
    // The five entries start behind header, ip, tid, time, cpu, period and count.
    let file_offset = bytes
        .windows(8)
        .position(|w| w == 0x1050u64.to_le_bytes())
        .expect("the newest FROM is in the file");
    for entry in 0..5 {
        for bit in 0..64 {
            let mut flipped = bytes.clone();
            flipped[file_offset + entry * 24 + 16 + bit / 8] ^= 1 << (bit % 8);
            let (rebuilt, _) = rebuild(&flipped);
            assert!(rebuilt == flipped, "entry {entry} bit {bit} was lost");
            assert!(rebuilt != bytes);
        }
    }
}

#[test]
fn counts_of_the_real_files_are_those_perf_prints() {
    let Some(bytes) = reference("propeller_sample_1.perfdata1") else {
        return;
    };
    let (_, counts) = rebuild(&bytes);
    assert_eq!(
        (counts.samples, counts.entries, counts.empty_stacks),
        (3740, 119_424, 8)
    );
    assert_eq!((counts.mispredicted, counts.predicted), (5, 119_419));
    let (_, counts) = rebuild(&reference("perf.data.callgraph_and_branch-3.4").expect("present"));
    assert_eq!((counts.samples, counts.entries), (923, 14_768));
    assert_eq!((counts.mispredicted, counts.predicted), (880, 13_888));
    let (_, counts) = rebuild(&reference("perf.data.branch-4.14").expect("present"));
    assert_eq!((counts.samples, counts.entries), (13, 416));
    assert_eq!((counts.mispredicted, counts.predicted), (21, 366));
    let (_, counts) = rebuild(&reference("ro_sample.perf").expect("present"));
    assert_eq!((counts.samples, counts.entries), (13, 0));
}

#[test]
fn features_of_a_real_file_are_those_perf_prints() {
    let Some(bytes) = reference("propeller_sample_1.perfdata1") else {
        return;
    };
    let mut file = PerfFile::new(Cursor::new(bytes.as_slice())).expect("header");
    let features = file.features().expect("features");
    assert_eq!(features.cpuid.as_deref(), Some("GenuineIntel,6,85,4"));
    assert_eq!(features.nr_cpus, Some((112, 112)));
    assert_eq!(features.events.len(), 1);
    assert_eq!(features.events[0].name, "cycles:u");
    assert!(features.branch_stack);
    assert_eq!(features.build_ids.len(), 4);
    assert!(features.pmu_mappings.contains(&(8, "intel_pt".to_owned())));
    assert_eq!(
        features.events[0].attr.branch_sample_type,
        BranchSampleType::ANY
    );
}

#[test]
fn a_file_cut_anywhere_is_refused_or_ends_with_an_error() {
    let Some(bytes) = reference("ro_sample.perf") else {
        return;
    };
    // perf left four bytes behind the last section.
    for length in 0..bytes.len() - 4 {
        let cut = &bytes[..length];
        let whole = PerfFile::new(Cursor::new(cut)).and_then(|mut file| {
            let mut records = file.records()?;
            while let Some(raw) = records.next_record()? {
                raw.parse()?;
            }
            file.features().map(|_| ())
        });
        assert!(
            whole.is_err(),
            "{length} bytes of {} were taken as whole",
            bytes.len()
        );
    }
}
