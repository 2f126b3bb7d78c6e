//! Damaged files in comparisons.

use std::fs;

use vlbr_fuzz::{Form, folder, throw};
use vlbr_replay::diff::diff;
use vlbr_traces::perfdata::{
    BranchEntry, BranchFlags, EventInfo, FileInfo, Mapping, PerfDataWriter, SampleRecord, TaskId,
};

/// A pre-aggregated profile with every kind of line.
const PROFILE: &[u8] = b"\
B 401000 401020 12 0
B 401024 401000 3 1
B X:0 401000 2 0
B 0 401000 2 0
T 401000 401020 401030 7
F 401000 401024 12
f 401000 401024 1
R 401000 401024 1
r 401000 401024 1

";

/// Whether both orders are compared; the shares are shares.
fn compares(a: &std::path::Path, b: &std::path::Path) -> bool {
    let mut compared = true;
    for (a, b) in [(a, b), (b, a)] {
        match diff(a, b, 10, &mut |_| ()) {
            Ok(comparison) => {
                let share = 0.0..=1.000_001;
                assert!(
                    share.contains(&comparison.overlap),
                    "{}",
                    comparison.overlap
                );
            }
            Err(_) => compared = false,
        }
    }
    compared
}

#[test]
fn fuzz_preaggregated() {
    let folder = folder();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    fs::write(&good, PROFILE).unwrap();
    let seeds = [PROFILE.to_vec(), b"B 1000 2000 1 0\n".to_vec()];
    let tally = throw("pre-aggregated", 2000, Form::Text, &seeds, |bytes| {
        fs::write(&bad, bytes).unwrap();
        compares(&good, &bad)
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_perf_data_in_diff() {
    let folder = folder();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    let task = TaskId { pid: 10, tid: 11 };
    let mut writer = PerfDataWriter::create(&good, FileInfo::new(EventInfo::branches(1))).unwrap();
    writer.comm(task, "name", true, 1).unwrap();
    for (start, path) in [(0x1000, "/x"), (0x9000, "/lib/y")] {
        let mapping = Mapping::user(10, start, 0x1000, 0, path);
        writer.mapping(&mapping, 2).unwrap();
    }
    let branches: Vec<_> = (0..8)
        .map(|number| BranchEntry {
            from: 0x1000 + number,
            to: 0x9000 + 3 * number,
            flags: BranchFlags::default(),
        })
        .collect();
    for number in 0..4 {
        let sample = SampleRecord {
            ip: 0x1000,
            pid: 10,
            tid: 11,
            time_ns: 10 + number,
            cpu: 0,
            period: 1,
            kernel: false,
            branches: &branches[..2 * number as usize],
            hw_idx: None,
            callchain: None,
            counts: &[],
            instance: 0,
        };
        writer.sample(&sample).unwrap();
    }
    writer.finish().unwrap();
    let seeds = [fs::read(&good).unwrap()];
    let tally = throw("perf.data in diff", 1000, Form::Binary, &seeds, |bytes| {
        fs::write(&bad, bytes).unwrap();
        compares(&good, &bad)
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
