//! What a replay holds does not grow with the number of samples, nor with that of processes beyond
//! what they ran.

mod common;

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::rc::Rc;

use vlbr_arch::{Cycles, FarKind};
use vlbr_cpu::run::Sample;
use vlbr_cpu::{Clock, Code, StepClock, StepId, StepTime};
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::Profile;
use vlbr_replay::{
    Consumer, EngineError, EngineOptions, GatedSteps, HELD_SAMPLES, ReplayError, Session,
    SessionOptions, Summary, exact_profile, run,
};
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
use vlbr_traces::vlt::{
    Meta, OpenOptions, Process, SideStreams, Thread, Trace, Writer, WriterOptions, encode_chunk,
};

/// Everything of every sample as one number, and where chunks began.
#[derive(Default)]
struct Digest {
    hasher: DefaultHasher,
    samples: u64,
    begins: Vec<(usize, u64)>,
}

impl Consumer for Digest {
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.begins.push((chunk, time_ns));
        Ok(())
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.samples += 1;
        let about = (
            sample.ip,
            sample.tid,
            sample.time_ns,
            sample.kernel,
            sample.hw_idx,
        );
        about.hash(&mut self.hasher);
        for entry in sample.branches {
            (entry.from, entry.to, entry.flags.to_word()).hash(&mut self.hasher);
        }
        Ok(())
    }
}

type Result3 = (u64, u64, Vec<(usize, u64)>, Summary);

fn session<'t>(trace: &'t Trace, cpu: &str, filter: &str, event: &str) -> Session<'t> {
    Session::new(trace, options(cpu, filter, event)).unwrap()
}

fn options(cpu: &str, filter: &str, event: &str) -> SessionOptions {
    SessionOptions {
        branches: parse_branch_filter(filter).unwrap(),
        event: Some(event.to_owned()),
        period: NonZeroU64::new(1),
        jobs: 1,
        ..SessionOptions::new(Profile::named(cpu).unwrap().clone())
    }
}

fn digest(trace: &Trace, options: SessionOptions) -> Result3 {
    let session = Session::new(trace, options).unwrap();
    let mut digest = Digest::default();
    let summary = session.run(&mut digest, &mut |_| ()).unwrap();
    (
        digest.hasher.finish(),
        digest.samples,
        digest.begins,
        summary,
    )
}

/// Samples of each piece, and of the largest step.
fn pieces(trace: &Trace, cpu: &str, filter: &str, event: &str, jobs: usize) -> (Vec<usize>, usize) {
    let session = session(trace, cpu, filter, event);
    let plan = session
        .lbr()
        .plan(trace.code(), &session.counters().counting())
        .unwrap();
    let gated = GatedSteps::new(trace.code(), session.lbr());
    let options = EngineOptions {
        event: session.counters().counting().sampled,
        schedule: Some(vlbr_cpu::run::Schedule::every(1)),
        gated: gated.as_ref(),
        region: vlbr_replay::Region::whole(),
        jobs,
        eager: None,
    };
    let mut pieces = Vec::new();
    run(trace, &plan, options, |result| {
        pieces.push(result.samples());
        Ok::<(), EngineError>(())
    })
    .unwrap();
    let steps = 0..trace.code().steps().len() as u32;
    let most = steps.map(|step| plan.events(vlbr_cpu::StepId(step))).max();
    (pieces, most.unwrap() as usize)
}

fn traces() -> [(&'static str, Trace); 2] {
    let config = SyntheticConfig {
        threads: 2,
        ..SyntheticConfig::with_seed(23)
    };
    [
        ("plain", common::trace(&config, 2, 80_000)),
        (
            "gated",
            common::trace_with_events(5, &[FarKind::DebugException], 2, 60_000),
        ),
    ]
}

#[test]
fn a_worker_holds_no_more_samples_than_the_limit() {
    for (name, trace) in traces() {
        for (filter, event) in [("any,u,k", "branches"), ("stack,u", "instructions:u")] {
            for jobs in [1, 3] {
                let (pieces, most) = pieces(&trace, "haswell", filter, event, jobs);
                let largest = *pieces.iter().max().unwrap();
                assert!(
                    largest < HELD_SAMPLES + most,
                    "{name} {filter} {event}: {largest}"
                );
                let all: usize = pieces.iter().sum();
                assert!(
                    pieces.len() > all / (HELD_SAMPLES + most),
                    "{name}: {pieces:?}"
                );
                assert!(
                    event != "instructions:u" || all > 2 * HELD_SAMPLES,
                    "{name}: {all}"
                );
            }
        }
    }
}

#[test]
fn pieces_give_what_the_device_gives_in_order() {
    for (name, trace) in traces() {
        for (cpu, filter) in [
            ("core2", "any,u,k"),
            ("haswell", "stack,u"),
            ("spr", "any_call,u"),
        ] {
            let event = "instructions";
            let one = digest(&trace, options(cpu, filter, event));
            assert!(one.1 > 2 * HELD_SAMPLES as u64, "{name}: {}", one.1);
            assert_eq!(one.2.len(), trace.chunks().len());
            let mut in_order = options(cpu, filter, event);
            in_order.ordered = true;
            assert_eq!(
                one,
                digest(&trace, in_order),
                "{name} {cpu} {filter}, ordered"
            );
            let mut eager = options(cpu, filter, event);
            eager.eager = true;
            assert_eq!(one, digest(&trace, eager), "{name} {cpu} {filter}, eager");
            for jobs in [2, 5] {
                let mut parallel = options(cpu, filter, event);
                parallel.jobs = jobs;
                assert_eq!(
                    one,
                    digest(&trace, parallel),
                    "{name} {cpu} {filter}, {jobs} jobs"
                );
            }
        }
    }
}

/// One program, run by many processes, a little of it by each; and as many threads that do not run.
fn processes(count: usize) -> (Trace, Vec<Vec<StepId>>) {
    let config = SyntheticConfig {
        functions: 400,
        kernel: false,
        ..SyntheticConfig::with_seed(9)
    };
    let mut synthetic = Synthetic::new(&config).unwrap();
    let runs: Vec<Vec<StepId>> = (0..count).map(|_| synthetic.run(0, 200).unwrap()).collect();
    let meta = Meta {
        engine: "synthetic".into(),
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, WriterOptions::default()).unwrap();
    writer.sync_code(synthetic.code()).unwrap();
    for (number, steps) in runs.iter().enumerate() {
        let pid = 100 + number as u32;
        let process = Process {
            pid,
            ..Process::default()
        };
        let process = writer.add_process(&process).unwrap();
        let thread = |tid| Thread {
            process,
            tid,
            vcpu: None,
            name: String::new(),
        };
        writer.add_thread(&thread(pid + 100_000)).unwrap();
        let thread = writer.add_thread(&thread(pid)).unwrap();
        let sides = SideStreams::default();
        let chunk = encode_chunk(thread, steps, synthetic.code(), &sides, 3).unwrap();
        writer.write_chunk(&chunk).unwrap();
    }
    let bytes = writer.finish(&[]).unwrap();
    let trace = Trace::from_bytes(bytes, OpenOptions::default()).unwrap();
    (trace, runs)
}

#[test]
fn an_exact_profile_of_many_processes_is_that_of_each() {
    const PROCESSES: usize = 1500;
    let (trace, runs) = processes(PROCESSES);
    let region = vlbr_replay::Region::whole();
    let profiles = exact_profile(&trace, region, &mut |_| ()).unwrap();
    assert_eq!(profiles.len(), PROCESSES);
    for (number, steps) in runs.iter().enumerate() {
        let profile = &profiles[&(number as u32)];
        let taken: Vec<_> = steps
            .iter()
            .filter_map(|&step| trace.code().transfer(step))
            .collect();
        assert_eq!(profile.total(), taken.len() as u64, "process {number}");
        let ranges: u64 = profile.ranges.values().sum();
        assert_eq!(
            ranges,
            taken.len().saturating_sub(1) as u64,
            "process {number}"
        );
        for pair in taken.windows(2) {
            let range = vlbr_replay::Range {
                start: pair[0].to,
                end: pair[1].from,
                origin: pair[0].from,
            };
            assert!(
                profile.ranges.contains_key(&range),
                "process {number}: {range:x?}"
            );
        }
    }
}

/// A clock that mispredicts every branch and counts how many of it there are, and were at most.
#[derive(Debug)]
struct Counted {
    alive: Rc<[Cell<usize>; 2]>,
    now: u64,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        let [now, most] = &*self.alive;
        now.set(now.get() + 1);
        most.set(most.get().max(now.get()));
        Self {
            alive: Rc::clone(&self.alive),
            now: self.now,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive[0].set(self.alive[0].get() - 1);
    }
}

impl StepClock for Counted {
    fn retire(&mut self, code: &Code, step: StepId) -> StepTime {
        self.now += 1;
        StepTime {
            end: Cycles::new(self.now),
            mispredicted: code.retires_branch(step),
        }
    }

    fn retired_at(&self, _index: u16) -> Cycles {
        Cycles::new(self.now)
    }

    fn pass(&mut self, until: Cycles) {
        self.now = self.now.max(until.value());
    }
}

#[test]
fn a_thread_has_a_clock_from_its_first_chunk_to_its_last() {
    let (trace, runs) = processes(300);
    let clock = Counted {
        alive: Rc::new([Cell::new(1), Cell::new(1)]),
        now: 0,
    };
    let options = SessionOptions {
        clock: Clock::Model { predicts: true },
        tell_branches: true,
        ..options("skylake", "any,u", "instructions:u")
    };
    let session = Session::new(&trace, options).unwrap();
    let mut digest = Digest::default();
    let summary = session.run_with(&clock, &mut digest, &mut |_| ()).unwrap();
    // The one that the others begin as, and that of the thread that runs.
    assert_eq!(clock.alive[0].get(), 1);
    assert_eq!(clock.alive[1].get(), 2);
    assert_eq!(summary.threads.len(), 600);
    for (pair, steps) in summary.threads.chunks(2).zip(&runs) {
        assert_eq!(
            (pair[0].cycles, pair[1].cycles),
            (Some(0), Some(steps.len() as u64))
        );
    }
    // What each process ran is kept apart.
    let branches = |steps: &[StepId]| {
        let branches = steps
            .iter()
            .filter(|&&step| trace.code().retires_branch(step));
        branches.count() as u64
    };
    let told = summary
        .misses
        .unwrap()
        .worst(&trace, 1, usize::MAX)
        .unwrap();
    for (number, steps) in runs.iter().enumerate() {
        let own = told
            .iter()
            .filter(|branch| branch.pid == 100 + number as u32);
        let sum: u64 = own.map(|branch| branch.mispredicted).sum();
        assert_eq!(sum, branches(steps), "process {number}");
    }
}
