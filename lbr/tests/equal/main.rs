//! The fast device equals the reference: random events, filters and accesses over every profile,
//! option and quirk, every register compared after every step.

mod ops;
mod pair;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use vlbr_lbr::Options;

use crate::ops::{Op, op, options, profiles};
use crate::pair::{Pair, Tally};

/// Cases per profile and test, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 48;

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}

fn run(profile: &vlbr_lbr::Profile, options: &Options, ops: &[Op]) -> Tally {
    let mut pair = Pair::new(profile, options);
    for op in ops {
        pair.apply(op);
    }
    pair.tally
}

#[test]
fn equal_with_default_options_on_every_profile() {
    for profile in profiles() {
        let name = profile.name().to_owned();
        let mut runner = TestRunner::new(config());
        let result = runner.run(&vec(op(), 1..40), |ops| {
            run(&profile, &Options::default(), &ops);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}

#[test]
fn equal_with_any_options_on_every_profile() {
    for profile in profiles() {
        let name = profile.name().to_owned();
        let mut runner = TestRunner::new(config());
        let result = runner.run(&(options(), vec(op(), 1..40)), |(options, ops)| {
            run(&profile, &options, &ops);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}

/// The generator is of use only if it gets to the rare cases.
#[test]
fn the_generator_reaches_the_rare_cases() {
    let mut runner = TestRunner::deterministic();
    let strategy = (options(), vec(op(), 30..60));
    let mut total = Tally::new();
    for profile in profiles() {
        for _ in 0..20 {
            let (options, ops) = strategy
                .new_tree(&mut runner)
                .expect("no filters")
                .current();
            for (what, count) in run(&profile, &options, &ops) {
                *total.entry(what).or_default() += count;
            }
        }
    }
    for what in [
        "no such MSR",
        "beyond depth",
        "reserved bits",
        "unsupported DEBUGCTL",
        "unsupported LBR_CTL",
        "unsupported depth",
        "non-canonical",
        "sign extension",
        "no component 15",
        "pop",
        "pop of an empty slot",
        "push",
        "push on a full stack",
        "wrap",
        "saturated cycles",
        "masked FROM",
        "abort",
        "frozen",
        "restored",
    ] {
        let count = total.get(what).copied().unwrap_or(0);
        assert!(count >= 10, "{what}: {count} of {total:?}");
    }
}

#[test]
fn reserved_bits_are_equal_with_any_options_on_every_profile() {
    use vlbr_lbr::Device;

    for profile in profiles() {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 4,
            ..config()
        });
        let result = runner.run(&options(), |options| {
            let fast = vlbr_lbr::Lbr::new(&profile, options.clone());
            let slow = vlbr_lbr::reference::Lbr::new(&profile, options);
            for msr in fast.msrs().into_iter().chain([vlbr_arch::Msr::PMC0]) {
                let told = (fast.reserved_bits(msr), slow.reserved_bits(msr));
                prop_assert_eq!(told.0, told.1, "{}", msr);
            }
            Ok(())
        });
        assert!(
            result.is_ok(),
            "{}: {}",
            profile.name(),
            result.unwrap_err()
        );
    }
}
