//! Counters of a replay: any event, groups, frequency and skid, by the hot loop and by the devices.

use std::num::{NonZeroU32, NonZeroU64};

use vlbr_arch::FarKind;
use vlbr_cpu::Clock;
use vlbr_cpu::run::Sample;
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::Profile;
use vlbr_pmu::{Quirk, QuirkSet};
use vlbr_replay::{Consumer, ReplayError, Session, SessionOptions, Summary, stat};
use vlbr_traces::perfdata::{BranchEntry, SampleRecord};
use vlbr_traces::synthetic::SyntheticConfig;
use vlbr_traces::vlt::Trace;

use crate::common;

const PERIOD: u64 = 61;

#[derive(Clone, Debug, PartialEq)]
struct Taken {
    ip: u64,
    tid: u32,
    time_ns: u64,
    period: u64,
    counts: Vec<u64>,
    entries: Vec<BranchEntry>,
    events: u64,
}

#[derive(Default)]
struct Collector(Vec<Taken>);

impl Consumer for Collector {
    fn sample(&mut self, sample: &SampleRecord<'_>, at: &Sample) -> Result<(), ReplayError> {
        self.0.push(Taken {
            ip: sample.ip,
            tid: sample.tid,
            time_ns: sample.time_ns,
            period: sample.period,
            counts: sample.counts.to_vec(),
            entries: sample.branches.to_vec(),
            events: at.events,
        });
        Ok(())
    }
}

fn replay(
    trace: &Trace,
    cpu: &str,
    event: &str,
    change: impl Fn(&mut SessionOptions),
) -> Result<(Vec<Taken>, Summary), ReplayError> {
    let mut options = SessionOptions::new(Profile::named(cpu).unwrap().clone());
    options.branches = parse_branch_filter("any,u,k").unwrap();
    options.event = Some(event.to_owned());
    options.clock = Clock::Instructions;
    options.jobs = 1;
    options.period = NonZeroU64::new(PERIOD);
    change(&mut options);
    let session = Session::new(trace, options)?;
    let mut collector = Collector::default();
    let summary = session.run(&mut collector, &mut |_| ())?;
    Ok((collector.0, summary))
}

fn trace() -> Trace {
    threads(2)
}

fn threads(threads: u16) -> Trace {
    let config = SyntheticConfig {
        threads,
        one_in_interrupted: 60,
        one_in_mispredicted: 9,
        kernel: true,
        ..SyntheticConfig::with_seed(21)
    };
    common::trace(&config, 5, 8_000)
}

/// Says where the first difference is without printing every record.
fn same(fast: &[Taken], slow: &[Taken], event: &str) {
    for (number, (a, b)) in fast.iter().zip(slow).enumerate() {
        let bare = |taken: &Taken| Taken {
            entries: Vec::new(),
            ..taken.clone()
        };
        assert_eq!(bare(a), bare(b), "{event}: sample {number}");
        assert!(
            a.entries == b.entries,
            "{event}: records of sample {number}"
        );
    }
    assert_eq!(fast.len(), slow.len(), "{event}");
}

const EVENTS: [&str; 10] = [
    "instructions:k",
    "branches",
    "br_inst_retired.conditional:u",
    "br_inst_retired.near_return",
    "br_inst_retired.not_taken:u",
    "br_misp_retired.near_taken",
    "mem_inst_retired.all_loads",
    "mem_inst_retired.any:u",
    "rob_misc_events.lbr_inserts",
    "cycles:u",
];

#[test]
fn every_event_is_sampled_where_the_devices_overflow() {
    let trace = trace();
    for event in EVENTS {
        let (fast, sums) = replay(&trace, "skylake", event, |_| ()).unwrap();
        let (slow, slow_sums) = replay(&trace, "skylake", event, |o| o.ordered = true).unwrap();
        assert!(fast.len() > 1, "{event}: {}", fast.len());
        same(&fast, &slow, event);
        assert_eq!(sums, slow_sums, "{event}");
        let many = replay(&trace, "skylake", event, |o| o.jobs = 3).unwrap();
        assert_eq!((fast, sums), many, "{event}");
    }
}

#[test]
fn a_group_reads_every_counter_at_the_overflow() {
    let trace = trace();
    let others =
        "branches,br_inst_retired.near_taken,mem_inst_retired.all_stores,cycles,ref-cycles:u";
    for leader in [
        "instructions:u",
        "br_inst_retired.near_call",
        "mem_inst_retired.all_loads",
    ] {
        let event = format!("{{{leader},{others}}}:S");
        let (fast, sums) = replay(&trace, "skylake", &event, |_| ()).unwrap();
        let (slow, slow_sums) = replay(&trace, "skylake", &event, |o| o.ordered = true).unwrap();
        same(&fast, &slow, &event);
        assert_eq!(sums, slow_sums, "{event}");
        assert!(fast.len() > 10);
        for sample in &fast {
            assert_eq!(sample.counts.len(), 6);
            assert_eq!(sample.counts[0], sample.events);
            assert_eq!(sample.counts[0] % PERIOD, 0, "no skid");
        }
    }
}

#[test]
fn a_frequency_gives_one_result_on_both_roads() {
    let trace = trace();
    for event in ["instructions", "br_inst_retired.near_taken:u"] {
        let change = |ordered, jobs| {
            move |options: &mut SessionOptions| {
                options.period = None;
                options.frequency = NonZeroU64::new(2_000_000);
                options.ordered = ordered;
                options.jobs = jobs;
            }
        };
        let fast = replay(&trace, "skylake", event, change(false, 1)).unwrap();
        let slow = replay(&trace, "skylake", event, change(true, 1)).unwrap();
        assert!(fast.0.len() > 20, "{event}: {}", fast.0.len());
        assert_eq!(fast, slow, "{event}");
        assert_eq!(
            fast,
            replay(&trace, "skylake", event, change(false, 4)).unwrap()
        );
        let periods: Vec<u64> = fast.0.iter().map(|sample| sample.period).collect();
        assert!(periods.iter().max() > periods.first(), "{periods:?}");
    }
}

#[test]
fn skid_moves_the_address_and_not_the_frozen_records() {
    let trace = trace();
    let event = "br_inst_retired.near_taken";
    let (exact, _) = replay(&trace, "skylake", event, |_| ()).unwrap();
    let (late, sums) = replay(&trace, "skylake", event, |o| o.counters.skid = 7).unwrap();
    let (instant, same) = replay(&trace, "skylake", event, |o| o.ordered = true).unwrap();
    assert_eq!(exact, instant);
    assert_eq!(
        sums.threads.iter().map(|t| t.totals.events).sum::<u64>(),
        same.threads.iter().map(|t| t.totals.events).sum::<u64>(),
        "the counter runs on"
    );
    let inserts = "rob_misc_events.lbr_inserts";
    let (exact_inserts, _) = replay(&trace, "skylake", inserts, |_| ()).unwrap();
    let (late_inserts, _) = replay(&trace, "skylake", inserts, |o| o.counters.skid = 7).unwrap();
    assert!(late_inserts.len() + 2 >= exact_inserts.len());
    assert!(late_inserts.len() <= exact_inserts.len());
    // Two samples of a thread may be nearer than the skid only if as many branches are.
    assert!(late.len() + 2 >= exact.len() && late.len() <= exact.len());
    let mut moved = 0;
    for (before, after) in exact.iter().zip(&late).take(5) {
        assert_eq!(after.time_ns, before.time_ns + 7);
        assert_eq!(
            after.entries, before.entries,
            "frozen when the PMI was raised"
        );
        assert!(after.events >= before.events);
        moved += u32::from(after.ip != before.ip);
    }
    assert!(moved > 0);
    // Call stacks are not frozen: they go on to the delivery.
    let stack = |skid| {
        replay(&trace, "skylake", "instructions:u", |options| {
            options.branches = parse_branch_filter("stack,u").unwrap();
            options.counters.skid = skid;
        })
        .unwrap()
        .0
    };
    let pairs = stack(0).into_iter().zip(stack(40));
    assert!(
        pairs
            .take(200)
            .any(|(at, behind)| at.entries != behind.entries)
    );
}

#[test]
fn the_period_stays_exact_behind_a_skid() {
    let trace = threads(1);
    let (late, _) = replay(&trace, "skylake", "instructions", |o| o.counters.skid = 50).unwrap();
    for (number, sample) in late.iter().enumerate() {
        let expected = PERIOD * (number as u64 + 1) + 50;
        assert_eq!(sample.events, expected, "sample {number}");
    }
    assert!(late.len() > 100);
}

#[test]
fn a_period_that_ends_within_the_skid_begins_anew() {
    let trace = threads(1);
    let skid = PERIOD + 19;
    let (late, _) = replay(&trace, "skylake", "instructions", |o| {
        o.counters.skid = skid;
    })
    .unwrap();
    for (number, sample) in late.iter().enumerate() {
        let expected = (PERIOD + skid) * (number as u64 + 1);
        assert_eq!(sample.events, expected, "sample {number}");
    }
    assert!(late.len() > 100);
}

#[test]
fn stat_counts_what_the_chunk_headers_say() {
    let trace = trace();
    let options = SessionOptions::new(Profile::named("skylake").unwrap().clone());
    let events = "instructions:u,instructions:k,branches:u,branches:k,\
        br_inst_retired.near_taken:u,br_inst_retired.near_taken:k,br_inst_retired.near_call";
    let counted = stat(&trace, &options, Some(events), false, 0, &mut |_| ()).unwrap();
    // Five of them need general-purpose counters besides the second of the instructions.
    assert_eq!(counted.runs, 2);
    let mut stated = [0_u64; 6];
    for chunk in trace.chunks() {
        let counts = &chunk.counts;
        let kinds = [counts.instructions, counts.branches, counts.near_taken];
        for (kind, split) in kinds.iter().enumerate() {
            stated[2 * kind] += u64::from(split.user);
            stated[2 * kind + 1] += u64::from(split.kernel);
        }
    }
    let counts: Vec<u64> = counted.events.iter().map(|event| event.count).collect();
    assert_eq!(counts[..6], stated);
    for (number, event) in counted.events.iter().enumerate() {
        let sum: u64 = counted
            .threads
            .iter()
            .map(|thread| thread.counts[number])
            .sum();
        assert_eq!(sum, event.count);
    }
}

#[test]
fn an_erratum_that_loses_branches_shows_in_the_count() {
    let trace = trace();
    let count = |quirks| {
        let mut options = SessionOptions::new(Profile::named("skylake").unwrap().clone());
        options.counters.quirks = Some(quirks);
        options.counters.branch_lost_one_in = NonZeroU32::new(4).unwrap();
        let events = Some("branches,instructions");
        let counted = stat(&trace, &options, events, false, 0, &mut |_| ()).unwrap();
        counted.events.iter().map(|e| e.count).collect::<Vec<_>>()
    };
    let all = count(QuirkSet::EMPTY);
    let some = count(QuirkSet::EMPTY.with(Quirk::LostBranches));
    assert_eq!(all[1], some[1]);
    assert!(
        some[0] < all[0] * 4 / 5 && some[0] > all[0] * 7 / 10,
        "{some:?} of {all:?}"
    );
}

#[test]
fn a_return_without_a_call_is_no_lbr_insert() {
    // On Skylake the event counts pushes and pops, but no pop of an empty stack.
    let trace = common::trace_with_events(3, &[FarKind::Interrupt], 2, 2000);
    let event = "{instructions:u,rob_misc_events.lbr_inserts:u}:S";
    let stack = |always| {
        replay(&trace, "skylake", event, |options| {
            options.branches = parse_branch_filter("stack,u").unwrap();
            options.device.inserts_count_empty_pops = always;
        })
        .unwrap()
        .1
        .threads[0]
            .clone()
    };
    let (some, all) = (stack(false), stack(true));
    assert_eq!(all.counts[1], all.totals.pushes + all.totals.pops);
    assert_eq!(some.totals, all.totals);
    assert!(some.counts[1] < all.counts[1], "{some:?}");
}

#[test]
fn what_cannot_be_counted_is_refused_by_name() {
    let trace = trace();
    let refused = |event: &str, change: fn(&mut SessionOptions)| {
        replay(&trace, "skylake", event, change)
            .unwrap_err()
            .to_string()
    };
    for (event, change, reason) in [
        (
            "cache-misses",
            (|_| ()) as fn(&mut SessionOptions),
            "LONGEST_LAT_CACHE.MISS is not fed",
        ),
        ("cycles", |o| o.clock = Clock::None, "--clock instructions"),
        (
            "br_misp_retired.conditional",
            |_| (),
            "mispredicted-conditional-not-taken",
        ),
        ("branchs", |_| (), "nearest are"),
        (
            "branches",
            |o| o.period = NonZeroU64::new(1 << 50),
            "counts periods from 1 to",
        ),
        (
            "branches",
            |o| o.frequency = NonZeroU64::new(5),
            "exclude each other",
        ),
        (
            "{r1c4,r2c4,r8c4,r10c4,r20c4}:S",
            |_| (),
            "no counter left for 'r20c4'",
        ),
        ("branches", |o| o.counters.cycle_by_cycle = true, "clock"),
    ] {
        let error = refused(event, change);
        assert!(error.contains(reason), "{event}: {error}");
    }
}
