//! Damaged `.vlt` files neither crash the reader nor make it allocate without bound. For a long run:
//! `VLBR_FUZZ_ITERATIONS=10000000 cargo test --profile fuzz -p vlbr-traces --test fuzz_vlt -- --nocapture`

use std::time::Instant;

use vlbr_fuzz::{HEAP, Plan, peak_resident};
use vlbr_traces::vlt::fuzz::{FuzzReport, fuzz_reader};

/// Inputs between two looks at the clock.
const TURN: u64 = 5000;

fn add(sum: &mut FuzzReport, more: FuzzReport) {
    sum.inputs += more.inputs;
    sum.refused += more.refused;
    sum.salvaged += more.salvaged;
    sum.opened += more.opened;
    sum.chunks += more.chunks;
    sum.chunks_refused += more.chunks_refused;
}

#[test]
fn fuzz_damaged_files_are_refused_or_read() {
    let plan = Plan::new(20_000);
    let start = Instant::now();
    let mut report = FuzzReport::default();
    match plan.time {
        None => report = fuzz_reader(plan.seed, plan.inputs).unwrap(),
        Some(time) => {
            for turn in 0.. {
                add(&mut report, fuzz_reader(plan.seed + turn, TURN).unwrap());
                if start.elapsed() >= time {
                    break;
                }
            }
        }
    }
    let (heap, resident) = (HEAP.peak(), peak_resident().unwrap_or(0));
    println!("{report:?}, peak heap {heap}, memory {resident}");
    assert_eq!(
        report.refused + report.salvaged + report.opened,
        report.inputs
    );
    // The mutations reach everything: no outcome is missing.
    if report.inputs >= 10_000 {
        assert!(report.refused > 0 && report.salvaged > 0 && report.opened > 0);
        assert!(report.chunks > 0 && report.chunks_refused > 0);
    }
    assert!(heap.max(resident) < 1 << 30, "{heap}, {resident} bytes");
}
