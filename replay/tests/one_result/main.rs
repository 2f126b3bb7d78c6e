//! A replay has one result: deferred or eager, through the plan or through the device, on any
//! number of threads.

mod branches;
#[path = "../common/mod.rs"]
mod common;
mod counters;
mod time;

use std::num::NonZeroU64;

use vlbr_cpu::run::Sample;
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::Profile;
use vlbr_replay::{Consumer, ReplayError, Session, SessionOptions, Summary};
use vlbr_traces::perfdata::{BranchEntry, SampleRecord};
use vlbr_traces::synthetic::SyntheticConfig;
use vlbr_traces::vlt::Trace;

const NEAR_TAKEN: &str = "br_inst_retired.near_taken";

#[derive(Debug, PartialEq)]
struct Taken {
    ip: u64,
    tid: u32,
    time_ns: u64,
    kernel: bool,
    hw_idx: Option<u64>,
    entries: Vec<BranchEntry>,
}

#[derive(Default)]
struct Collector(Vec<Taken>);

impl Consumer for Collector {
    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.0.push(Taken {
            ip: sample.ip,
            tid: sample.tid,
            time_ns: sample.time_ns,
            kernel: sample.kernel,
            hw_idx: sample.hw_idx,
            entries: sample.branches.to_vec(),
        });
        Ok(())
    }
}

fn replay(
    trace: &Trace,
    profile: &Profile,
    filter: &str,
    event: &str,
    change: impl Fn(&mut SessionOptions),
) -> Result<(Vec<Taken>, Summary, bool), ReplayError> {
    let mut options = SessionOptions::new(profile.clone());
    options.branches = parse_branch_filter(filter).unwrap();
    options.event = Some(event.to_owned());
    options.period = NonZeroU64::new(211);
    options.jobs = 1;
    change(&mut options);
    let session = Session::new(trace, options)?;
    let mut collector = Collector::default();
    let summary = session.run(&mut collector, &mut |_| ())?;
    Ok((collector.0, summary, session.is_ordered()))
}

fn has_near_taken(cpu: &str) -> bool {
    let pmu = vlbr_pmu::Profile::named(cpu).unwrap();
    pmu.parse_event(NEAR_TAKEN, &vlbr_pmu::Options::default())
        .is_ok()
}

#[test]
fn plan_and_device_agree_for_every_profile_and_filter() {
    let config = SyntheticConfig {
        threads: 2,
        one_in_interrupted: 60,
        one_in_mispredicted: 9,
        ..SyntheticConfig::with_seed(11)
    };
    let trace = common::trace(&config, 3, 6_000);
    let filters = [
        "any,u,k",
        "any,u,hw_index",
        "any,k,save_type,priv",
        "any_call,u",
        "any_ret,u,k",
        "cond,k",
        "ind_call,ind_jmp,u,k",
        "stack,u",
        "stack,k",
        "call,u",
    ];
    let (mut compared, mut refused) = (0, 0);
    for profile in Profile::all() {
        for filter in filters {
            for event in ["instructions", "branches:u", NEAR_TAKEN] {
                if event == NEAR_TAKEN && !has_near_taken(profile.name()) {
                    continue;
                }
                let fast = replay(&trace, profile, filter, event, |_| ());
                let Ok((fast, fast_summary, ordered)) = fast else {
                    // Call stacks where the part has none, and nothing else.
                    assert!(
                        filter.starts_with("stack"),
                        "{} -j {filter}",
                        profile.name()
                    );
                    refused += 1;
                    continue;
                };
                assert!(!ordered, "{} -j {filter}", profile.name());
                // A duplicated top entry that never happens sends every transfer to the device.
                let slow = replay(&trace, profile, filter, event, |options| {
                    let quirks = profile.quirks().with(vlbr_lbr::Quirk::DuplicateTop);
                    options.device.quirks = Some(quirks);
                    options.device.duplicate_top_one_in = std::num::NonZeroU32::MAX;
                });
                let (slow, slow_summary, ordered) = slow.unwrap();
                assert!(ordered);
                assert!(!fast.is_empty());
                assert_eq!(fast, slow, "{} -j {filter} -e {event}", profile.name());
                assert_eq!(fast_summary, slow_summary, "{} -j {filter}", profile.name());
                compared += 1;
            }
        }
    }
    assert!(
        compared > 500 && refused > 30,
        "{compared} compared, {refused} refused"
    );
}

#[test]
fn threads_and_eager_writes_change_nothing() {
    let config = SyntheticConfig {
        threads: 3,
        ..SyntheticConfig::with_seed(5)
    };
    let trace = common::trace(&config, 9, 20_000);
    for (cpu, filter) in [
        ("skylake", "any,u,k"),
        ("haswell", "stack,u"),
        ("spr", "any_call,u,k"),
    ] {
        let profile = Profile::named(cpu).unwrap();
        let one = replay(&trace, profile, filter, "instructions", |_| ()).unwrap();
        assert!(one.0.len() > 300);
        for jobs in [2, 3, 7] {
            let many = replay(&trace, profile, filter, "instructions", |o| o.jobs = jobs).unwrap();
            assert_eq!(one, many, "{cpu}, {jobs} jobs");
        }
        let eager = replay(&trace, profile, filter, "instructions", |o| o.eager = true).unwrap();
        assert_eq!(one, eager, "{cpu}, eager");
    }
}

/// `#DB` in the middle of a chunk clears the enable, which the handler of the next sample sets
/// again on some parts; on architectural LBR an SMI clears it until RSM.
#[test]
fn steps_that_change_the_registers_agree_with_the_device() {
    use vlbr_arch::FarKind;
    for kinds in [[FarKind::DebugException; 2], [FarKind::Smi, FarKind::Rsm]] {
        let trace = common::trace_with_events(17, &kinds, 8, 3_000);
        for cpu in [
            "skylake",
            "haswell",
            "nehalem",
            "spr",
            "alder-lake-e",
            "core2",
        ] {
            for filter in ["any,u,k", "any_call,u", "stack,u"] {
                let profile = Profile::named(cpu).unwrap();
                for jobs in [1, 3] {
                    let plan = replay(&trace, profile, filter, "branches", |o| o.jobs = jobs);
                    let Ok((plan, summary, ordered)) = plan else {
                        continue;
                    };
                    assert!(!ordered);
                    let device = replay(&trace, profile, filter, "branches", |o| o.ordered = true);
                    let (device, device_summary, _) = device.unwrap();
                    assert!(plan.len() > 20);
                    assert_eq!(plan, device, "{cpu} -j {filter} {kinds:?}");
                    assert_eq!(summary, device_summary, "{cpu} -j {filter} {kinds:?}");
                }
            }
        }
    }
}

/// Linux `__intel_pmu_lbr_enable`: from perfmon version 4 on, the interrupt handler leaves the
/// enable bits alone.
#[test]
fn after_a_debug_exception_the_handler_enables_the_lbr_before_perfmon_4_only() {
    let trace = common::trace_with_events(17, &[vlbr_arch::FarKind::DebugException], 8, 3_000);
    for (cpu, resumes) in [
        ("nehalem", true),
        ("haswell", true),
        ("skylake", false),
        ("spr", false),
    ] {
        let profile = Profile::named(cpu).unwrap();
        assert_eq!(profile.perfmon_version() < 4, resumes, "{cpu}");
        for ordered in [false, true] {
            let run = replay(&trace, profile, "any,u,k", "branches", |o| {
                o.ordered = ordered
            });
            let (samples, ..) = run.unwrap();
            let (first, rest) = samples[samples.len() - 20..].split_first().unwrap();
            let moves = rest.iter().any(|sample| sample.entries != first.entries);
            assert_eq!(moves, resumes, "{cpu}, ordered {ordered}");
        }
    }
}
