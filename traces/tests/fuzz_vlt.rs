//! Damaged `.vlt` files neither crash the reader nor make it allocate without bound.
//!
//! `VLBR_FUZZ_ITERATIONS` and `VLBR_FUZZ_SEED` set how many and which; for a long run:
//! `VLBR_FUZZ_ITERATIONS=10000000 cargo test --release -p vlbr-traces --test fuzz_vlt -- --nocapture`

use vlbr_traces::vlt::fuzz::fuzz_reader;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect(variable),
        Err(_) => default,
    }
}

/// Most memory this process ever held, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn damaged_files_are_refused_or_read() {
    let iterations = number("VLBR_FUZZ_ITERATIONS", 20_000);
    let report = fuzz_reader(number("VLBR_FUZZ_SEED", 1), iterations).unwrap();
    println!("{report:?}, peak memory {:?}", peak_memory());
    assert_eq!(report.inputs, iterations);
    assert_eq!(report.refused + report.salvaged + report.opened, iterations);
    // The mutations reach everything: no outcome is missing.
    if iterations >= 10_000 {
        assert!(report.refused > 0 && report.salvaged > 0 && report.opened > 0);
        assert!(report.chunks > 0 && report.chunks_refused > 0);
    }
    if let Some(peak) = peak_memory() {
        assert!(peak < 1 << 30, "{peak} bytes");
    }
}
