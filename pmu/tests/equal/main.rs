//! The fast device equals the reference: random runs and accesses over every profile, option and
//! quirk, every register compared after every step; and runs may be cut anywhere.

mod cut;
mod ops;
mod pair;
#[path = "../common/world.rs"]
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use vlbr_pmu::{Options, Profile, SourceSet};

use crate::ops::{Op, op, options};
use crate::pair::{Pair, Tally};

/// Cases per profile and test, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 16;

pub(crate) fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}

fn run(profile: &Profile, options: &Options, ops: &[Op]) -> Tally {
    let mut pair = Pair::new(profile, options);
    for op in ops {
        pair.apply(op);
    }
    pair.tally
}

#[test]
fn equal_with_default_options_on_every_profile() {
    for profile in Profile::all() {
        let mut runner = TestRunner::new(config());
        let result = runner.run(&vec(op(), 1..60), |ops| {
            run(profile, &Options::default(), &ops);
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

#[test]
fn equal_with_any_options_on_every_profile_and_part() {
    for profile in Profile::all() {
        let mut profiles = vec![profile.clone()];
        for part in profile.parts() {
            let part = profile.with_part(part).expect("its own");
            if profiles
                .iter()
                .all(|other| other.cpuid_0a() != part.cpuid_0a())
            {
                profiles.push(part);
            }
        }
        for profile in profiles {
            let mut runner = TestRunner::new(config());
            let result = runner.run(&(options(), vec(op(), 1..60)), |(options, ops)| {
                run(&profile, &options, &ops);
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
}

/// The generator is of use only if it gets to the rare cases.
#[test]
fn the_generator_reaches_the_rare_cases() {
    let mut runner = TestRunner::deterministic();
    let strategy = (options(), vec(op(), 60..120));
    let mut total = Tally::new();
    for profile in Profile::all() {
        for _ in 0..16 {
            let (mut options, ops) = strategy
                .new_tree(&mut runner)
                .expect("no filters")
                .current();
            options.feeds = options.feeds.with(SourceSet::RETIREMENT);
            for (what, count) in run(profile, &options, &ops) {
                *total.entry(what).or_default() += count;
            }
        }
    }
    for what in [
        "no such MSR",
        "read only",
        "reserved bits",
        "width",
        "non-canonical",
        "unknown event",
        "event not fed",
        "wrong counter",
        "needs clocks",
        "metrics",
        "PEBS to PT",
        "held",
        "overflow",
        "PMI of a counter",
        "PMI of PEBS",
        "PMI of BTS",
        "delivered",
        "waiting",
        "LBR frozen",
        "counters frozen",
        "record stored",
        "record without room",
        "record without memory",
        "armed",
        "rolled back",
        "clock counted",
        "logged into the LBR",
        "in SMM",
    ] {
        let count = total.get(what).copied().unwrap_or(0);
        assert!(count >= 10, "{what}: {count} of {total:?}");
    }
}
