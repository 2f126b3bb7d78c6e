//! Speed of VM exits, and what memory they take.

use std::process::Command;

use vlbr_benches::exits::{GAP, Run, run, scene};
use vlbr_fuzz::{HEAP, peak_resident};

use super::Failure;
use super::measure::median;

/// The policies with the most and the least to do at an exit, and the list between them.
const POLICIES: [&str; 3] = ["naive", "msr-list", "v8"];

/// One run, for its memory.
pub(super) fn once(exits: u64) -> Result<(), Failure> {
    run(&scene(exits)?, POLICIES[0], false)?;
    let resident = peak_resident().ok_or("/proc/self/status has no VmHWM")?;
    println!("{} {resident}", HEAP.peak());
    Ok(())
}

/// So many exits under every policy, whole stacks and register by register taking turns.
pub(super) fn print(exits: u64, runs: u32) -> Result<(), Failure> {
    let scene = scene(exits)?;
    let ways = [false, true];
    let mut taken = vec![Vec::<Run>::new(); POLICIES.len() * ways.len()];
    for round in 1..=runs {
        eprintln!("exits: round {round} of {runs}");
        let all = POLICIES
            .iter()
            .flat_map(|policy| ways.map(|way| (policy, way)));
        for ((policy, way), taken) in all.zip(&mut taken) {
            taken.push(run(&scene, policy, way)?);
        }
    }
    println!("VM exits, one every {GAP} instructions of the guest, LBR on, one thread, no checks");
    for (policy, taken) in POLICIES.iter().zip(taken.chunks(ways.len())) {
        let mut nanoseconds = Vec::new();
        for (way, runs) in ["whole stacks", "MSR by MSR"].iter().zip(taken) {
            let exits = runs.first().map_or(0, |run| run.exits);
            let mut seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
            let seconds = median(&mut seconds);
            let each = seconds / exits as f64 * 1e9;
            println!(
                "  {policy:<10} {way:<14} {exits} exits in {seconds:>7.3} s: {each:>7.0} ns each, ten \
                 million in {:.2} s",
                each / 100.0
            );
            nanoseconds.push(each);
        }
        if let [bulk, single] = nanoseconds[..] {
            println!(
                "  {policy:<10} MSR by MSR / whole stacks: {:.2}",
                single / bulk
            );
        }
    }
    for count in [exits / 10, exits] {
        let output = Command::new(std::env::current_exe()?)
            .args(["--memory-of-exits", &count.to_string()])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(heap)), Some(Ok(resident))) = (numbers.next(), numbers.next()) else {
            return Err(format!("measuring memory: {}", output.status).into());
        };
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        println!(
            "  {count} exits: peak heap {:.2} MiB, resident {:.1} MiB",
            mib(heap),
            mib(resident)
        );
    }
    Ok(())
}
