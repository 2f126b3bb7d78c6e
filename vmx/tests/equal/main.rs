//! The processor under test equals a slow, literal one: random VMX instructions, accesses, guests
//! and steps over every part with VMX data, everything compared after each.

mod ends;
mod fast;
mod model;
mod msrs;
mod ops;
mod pair;
mod ram;
mod side;
mod slow;
mod split;
mod values;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use vlbr_vmx::VmxProfile;

use crate::model::Capabilities;
use crate::ops::{Op, op, setup};
use crate::pair::{Pair, Part, Setup, Tally};

/// The configuration of so many cases per part, unless `PROPTEST_CASES` says otherwise.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config
}

/// The same cases each time, others for each part.
pub(crate) fn runner(cases: u32, part: usize) -> TestRunner {
    let mut seed = [7; 32];
    seed[0] = part as u8;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    TestRunner::new_with_rng(config(cases), rng)
}

/// Every part with VMX data, and two that no dump shows.
pub(crate) fn parts() -> Vec<Part> {
    let cpus = VmxProfile::all().iter().flat_map(VmxProfile::cpus);
    let known = cpus.map(|cpu| Part {
        cpu: cpu.clone(),
        text: Capabilities::text_of(cpu).expect("a file that names it"),
    });
    let mut parts: Vec<Part> = known.collect();
    // Addresses of 32 bits, any error code; exit information read only, no instructions of length
    // 0, no activity state but active and HLT, areas of 1024 entries.
    for (cpu, from, to) in [
        ("skylake", "basic = 0x00da", "basic = 0x01db"),
        ("skylake", "misc = 0x7004_c1e7", "misc = 0x1204_8065"),
    ] {
        let text = Capabilities::text_of(cpu).expect("a file that names it");
        parts.push(Part {
            cpu: cpu.to_owned(),
            text: text.replace(from, to),
        });
    }
    parts
}

fn run(part: &Part, setup: &Setup, ops: &[Op]) -> Tally {
    let mut pair = Pair::new(part, setup);
    for op in ops {
        pair.apply(op);
    }
    pair.finish();
    pair.tally
}

#[test]
fn equal_on_every_part() {
    for (n, part) in parts().iter().enumerate() {
        let result = runner(48, n).run(&(setup(), vec(op(), 1..80)), |(setup, ops)| {
            run(part, &setup, &ops);
            Ok(())
        });
        assert!(result.is_ok(), "{}: {}", part.cpu, result.unwrap_err());
    }
}

/// The generator is of use only if it gets to the rare cases.
#[test]
fn the_generator_reaches_the_rare_cases() {
    let mut runner = runner(1, 255);
    let strategy = (setup(), vec(op(), 80..140));
    let mut total = Tally::new();
    for part in parts() {
        for _ in 0..12 {
            let (setup, ops) = strategy
                .new_tree(&mut runner)
                .expect("no filters")
                .current();
            for (what, count) in run(&part, &setup, &ops) {
                *total.entry(what).or_default() += count;
            }
        }
    }
    for what in [
        "entered",
        "entered with an event",
        "entry failed 33",
        "entry failed 34",
        "entry failed 41",
        "entry aborted",
        "VMfail 2",
        "VMfail 3",
        "VMfail 4",
        "VMfail 5",
        "VMfail 7",
        "VMfail 8",
        "VMfail 9",
        "VMfail 10",
        "VMfail 11",
        "VMfail 12",
        "VMfail 13",
        "VMfail 15",
        "VMfail 26",
        "VMfailInvalid",
        "abort 1",
        "abort 4",
        "abort 5",
        "exit 0",
        "exit 1",
        "exit 10",
        "exit 15",
        "exit 31",
        "exit 32",
        "exit 52",
        "exit 84",
        "exit 85",
        "LBR frozen",
        "PMI raised",
        "PMI exits",
        "PMI in the guest",
        "PMI in the host",
        "timer ended",
        "timer ends later",
    ] {
        let count = total.get(what).copied().unwrap_or(0);
        assert!(count >= 3, "{what}: {count} of {total:?}");
    }
}
